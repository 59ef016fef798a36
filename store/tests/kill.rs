//! Kill -9 in mid-write, twenty rounds: nothing acknowledged is lost, and no half commit is seen.
//!
//! The test runs itself once more as the process that is killed; that one writes and reports what was acknowledged.
#![cfg(all(feature = "redb", feature = "sled"))]

use kubewright_store::{
    Commit, CommitOutcome, Error, KeyRange, Op, RangeRequest, RedbStore, SledStore, Store,
};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const ROUNDS: u64 = 20;
const TASKS: u64 = 16;
const FOLDER: &str = "KUBEWRIGHT_KILL_FOLDER";
const ENGINE: &str = "KUBEWRIGHT_KILL_ENGINE";

fn open(engine: &str, folder: &Path) -> Result<Arc<dyn Store>, Error> {
    Ok(match engine {
        "redb" => Arc::new(RedbStore::open(folder.join("store.redb"))?),
        _ => Arc::new(SledStore::open(folder.join("store.sled"))?),
    })
}

/// What each task writes: the same number at two keys, in one commit.
fn commit(task: u64, number: u64) -> Commit {
    let put = |side: &str| Op::Put {
        key: format!("{task:02}/{side}").into(),
        value: format!("{number:0700}").into(),
    };
    Commit { compares: vec![], ops: vec![put("left"), put("right")] }
}

/// What a further task writes beside them, without the disk.
fn in_memory(number: u64) -> Commit {
    let put = Op::Put { key: "memory/beat".into(), value: number.to_string().into() };
    Commit { compares: vec![], ops: vec![put] }
}

/// The process that is killed. Does nothing where the test was not started as it.
#[test]
fn child() {
    let (Ok(folder), Ok(engine)) = (std::env::var(FOLDER), std::env::var(ENGINE)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(&engine, Path::new(&folder)).unwrap();
        store.keep_in_memory("memory/".into()).await.unwrap();
        let start = store.current_revision().await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..=TASKS {
            let store = store.clone();
            tasks.spawn(async move {
                for number in start + 1.. {
                    let next = if task == TASKS { in_memory(number) } else { commit(task, number) };
                    if task == TASKS {
                        // It would be a thousand times faster than the others, and so busy the process that reads its answers.
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    match store.commit(next).await {
                        Ok(CommitOutcome::Committed { revision }) => {
                            let line = format!("\nack {task} {number} {revision} .\n");
                            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    });
}

#[derive(Default)]
struct Acknowledged {
    /// The last number of each task.
    numbers: BTreeMap<u64, u64>,
    /// The last revision that anybody was told, writes in memory included.
    revision: u64,
    count: u64,
    in_memory: u64,
}

fn run_and_kill(engine: &str, folder: &Path, after: Duration, known: &mut Acknowledged) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(ENGINE, engine)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let reader =
        std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).collect::<Vec<_>>());
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    for line in reader.join().unwrap() {
        // Only whole lines; the last one may be cut.
        let Some(words) = line.strip_prefix("ack ").and_then(|rest| rest.strip_suffix(" .")) else {
            continue;
        };
        let numbers: Vec<u64> = words.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [task, number, revision] = numbers[..] else { continue };
        known.revision = known.revision.max(revision);
        if task == TASKS {
            known.in_memory += 1;
            continue;
        }
        let last = known.numbers.entry(task).or_default();
        *last = number.max(*last);
        known.count += 1;
    }
}

async fn check_after(engine: &str, folder: &Path, known: &Acknowledged) {
    let store = open(engine, folder).unwrap();
    assert!(store.current_revision().await.unwrap() >= known.revision, "{engine}: the last revision is lost");
    let whole = RangeRequest { range: KeyRange::prefix(""), limit: 0, revision: None };
    let items = store.range(whole).await.unwrap().items;
    assert!(
        items.iter().all(|kv| !kv.key.starts_with(b"memory/")),
        "{engine}: what was in memory is on disk"
    );
    for pair in items.chunks(2) {
        let [left, right] = pair else { panic!("{engine}: half a commit: {pair:?}") };
        assert_eq!(
            (&left.value, left.mod_revision),
            (&right.value, right.mod_revision),
            "{engine}: half a commit"
        );
    }
    for (task, number) in &known.numbers {
        let key = format!("{task:02}/left");
        let found = items.iter().find(|kv| kv.key == key).expect("an acknowledged key is lost");
        let found: u64 = std::str::from_utf8(&found.value).unwrap().parse().unwrap();
        assert!(found >= *number, "{engine}: task {task} was told {number}, and {found} is on disk");
    }
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost() {
    for engine in ["redb", "sled"] {
        let folder = tempfile::tempdir().unwrap();
        let mut known = Acknowledged::default();
        for round in 0..ROUNDS {
            let before = known.count;
            let mut after = Duration::from_millis(60 + (round * 37) % 140);
            // A slow machine may need longer to write at all.
            while known.count == before {
                run_and_kill(engine, folder.path(), after, &mut known);
                check_after(engine, folder.path(), &known).await;
                after *= 2;
                assert!(after < Duration::from_secs(60), "{engine}: the child never writes");
            }
        }
        println!("{engine}: {} acknowledged commits through {ROUNDS} kills", known.count);
        assert!(known.in_memory > 0, "{engine}: nothing was written in memory");
        assert!(known.count >= ROUNDS, "{engine}: too few commits were written to tell anything");
    }
}
