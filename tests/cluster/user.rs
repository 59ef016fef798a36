//! The demo as an ordinary user, from a home of its own.

use crate::common::{Folder, Launch, left_of};
use crate::{client, delete_demo, ready_pods};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

/// Nobody on Debian, and a good stand-in elsewhere.
const NOBODY: u32 = 65534;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_runs_as_an_ordinary_user() {
    let folder = Folder::new();
    let home = folder.path().join("home");
    std::fs::create_dir(&home).expect("a home");
    // The program's own folder may be closed to others.
    let program = folder.path().join("program");
    std::fs::copy(crate::common::program(), &program).expect("a copy");
    let become_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let mut through: &[&str] = &[];
    if geteuid().is_root() {
        if Command::new("setpriv").arg("--version").output().is_err() {
            println!("skipped: the demo as an ordinary user because setpriv is missing");
            return;
        }
        through = &become_nobody;
        for path in [folder.path(), &home, &program] {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("root may give files away");
        }
    }
    let launch = || {
        let launch = Launch::bare(folder.path()).program(&program).through(through);
        launch.env("HOME", &home).env("XDG_STATE_HOME", &home.join("state"))
    };
    let cluster = launch().spawn().printed("stays up");
    let kubeconfig = home.join("state/kubewright/cluster/kubeconfig");
    let mode = std::fs::metadata(&kubeconfig).expect("a kubeconfig").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let log = cluster.log();
    assert_eq!(log.matches("says: Hello from web-").count(), 3, "three pods answer:\n{log}");
    let client = client(&kubeconfig);
    ready_pods(&client, 3).await;
    delete_demo(&client).await;
    assert_eq!(cluster.end(Signal::SIGINT), Some(0));
    assert_eq!(left_of(folder.path()), Vec::<String>::new());

    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).expect("a folder");
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o555)).expect("closed");
    let below = closed.join("data").display().to_string();
    let run = launch().args(&["--once", "--data", &below]).finish();
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("data folder") && run.stderr.contains("denied"), "{run:?}");
}
