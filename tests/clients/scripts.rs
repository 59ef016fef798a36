//! Runs the flows that are written in the clients' own languages.

use crate::cluster::Cluster;
use crate::common::parts;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a client's whole way may take before it is ended.
const SCRIPT_SECONDS_MAX: u64 = 900;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// The programs of a kind among the parts, the oldest first: `helm-`, `kubectl.`.
fn programs(prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parts().join("bin")).into_iter().flatten().flatten();
    let named = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix));
    let mut found: Vec<PathBuf> = entries.map(|e| e.path()).filter(named).collect();
    // Some `.part` may be left of an interrupted installation.
    found.retain(|path| path.extension().is_none_or(|e| e != "part"));
    found.sort();
    found
}

/// Runs a program to its end with the cluster's kubeconfig; its output is this test's.
fn drive(cluster: &Cluster, program: &Path, args: &[&Path]) {
    let mut command = Command::new(program);
    command
        .args(args)
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    let mut child = command.spawn().expect("the program is installed");
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break Some(status),
            None if start.elapsed() > Duration::from_secs(SCRIPT_SECONDS_MAX) => {
                let _ = child.kill();
                break child.wait().ok().filter(|_| false);
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    if !status.is_some_and(|s| s.success()) {
        println!("the cluster's log:\n{}", cluster.log_tail());
        panic!("{} {} ended with {status:?}", program.display(), args[0].display());
    }
}

/// The oldest and the newest Helm; all of them with `KUBEWRIGHT_HELM=all`.
#[test]
fn helm_installs_upgrades_and_rolls_back() {
    let (mut helms, kubectls) = (programs("helm-"), programs("kubectl."));
    let Some(kubectl) = kubectls.last().filter(|_| !helms.is_empty()) else {
        println!("skipped: Helm because none is in {}", parts().join("bin").display());
        return;
    };
    let Some(cluster) = crate::shared_cluster() else { return };
    if std::env::var("KUBEWRIGHT_HELM").is_ok_and(|v| v == "all") {
        println!("all of {}", helms.len());
    } else if helms.len() > 2 {
        helms.drain(1..helms.len() - 1);
    }
    let scratch = cluster.scratch("helm");
    let (script, python) = (script("helm.py"), Path::new("python3"));
    std::thread::scope(|scope| {
        for helm in &helms {
            scope.spawn(|| drive(&cluster, python, &[&script, helm, kubectl, &scratch]));
        }
    });
}

#[test]
fn python_client_drives_the_server() {
    let python = parts().join("python/bin/python");
    if !parts().join("python/installed").exists() {
        println!("skipped: the Python client because it is not in {}", parts().join("python").display());
        return;
    }
    let Some(cluster) = crate::shared_cluster() else { return };
    drive(&cluster, &python, &[&script("python.py"), Path::new("python")]);
}

#[test]
fn javascript_client_drives_the_server() {
    let folder = parts().join("javascript");
    if !folder.join("installed").exists() {
        println!("skipped: the JavaScript client because it is not in {}", folder.display());
        return;
    }
    let Some(cluster) = crate::shared_cluster() else { return };
    // Modules are looked for beside the script, so it runs from where they are.
    let copy = folder.join(format!("javascript-{}.mjs", std::process::id()));
    std::fs::copy(script("javascript.mjs"), &copy).expect("a copy");
    let result = std::panic::catch_unwind(|| {
        drive(&cluster, &folder.join("node"), &[&copy, Path::new("javascript"), &cluster.scratch("js")]);
    });
    let _ = std::fs::remove_file(copy);
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
