//! The stores on disk: the conformance suite, a folder in use, damaged files, and a full disk.
#![cfg(all(feature = "redb", feature = "sled"))]

use bytes::Bytes;
use futures::StreamExt as _;
use kubewright_store::conformance::Conformance;
use kubewright_store::{
    Commit, CommitOutcome, Error, KeyRange, Op, RangeRequest, Reason, RedbOptions, RedbStore, Revision,
    SledStore, Store,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Open = fn(&Path) -> Result<Arc<dyn Store>, Error>;

fn redb(folder: &Path) -> Result<Arc<dyn Store>, Error> {
    Ok(Arc::new(RedbStore::open(folder.join("store.redb"))?))
}

fn sled(folder: &Path) -> Result<Arc<dyn Store>, Error> {
    Ok(Arc::new(SledStore::open(folder.join("store.sled"))?))
}

const ENGINES: [(&str, Open); 2] = [("redb", redb), ("sled", sled)];

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Commit {
    Commit { compares: vec![], ops: vec![Op::Put { key: key.into(), value: value.into() }] }
}

async fn write(store: &Arc<dyn Store>, key: &str, value: impl Into<Bytes>) -> Result<Revision, Error> {
    match store.commit(put(key.to_owned(), value)).await? {
        CommitOutcome::Committed { revision } => Ok(revision),
        CommitOutcome::Refused { .. } => panic!("a commit without conditions was refused"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_on_disk_conform() {
    for (name, open) in ENGINES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let suite = Conformance::new(move || {
            let path = path.clone();
            async move { open(&path) }
        });
        let report = suite.persistent(true).run().await;
        assert!(report.passed(), "{name}\n{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_use_is_locked() {
    for (name, open) in ENGINES {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap();
        write(&first, "a", "1").await.unwrap();
        let error = open(folder.path()).map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), Reason::Locked, "{name}: {error}");
        assert!(error.to_string().contains("in use by another process"), "{name}: {error}");
        drop(first);
        let again = open(folder.path()).unwrap();
        assert_eq!(again.get("a".into()).await.unwrap().unwrap().value, "1", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_before_opening_is_compacted() {
    for (name, open) in ENGINES {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).unwrap();
        write(&store, "a", "1").await.unwrap();
        let last = write(&store, "a", "2").await.unwrap();
        store.close().await.unwrap();
        let store = open(folder.path()).unwrap();
        let error = store.watch(KeyRange::prefix("a"), last).await.map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), Reason::Compacted, "{name}: {error}");
        let mut watch = store.watch(KeyRange::prefix("a"), last + 1).await.unwrap();
        let next = write(&store, "a", "3").await.unwrap();
        let batch = watch.next().await.unwrap().unwrap();
        assert_eq!((batch.events[0].revision(), next), (last + 1, last + 1), "{name}");
    }
}

fn damage(file: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    how(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

/// What a damaged redb file gives: an error at once, or an error or the true value when it is read.
async fn check_damage(what: &str, how: impl FnOnce(&mut Vec<u8>), check_bytes_max: u64) -> Option<Reason> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(&path).unwrap());
    for at in 0..200 {
        write(&store, &format!("{at:04}"), vec![at as u8; 1000]).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    damage(&path, how);
    let options = RedbOptions { check_bytes_max, ..RedbOptions::default() };
    let store = match RedbStore::open_with(&path, options) {
        Ok(store) => store,
        Err(error) => {
            assert!(error.to_string().contains("store.redb"), "{what}: {error}");
            return Some(error.reason());
        }
    };
    let whole = kubewright_store::RangeRequest { range: KeyRange::prefix(""), limit: 0, revision: None };
    match store.range(whole).await {
        Ok(page) => {
            assert_eq!(page.items.len(), 200, "{what}");
            None
        }
        Err(error) => Some(error.reason()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_said_to_be_so() {
    let zeroed = |bytes: &mut Vec<u8>| bytes.iter_mut().take(4096).for_each(|b| *b = 0);
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let other = |bytes: &mut Vec<u8>| *bytes = b"this is a text file\n".repeat(500);
    let flipped = |bytes: &mut Vec<u8>| bytes.iter_mut().skip(4096).for_each(|b| *b ^= 0xff);
    assert_eq!(check_damage("zeroed head", zeroed, 0).await, Some(Reason::Corrupt));
    assert_eq!(check_damage("half a file", cut, 0).await, Some(Reason::Corrupt));
    assert_eq!(check_damage("another file", other, 0).await, Some(Reason::Corrupt));
    assert_eq!(check_damage("flipped pages", flipped, 0).await, Some(Reason::Corrupt));
    assert_eq!(check_damage("flipped pages, checked", flipped, u64::MAX).await, Some(Reason::Corrupt));
    assert_eq!(check_damage("nothing", |_| {}, u64::MAX).await, None);
}

#[cfg(unix)]
#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::open(folder.path().join("deep/er/store.redb")).unwrap();
    let mode = std::fs::metadata(store.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A tmpfs of a few MiB, gone when dropped.
struct TinyDisk(PathBuf, #[expect(dead_code, reason = "keeps the folder")] tempfile::TempDir);

impl TinyDisk {
    fn new(size: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .output()
            .map_err(|e| format!("mount can't be run: {e}"))?;
        if !mount.status.success() {
            return Err(format!(
                "a tmpfs can't be mounted: {}",
                String::from_utf8_lossy(&mount.stderr).trim()
            ));
        }
        Ok(TinyDisk(folder.path().to_owned(), folder))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_heals() {
    let disk = match TinyDisk::new("6m") {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: a full disk because {why}"),
    };
    let ballast = disk.0.join("ballast");
    std::fs::write(&ballast, vec![1u8; 2 << 20]).unwrap();
    let store = redb(&disk.0).unwrap();
    let mut watch = store.watch(KeyRange::prefix(""), 1).await.unwrap();
    let mut kept = Vec::new();
    let error = loop {
        let key = format!("{:05}", kept.len());
        match write(&store, &key, vec![kept.len() as u8; 10_000]).await {
            Ok(revision) => kept.push((key, revision)),
            Err(error) => break error,
        }
        assert!(kept.len() < 2000, "the disk never fills");
    };
    assert_eq!(error.reason(), Reason::NoSpace, "{error}");
    assert!(!error.is_indeterminate(), "{error}");
    check_kept(&store, &kept).await;
    // Still full: the same answer, and reads go on.
    let again = write(&store, "again", vec![0; 10_000]).await.unwrap_err();
    assert_eq!(again.reason(), Reason::NoSpace, "{again}");
    check_kept(&store, &kept).await;
    std::fs::remove_file(&ballast).unwrap();
    let revision = write(&store, "after", vec![0; 10_000]).await.unwrap();
    assert_eq!(revision, kept.last().unwrap().1 + 1);
    let mut seen = 0;
    while seen < revision {
        for event in watch.next().await.unwrap().unwrap().events {
            assert_eq!(event.revision(), seen + 1, "the watch has a gap");
            seen += 1;
        }
    }
    store.close().await.unwrap();
    drop(store);
    check_kept(&redb(&disk.0).unwrap(), &kept).await;
}

async fn check_kept(store: &Arc<dyn Store>, kept: &[(String, Revision)]) {
    for (key, revision) in kept {
        let found = store.get(key.clone().into()).await.unwrap();
        assert_eq!(found.map(|kv| kv.mod_revision), Some(*revision), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_memory_conform_too() {
    for (name, open) in ENGINES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let suite = Conformance::new(move || {
            let path = path.clone();
            async move {
                let store = open(&path)?;
                store.keep_in_memory("".into()).await?;
                Ok(store)
            }
        });
        let report = suite.persistent(false).run().await;
        assert!(report.passed(), "{name} in memory\n{report}");
    }
}

async fn keys(store: &Arc<dyn Store>, revision: Option<Revision>) -> Vec<(String, String, Revision)> {
    let request = RangeRequest { range: KeyRange::prefix(""), limit: 0, revision };
    let items = store.range(request).await.unwrap().items.into_iter();
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    items.map(|kv| (text(&kv.key), text(&kv.value), kv.mod_revision)).collect()
}

/// One order of revisions for both; what is in memory ends with the store, and no revision is given twice.
#[tokio::test(flavor = "multi_thread")]
async fn keys_in_memory_share_the_revisions_and_end_with_the_store() {
    for (name, open) in ENGINES {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).unwrap();
        assert_eq!(write(&store, "m/old", "0").await.unwrap(), 1);
        store.keep_in_memory("m/".into()).await.unwrap();
        store.keep_in_memory("m/".into()).await.unwrap();
        assert_eq!(
            store.get("m/old".into()).await.unwrap().unwrap().mod_revision,
            1,
            "{name}: moved as it was"
        );
        assert_eq!(write(&store, "d/a", "1").await.unwrap(), 2);
        assert_eq!(write(&store, "m/x", "2").await.unwrap(), 3);
        assert_eq!(write(&store, "d/b", "3").await.unwrap(), 4);
        let both = Commit {
            compares: vec![],
            ops: ["d/c", "m/y"].map(|k| Op::Put { key: k.into(), value: "4".into() }).into(),
        };
        assert_eq!(store.commit(both).await.unwrap(), CommitOutcome::Committed { revision: 5 });
        assert_eq!(write(&store, "m/x", "6").await.unwrap(), 6);
        assert_eq!(store.current_revision().await.unwrap(), 6);
        let shown = |items: Vec<(String, String, Revision)>| {
            items.iter().map(|(k, v, r)| format!("{k}={v}@{r}")).collect::<Vec<_>>().join(" ")
        };
        let now = shown(keys(&store, None).await);
        assert_eq!(now, "d/a=1@2 d/b=3@4 d/c=4@5 m/old=0@1 m/x=6@6 m/y=4@5", "{name}");
        assert_eq!(shown(keys(&store, Some(3)).await), "d/a=1@2 m/old=0@1 m/x=2@3", "{name}");
        let mut watch = store.watch(KeyRange::prefix(""), 2).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 6 {
            seen.extend(watch.next().await.unwrap().unwrap().events.iter().map(|e| e.revision()));
        }
        assert_eq!(seen, [2, 3, 4, 5, 5, 6], "{name}");
        store.close().await.unwrap();
        drop((watch, store));

        let store = open(folder.path()).unwrap();
        assert_eq!(shown(keys(&store, None).await), "d/a=1@2 d/b=3@4 d/c=4@5", "{name}: the rest is gone");
        let now = store.current_revision().await.unwrap();
        assert!(now > 6, "{name}: revision {now} was given before");
        let error = store.watch(KeyRange::prefix(""), 7).await.map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), Reason::Compacted, "{name}");
        assert_eq!(write(&store, "d/a", "7").await.unwrap(), now + 1, "{name}");
        // On disk again, as nobody said otherwise this time.
        write(&store, "m/x", "8").await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let store = open(folder.path()).unwrap();
        assert_eq!(keys(&store, None).await.len(), 4, "{name}");
        assert_eq!(
            store.current_revision().await.unwrap(),
            now + 2,
            "{name}: no block is skipped without need"
        );
    }
}
