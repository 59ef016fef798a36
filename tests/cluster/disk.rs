//! A full disk: writes are refused with the reason, reads go on, and writes go on when there is room again.

use crate::common::{Folder, Launch};
use crate::{client, config_maps, create_map, until};
use nix::sys::signal::Signal;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Mounts a small file system on the data folder, seen by the cluster alone and gone with it.
const MOUNT: &str = "mount -t tmpfs -o size=24m tmpfs \"$0\" && exec \"$@\"";

/// Takes all the room that is left.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).expect("a file");
    for size in [1 << 20, 4096, 512] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_and_nothing_else() {
    let can = Command::new("unshare").args(["--mount", "true"]).output();
    if !can.is_ok_and(|o| o.status.success()) {
        println!("skipped: a full disk because mounts can't be made (not root?)");
        return;
    }
    let folder = Folder::new();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("a folder");
    let through =
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT, &data.display().to_string()];
    let launch = Launch::new(folder.path()).args(&["--runtime", "fake", "--nodes", "1"]);
    let cluster = launch.through(&through).spawn().printed("stays up");
    let client = client(&cluster.kubeconfig());
    create_map(&client, "before", "there").await.expect("room");

    let inside = format!("/proc/{}/root{}", cluster.pid(), data.display());
    let filler = Path::new(&inside).join("filler");
    fill(&filler);
    let text = "x".repeat(100_000);
    let mut refused = None;
    let mut kept = Vec::new();
    for number in 0..200 {
        let name = format!("full-{number}");
        match create_map(&client, &name, &text).await {
            Ok(_) => kept.push(name),
            Err(e) => {
                refused = Some((name, e));
                break;
            }
        }
    }
    let (refused, e) = refused.expect("no room is left some time");
    assert!(e.to_string().contains("no room"), "{e}");
    assert!([500, 503, 507].contains(&e.code()), "{e:?}");
    let maps = config_maps(&client);
    assert!(maps.get_opt(&refused).await.expect("reads go on").is_none(), "a refused write is not there");
    for name in kept.iter().map(String::as_str).chain(["before"]) {
        maps.get(name).await.expect("reads go on");
    }

    std::fs::remove_file(&filler).expect("removed");
    until("a write", async || create_map(&client, "after", &text).await.map_err(|e| e.to_string())).await;
    assert_eq!(cluster.end(Signal::SIGTERM), Some(0));
}
