//! What goes on while it is looked at: watches, logs, terminals, copies, forwarded ports.

use super::workloads::pod;
use crate::cluster::Cluster;
use crate::kubectl::{Kubectl, Outcome, has};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

pub(super) fn watch(k: &Kubectl, _: &Cluster) -> Outcome {
    let mut child = k
        .command(&["get", "cm", "-w", "--output-watch-events"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let lines = BufReader::new(child.stdout.take().ok_or("piped")?);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    std::thread::sleep(Duration::from_secs(1));
    k.ok(&["create", "cm", "watched", "--from-literal=a=1"])?;
    k.ok(&["label", "cm", "watched", "x=y"])?;
    k.ok(&["delete", "cm", "watched"])?;
    let (start, mut seen) = (Instant::now(), String::new());
    while !seen.contains("DELETED") && start.elapsed() < Duration::from_secs(20) {
        if let Ok(line) = told.recv_timeout(Duration::from_millis(200)) {
            seen.push_str(line.split_whitespace().next().filter(|_| line.contains("watched")).unwrap_or(""));
            seen.push(' ');
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    let seen: Vec<&str> = seen.split_whitespace().collect();
    has(&seen.join(" "), "ADDED MODIFIED DELETED")
}

pub(super) fn logs(k: &Kubectl, _: &Cluster) -> Outcome {
    let pod = pod(k)?;
    k.shows(&["logs", &pod], &["started on web-"])?;
    k.shows(&["logs", "deployment/web", "--tail=1"], &["started on"])?;
    k.shows(&["logs", "-l", "app=web", "--prefix", "--timestamps"], &["[pod/web-", "T"])?;
    k.fails(&["logs", &pod, "-p"], "previous terminated container")?;
    k.fails(&["logs", &pod, "-c", "none"], "container none is not valid")?;
    let mut follow =
        k.command(&["logs", "-f", &pod]).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    let mut lines = BufReader::new(follow.stdout.take().ok_or("piped")?).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    let _ = follow.kill();
    let _ = follow.wait();
    has(&first, "started on")
}

pub(super) fn exec(k: &Kubectl, _: &Cluster) -> Outcome {
    let pod = pod(k)?;
    k.shows(&["exec", &pod, "--", "sh", "-c", "echo out; echo $POD"], &["out", "web-"])?;
    let sum = k.ok_with(&["exec", "-i", &pod, "--", "wc", "-c"], "hello")?;
    if sum.trim() != "5" {
        return Err(format!("exec -i gave {sum}"));
    }
    let code = k.run(&["exec", &pod, "--", "sh", "-c", "echo bad >&2; exit 7"]);
    has(&code.stderr, "bad")?;
    has(&code.stderr, "exit code 7")?;
    k.fails(&["exec", &pod, "--", "no-such-program"], "")?;
    // A terminal: `script` gives kubectl one.
    if which("script") {
        let mut inner = k.command(&["exec", "-it", &pod]);
        inner.args(["--", "sh", "-c", "test -t 0 && echo terminal"]);
        let line: Vec<String> = std::iter::once(inner.get_program())
            .chain(inner.get_args())
            .map(|a| format!("'{}'", a.to_string_lossy()))
            .collect();
        let output = std::process::Command::new("script")
            .args(["-qec", &line.join(" "), "/dev/null"])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())?;
        has(&String::from_utf8_lossy(&output.stdout), "terminal")?;
    }
    Ok(())
}

pub(super) fn attach(k: &Kubectl, cluster: &Cluster) -> Outcome {
    let image = format!("--image={}", cluster.image());
    k.ok(&["run", "ticks", &image, "--", "sh", "-c", "while true; do echo tick; sleep 0.2; done"])?;
    k.ok(&["wait", "--for=condition=Ready", "pod/ticks", "--timeout=30s"])?;
    for args in [&["attach", "ticks"][..], &["logs", "-f", "--tail=1", "ticks"]] {
        let mut child =
            k.command(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
        let lines = BufReader::new(child.stdout.take().ok_or("piped")?).lines();
        let ticks = lines.map_while(Result::ok).filter(|line| line == "tick").take(3).count();
        let _ = child.kill();
        let _ = child.wait();
        if ticks != 3 {
            return Err(format!("{} gave {ticks} lines", args.join(" ")));
        }
    }
    k.ok(&["delete", "pod", "ticks", "--now"]).map(drop)
}

pub(super) fn cp(k: &Kubectl, cluster: &Cluster) -> Outcome {
    let pod = pod(k)?.trim_start_matches("pod/").to_owned();
    let (from, back) = (cluster.scratch("sent"), cluster.scratch(&format!("back-{}", k.namespace)));
    std::fs::write(&from, "carried over").map_err(|e| e.to_string())?;
    let remote = format!("{pod}:/tmp/carried");
    k.ok(&["cp", &from.display().to_string(), &remote])?;
    k.shows(&["exec", &pod, "--", "cat", "/tmp/carried"], &["carried over"])?;
    k.ok(&["cp", &remote, &back.display().to_string()])?;
    has(&std::fs::read_to_string(back).unwrap_or_default(), "carried over")
}

pub(super) fn port_forward(k: &Kubectl, _: &Cluster) -> Outcome {
    let mut child = k
        .command(&["port-forward", "deployment/web", ":8080"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().ok_or("piped")?);
    let _ = reader.read_line(&mut line);
    let port = line.split("127.0.0.1:").nth(1).and_then(|r| r.split(' ').next()).map(str::to_owned);
    let mut seen = String::new();
    if let Some(port) = port {
        for _ in 0..2 {
            if let Ok(mut stream) = std::net::TcpStream::connect(format!("127.0.0.1:{port}")) {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
                let _ = stream.read_to_string(&mut seen);
            }
        }
    }
    let _ = child.kill();
    let mut err = String::new();
    let _ = child.stderr.take().map(|mut e| e.read_to_string(&mut err));
    let _ = child.wait();
    if seen.matches("web-").count() == 2 { Ok(()) } else { Err(format!("{line} {seen} {err}")) }
}

fn which(program: &str) -> bool {
    std::process::Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|o| o.status.success())
}
