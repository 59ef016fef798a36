//! Streams into containers.

use super::cases::{Pod, said};
use super::{Case, CaseResult, Subject, holds, same};
use crate::Reason;
use crate::port::StreamOptions;
use futures::{SinkExt, StreamExt};
use kubewright_core::streams::{ExecInput, ExecOutput, ExecSession};
use std::time::Duration;

pub(super) const ALL: &[Case] = &[
    Case { name: "a program runs to its end", needs: |c, _| c.processes, run: |s| Box::pin(exec_sync(s)) },
    Case { name: "a program talks", needs: |c, _| c.processes, run: |s| Box::pin(exec(s)) },
    Case { name: "a program has a terminal", needs: |c, _| c.processes, run: |s| Box::pin(terminal(s)) },
    Case { name: "the first process talks", needs: |c, _| c.processes, run: |s| Box::pin(attach(s)) },
    Case { name: "a port answers", needs: |_, s| !s.echo_server.is_empty(), run: |s| Box::pin(port(s)) },
];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn exec_sync(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        let id = pod.start(&pod.config(&["sleep", "1000"]).await?).await?;
        let run = async |command: &[&str], seconds: u64| {
            subject.runtime.exec_sync(&id, words(command), Duration::from_secs(seconds)).await
        };
        let got = run(&["sh", "-c", "echo out; echo err >&2; exit 5"], 30).await.map_err(said)?;
        same("output", (got.stdout.as_slice(), got.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]))?;
        same("code", got.exit_code, 5)?;
        let late = run(&["sleep", "100"], 1).await.map_err(|e| e.reason());
        same("a late one", late.err(), Some(Reason::Timeout))?;
        holds(
            "a missing program",
            run(&["/no/such/program"], 30).await.map_or(true, |got| got.exit_code != 0),
        )?;
        subject.runtime.stop_container(&id, Duration::ZERO).await.map_err(said)?;
        holds("not in a stopped container", run(&["true"], 30).await.is_err())
    };
    let result = result.await;
    pod.done(result).await
}

/// All output and the exit code, once input was sent.
async fn finish(mut session: ExecSession, input: Vec<ExecInput>) -> Result<(String, Option<i32>), String> {
    for frame in input {
        session.input.send(frame).await.map_err(|e| e.to_string())?;
    }
    let (mut text, mut code) = (Vec::new(), None);
    while let Some(frame) = session.output.next().await {
        match frame {
            ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) => text.extend_from_slice(&bytes),
            ExecOutput::Exit(result) => code = Some(result.map_err(|e| e.to_string())?),
        }
    }
    Ok((String::from_utf8_lossy(&text).into_owned(), code))
}

async fn exec(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        let id = pod.start(&pod.config(&["sleep", "1000"]).await?).await?;
        let options = StreamOptions {
            command: words(&["sh", "-c", "cat; exit 4"]),
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
        };
        let session = subject.runtime.exec(&id, options).await.map_err(said)?;
        let input = vec![ExecInput::Stdin("ab".into()), ExecInput::Stdin("cd".into()), ExecInput::CloseStdin];
        same("a talk", finish(session, input).await?, ("abcd".to_owned(), Some(4)))?;
        let large = StreamOptions {
            command: words(&[
                "sh",
                "-c",
                "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done",
            ]),
            stdout: true,
            ..StreamOptions::default()
        };
        let session = subject.runtime.exec(&id, large).await.map_err(said)?;
        let (text, code) = finish(session, Vec::new()).await?;
        same("much output", (text.len(), code), (3000 * 41, Some(0)))
    };
    let result = result.await;
    pod.done(result).await
}

async fn terminal(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        let id = pod.start(&pod.config(&["sleep", "1000"]).await?).await?;
        let options = StreamOptions {
            command: words(&["sh", "-c", "read line; test -t 0 && test -t 1 && echo \"got $line\""]),
            stdin: true,
            stdout: true,
            stderr: false,
            tty: true,
        };
        let session = subject.runtime.exec(&id, options).await.map_err(said)?;
        let input = vec![ExecInput::Resize { width: 100, height: 30 }, ExecInput::Stdin("hello\n".into())];
        let (text, code) = finish(session, input).await?;
        same("code", code, Some(0))?;
        holds(&format!("the line came back: {text:?}"), text.contains("got hello"))
    };
    let result = result.await;
    pod.done(result).await
}

async fn attach(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        let mut config = pod.config(&["sh", "-c", "read line; echo \"got $line\"; exit 6"]).await?;
        config.stdin = true;
        let id = pod.start(&config).await?;
        let options = StreamOptions { stdin: true, stdout: true, stderr: true, ..StreamOptions::default() };
        let session = subject.runtime.attach(&id, options).await.map_err(said)?;
        let (text, _) = finish(session, vec![ExecInput::Stdin("hello\n".into())]).await?;
        same("a talk", text.as_str(), "got hello\n")
    };
    let result = result.await;
    pod.done(result).await
}

async fn port(subject: &Subject) -> CaseResult {
    const PORT: u16 = 18080;
    let pod = Pod::run(subject).await?;
    let result = async {
        let mut config = pod.config(&[]).await?;
        config.command = subject.echo_server.iter().cloned().chain([PORT.to_string()]).collect();
        pod.start(&config).await?;
        for _ in 0..500 {
            let Ok(mut session) = subject.runtime.port_forward(&pod.id, PORT).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            // Some runtimes tell only now that nothing listens yet.
            let _ = session.sender.send(Ok("ping".into())).await;
            match session.receiver.next().await {
                Some(Ok(answer)) => return same("the answer", &answer[..], &b"ping"[..]),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        Err("the port does not answer".to_owned())
    };
    let result = result.await;
    pod.done(result).await
}
