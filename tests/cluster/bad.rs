//! What can be wrong at a start: each is told in one line, with the exit code 1 (2 for the command line), and nothing is half done.

use crate::common::{Finished, Folder, Launch};
use crate::{client, config_maps};
use std::net::TcpListener;
use std::path::Path;

/// A run must end with this code and one line that has all the words.
fn check(what: &str, run: &Finished, code: i32, words: &[&str]) {
    assert_eq!(run.code, Some(code), "{what}: {run:?}");
    for word in words {
        assert!(run.stderr.contains(word), "{what}: {word:?} is missing in {:?}", run.stderr);
    }
    let lines = run.stderr.lines().filter(|l| !l.trim().is_empty()).count();
    assert!(code == 2 || lines == 1, "{what}: one line is enough: {}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{what}: {}", run.stderr);
}

fn launch(folder: &Folder) -> Launch {
    Launch::new(folder.path()).args(&["--once", "--runtime", "fake", "--nodes", "1"])
}

#[test]
fn the_command_line() {
    let folder = Folder::new();
    let cases: &[(&[&str], &str)] = &[
        (&["--store", "paper"], "redb, sled, memory, etcd=URL"),
        (&["--store", "etcd="], "redb, sled, memory, etcd=URL"),
        (&["--runtime", "steam"], "embedded, fake, cri=SOCKET"),
        (&["--listen", "nonsense"], "--listen"),
        (&["--nodes", "0"], "1..=1000"),
        (&["--timeout", "soon"], "--timeout"),
        (&["--bogus"], "--bogus"),
        (&["--manifest"], "--manifest"),
    ];
    for (args, words) in cases {
        check(&args.join(" "), &Launch::bare(folder.path()).args(args).finish(), 2, &[words]);
    }
}

#[test]
fn places_and_peers() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").to_string();
    let file = folder.write("file", "no folder");
    let text = |path: &Path| path.display().to_string();
    let below_a_file = format!("{file}/kubeconfig");
    let nowhere = format!("cri={}", text(&folder.path().join("no.sock")));
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("a port in use", &["--listen", &port], &[&port, "in use"]),
        ("no address of this machine", &["--listen", "192.0.2.1:1"], &["192.0.2.1:1", "assign"]),
        ("a data folder that is a file", &["--data", &file], &["data folder", &file]),
        (
            "a data folder that can't be made",
            &["--data", "/proc/kubewright"],
            &["data folder", "/proc/kubewright"],
        ),
        (
            "a kubeconfig below a file",
            &["--kubeconfig", &below_a_file],
            &["kubeconfig", &file, "File exists"],
        ),
        ("no etcd", &["--store", "etcd=http://127.0.0.1:1"], &["store", "http://127.0.0.1:1", "refused"]),
        ("no address of etcd", &["--store", "etcd=::"], &["store", "::"]),
        ("no socket of a runtime", &["--runtime", &nowhere], &["no.sock", "No such file"]),
        ("one runtime, many nodes", &["--runtime", &nowhere, "--nodes", "2"], &["--nodes 1"]),
    ];
    for (what, args, words) in cases {
        check(what, &launch(&folder).args(args).finish(), 1, words);
    }
}

#[test]
fn data_folders() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    let cluster = launch(&folder).args(&["--manifest", &folder.write("a.yaml", MAP)]).finish();
    assert_eq!(cluster.code, Some(0), "{cluster:?}");
    let stays_up = Launch::new(folder.path()).args(&["--runtime", "fake", "--nodes", "1"]);
    let running = stays_up.spawn().printed("stays up");
    check("a second instance", &launch(&folder).finish(), 1, &["store.redb", "in use by another process"]);
    drop(running);

    let store = data.join("store.redb");
    let good = std::fs::read(&store).expect("a store");
    let mut garbled = good.clone();
    garbled[4096..].iter_mut().step_by(7).for_each(|byte| *byte ^= 0xa5);
    let cases: &[(&str, &[u8])] = &[
        ("a truncated store", &good[..good.len() / 2]),
        ("a garbled store", &garbled),
        ("no store", b"something else entirely"),
    ];
    for (what, bytes) in cases {
        std::fs::write(&store, bytes).expect("written");
        check(what, &launch(&folder).finish(), 1, &["store.redb", "damaged or no store"]);
        assert_eq!(&std::fs::read(&store).expect("still there"), bytes, "{what} is left as it was");
    }
    std::fs::write(&store, &good).expect("written");
    std::fs::write(data.join("keys/ca.crt"), "no certificate").expect("written");
    check("a damaged authority", &launch(&folder).finish(), 1, &["keys/ca.crt"]);
}

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: first}\n";

#[test]
fn manifests() {
    let folder = Folder::new();
    let cases: &[(&str, &str, &[&str])] = &[
        ("no YAML", "a: [b", &["line 1"]),
        ("no object", "just words", &["no apiVersion or kind"]),
        ("nothing", "---\n", &["no objects"]),
        ("no name", "apiVersion: v1\nkind: ConfigMap\n", &["ConfigMap", "metadata.name"]),
        ("an unknown kind", "apiVersion: x.org/v1\nkind: Foo\nmetadata: {name: a}", &["Foo", "x.org/v1"]),
        (
            "a broken rule",
            "apiVersion: v1\nkind: Service\nmetadata: {name: UPPER}\nspec: {ports: [{port: 1}]}",
            &["UPPER", "DNS-1035"],
        ),
        ("a wrong type", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: 5", &["ConfigMap"]),
        (
            "an unknown field",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndate: {}",
            &["unknown field", "date"],
        ),
    ];
    for (what, text, words) in cases {
        // A good object in front, which must not be there afterwards.
        let manifest = folder.write(
            "bad.yaml",
            &if text.len() > 10 { format!("{MAP}---\n{text}") } else { (*text).to_owned() },
        );
        check(what, &launch(&folder).args(&["--manifest", &manifest]).finish(), 1, words);
    }
    let missing = folder.path().join("missing.yaml").display().to_string();
    check(
        "no file",
        &launch(&folder).args(&["--manifest", &missing]).finish(),
        1,
        &[&missing, "No such file"],
    );

    let other = folder.write("other.yaml", &MAP.replace("first", "other"));
    let running = Launch::new(folder.path()).args(&["--runtime", "fake", "--manifest", &other]);
    let running = running.spawn().printed("stays up");
    let maps = config_maps(&client(&running.kubeconfig()));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    assert!(runtime.block_on(maps.get_opt("first")).expect("an answer").is_none(), "nothing is half applied");
    assert!(runtime.block_on(maps.get_opt("other")).expect("an answer").is_some());
}
