//! What a runtime of processes does.

use super::cases::{Pod, said};
use super::{Case, CaseResult, Subject, holds, same};
use crate::Reason;
use crate::port::{Container, ContainerConfig, ContainerFilter, ContainerState, Mount, SecurityContext};
use std::time::Duration;

pub(super) const ALL: &[Case] = &[
    Case { name: "exit codes are told", needs: |c, _| c.processes, run: |s| Box::pin(exit_codes(s)) },
    Case { name: "logs are written", needs: |c, _| c.processes, run: |s| Box::pin(logs(s)) },
    Case { name: "a log is opened anew", needs: |c, _| c.processes, run: |s| Box::pin(reopen(s)) },
    Case { name: "the stop signal comes first", needs: |c, _| c.processes, run: |s| Box::pin(stop(s)) },
    Case { name: "environment and directory", needs: |c, _| c.processes, run: |s| Box::pin(environment(s)) },
    Case {
        name: "a missing program fails to start",
        needs: |c, _| c.processes,
        run: |s| Box::pin(no_program(s)),
    },
    Case {
        name: "volumes are mounted",
        needs: |c, _| c.processes && c.isolated,
        run: |s| Box::pin(volumes(s)),
    },
    Case {
        name: "the host has its name",
        needs: |c, _| c.processes && c.isolated,
        run: |s| Box::pin(hostname(s)),
    },
    Case {
        name: "a root that can't be written",
        needs: |c, _| c.processes && c.isolated,
        run: |s| Box::pin(readonly_root(s)),
    },
    Case {
        name: "containers share no files",
        needs: |c, _| c.processes && c.isolated,
        run: |s| Box::pin(own_files(s)),
    },
    Case { name: "users are taken on", needs: |c, _| c.processes && c.users, run: |s| Box::pin(users(s)) },
    Case {
        name: "use of resources is told",
        needs: |c, _| c.processes && c.stats,
        run: |s| Box::pin(stats(s)),
    },
];

/// Runs a container to its end.
pub(super) async fn run_to_end(pod: &Pod<'_>, config: &ContainerConfig) -> Result<Container, String> {
    let id = pod.start(config).await?;
    for _ in 0..2000 {
        let status = pod.subject.runtime.container_status(&id).await.map_err(said)?;
        if status.state == ContainerState::Exited {
            return Ok(status);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err("the container does not end".to_owned())
}

/// Runs a shell's words to their end, and gives the code and what was written.
async fn shell(pod: &Pod<'_>, config: ContainerConfig, words: &str) -> Result<(i32, String), String> {
    let command = ["sh", "-c", words].map(str::to_owned).to_vec();
    let ended = run_to_end(pod, &ContainerConfig { command, ..config }).await?;
    let text = std::fs::read_to_string(&ended.log_path).map_err(|e| format!("{}: {e}", ended.log_path))?;
    let lines = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3).map(str::to_owned));
    let lines: Vec<String> = lines.collect();
    pod.subject.runtime.remove_container(&ended.id).await.map_err(said)?;
    std::fs::remove_file(&ended.log_path).map_err(|e| e.to_string())?;
    Ok((ended.exit_code, lines.join("\n")))
}

async fn exit_codes(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        for (words, code, reason) in
            [("exit 0", 0, "Completed"), ("exit 7", 7, "Error"), ("exit 255", 255, "Error")]
        {
            let ended = run_to_end(&pod, &pod.config(&["sh", "-c", words]).await?).await?;
            same(words, (ended.exit_code, ended.reason.as_str()), (code, reason))?;
        }
        let id = pod.start(&pod.config(&["sleep", "1000"]).await?).await?;
        subject.runtime.stop_container(&id, Duration::ZERO).await.map_err(said)?;
        let killed = subject.runtime.container_status(&id).await.map_err(said)?;
        same("killed", (killed.exit_code, killed.reason.as_str()), (137, "Error"))
    };
    let result = result.await;
    pod.done(result).await
}

async fn logs(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        let config = pod.config(&["sh", "-c", "echo out; echo err >&2; printf rest"]).await?;
        let ended = run_to_end(&pod, &config).await?;
        let text = std::fs::read_to_string(&ended.log_path).map_err(|e| e.to_string())?;
        let records: Result<Vec<_>, _> =
            text.lines().map(|line| crate::logs::LogRecord::parse(line.as_bytes())).collect();
        let records = records.map_err(|e| format!("{e}: {text}"))?;
        let has = |stream: &str, words: &str| {
            records.iter().any(|r| r.stream.as_str() == stream && r.text == words.as_bytes())
        };
        holds(
            &format!("all three lines are there: {text}"),
            has("stdout", "out") && has("stderr", "err") && has("stdout", "rest"),
        )
    };
    let result = result.await;
    pod.done(result).await
}

async fn reopen(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        let config = pod.config(&["sh", "-c", "while :; do echo tick; sleep 0.02; done"]).await?;
        let id = pod.start(&config).await?;
        let path = subject.runtime.container_status(&id).await.map_err(said)?.log_path;
        let moved = format!("{path}.old");
        wait_for_file(&path).await?;
        std::fs::rename(&path, &moved).map_err(|e| e.to_string())?;
        subject.runtime.reopen_container_log(&id).await.map_err(said)?;
        wait_for_file(&path).await
    };
    let result = result.await;
    pod.done(result).await
}

async fn wait_for_file(path: &str) -> CaseResult {
    for _ in 0..1000 {
        if std::fs::metadata(path).is_ok_and(|found| found.len() > 0) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("nothing is written to {path}"))
}

async fn stop(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        for (words, code) in [
            ("trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done", 3),
            ("trap '' TERM; echo ready; while :; do sleep 0.02; done", 137),
        ] {
            let id = pod.start(&pod.config(&["sh", "-c", words]).await?).await?;
            let path = subject.runtime.container_status(&id).await.map_err(said)?.log_path;
            wait_for_file(&path).await?;
            let grace = if code == 3 { Duration::from_secs(30) } else { Duration::from_millis(300) };
            subject.runtime.stop_container(&id, grace).await.map_err(said)?;
            same(words, subject.runtime.container_status(&id).await.map_err(said)?.exit_code, code)?;
            std::fs::remove_file(path).map_err(|e| e.to_string())?;
        }
        Ok(())
    };
    let result = result.await;
    pod.done(result).await
}

async fn environment(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        let mut config = pod.config(&[]).await?;
        config.envs = vec![
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "x y".to_owned()),
            ("A".to_owned(), "2".to_owned()),
        ];
        config.working_dir = "/made/here".to_owned();
        let (code, text) = shell(&pod, config, "echo \"$A:$B:${PWD##*/made}\"").await?;
        same("what it sees", (code, text.as_str()), (0, "2:x y:/here"))
    };
    let result = result.await;
    pod.done(result).await
}

async fn no_program(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        let config = pod.config(&["/no/such/program"]).await?;
        let id = subject.runtime.create_container(&pod.id, &config, &pod.config).await.map_err(said)?;
        let started = subject.runtime.start_container(&id).await.map_err(|e| e.reason());
        same("start", started, Err(Reason::StartFailed))?;
        let status = subject.runtime.container_status(&id).await.map_err(said)?;
        same("state", status.state, ContainerState::Exited)?;
        holds("the code is not 0", status.exit_code != 0)
    };
    let result = result.await;
    pod.done(result).await
}

async fn volumes(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        let volume = subject.directory.join(&pod.config.metadata.name).join("volume");
        std::fs::create_dir_all(volume.join("sub")).map_err(|e| e.to_string())?;
        std::fs::write(volume.join("file"), "text\n").map_err(|e| e.to_string())?;
        let mount = |path: &str, from: &str, readonly| Mount {
            container_path: path.to_owned(),
            host_path: volume.join(from).display().to_string(),
            readonly,
            ..Mount::default()
        };
        let mut config = pod.config(&[]).await?;
        config.mounts =
            vec![mount("/a/b/sub", "sub", false), mount("/a/b", "", true), mount("/one", "file", true)];
        let words =
            "cat /one /a/b/file; touch /a/b/x 2>/dev/null || echo refused; touch /a/b/sub/y && echo written";
        let (_, text) = shell(&pod, config, words).await?;
        same("what it sees", text.as_str(), "text\ntext\nrefused\nwritten")?;
        holds("what it wrote is there", volume.join("sub/y").exists() && !volume.join("x").exists())
    };
    let result = result.await;
    pod.done(result).await
}

async fn hostname(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        let (_, text) = shell(&pod, pod.config(&[]).await?, "hostname; cat /etc/hostname").await?;
        same("host name", text, format!("{0}\n{0}", pod.config.hostname))
    };
    let result = result.await;
    pod.done(result).await
}

async fn readonly_root(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        let mut config = pod.config(&[]).await?;
        config.security.readonly_rootfs = true;
        let (_, text) =
            shell(&pod, config, "touch /x 2>/dev/null || echo refused; echo > /dev/null && echo ok").await?;
        same("what it sees", text.as_str(), "refused\nok")
    };
    let result = result.await;
    pod.done(result).await
}

async fn own_files(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        for _ in 0..2 {
            let words = "test -e /mine && echo found; touch /mine; test -e /proc/self && echo proc";
            let (_, text) = shell(&pod, pod.config(&[]).await?, words).await?;
            same("what it sees", text.as_str(), "proc")?;
        }
        Ok(())
    };
    let result = result.await;
    pod.done(result).await
}

async fn users(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        let mut config = pod.config(&[]).await?;
        config.security = SecurityContext {
            run_as_user: Some(1234),
            run_as_group: Some(4321),
            no_new_privs: true,
            drop_capabilities: vec!["ALL".to_owned()],
            ..SecurityContext::default()
        };
        let (_, text) =
            shell(&pod, config, "id -u; id -g; grep -E 'CapEff|NoNewPrivs' /proc/self/status").await?;
        let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        same("what it is", text.as_str(), "1234 4321 CapEff: 0000000000000000 NoNewPrivs: 1")
    };
    let result = result.await;
    pod.done(result).await
}

async fn stats(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = async {
        let words = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done; sleep 1000";
        let id = pod.start(&pod.config(&["sh", "-c", words]).await?).await?;
        let path = subject.runtime.container_status(&id).await.map_err(said)?.log_path;
        wait_for_file(&path).await?;
        let filter = ContainerFilter { id: Some(id.clone()), ..ContainerFilter::default() };
        let stats = subject.runtime.list_container_stats(filter).await.map_err(said)?;
        let [only] = stats.as_slice() else { return Err(format!("{} entries", stats.len())) };
        holds("it used time", only.cpu_usage_core_nano_seconds > 0)?;
        holds("it uses memory", only.memory_working_set_bytes > 0)
    };
    let result = result.await;
    pod.done(result).await
}
