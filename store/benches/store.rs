//! Writes and reads of the stores: grouped puts, puts one by one, and a range of 100,000 keys; values of 1.5 kB.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kubewright_store::{Commit, KeyRange, MemoryStore, Op, RangeRequest, Store};
use std::sync::Arc;
use tokio::runtime::Runtime;

/// How many callers write at once in the grouped workload, as in the comparison of engines.
const CALLERS: usize = 64;
const VALUE_LEN: usize = 1500;
const KEYS: usize = 100_000;

fn stores(folder: &std::path::Path) -> Vec<(&'static str, Arc<dyn Store>)> {
    let mut stores: Vec<(&'static str, Arc<dyn Store>)> = vec![("memory", Arc::new(MemoryStore::new()))];
    #[cfg(feature = "redb")]
    stores.push((
        "redb",
        Arc::new(kubewright_store::RedbStore::open(folder.join("redb")).expect("redb opens")),
    ));
    #[cfg(feature = "sled")]
    stores.push((
        "sled",
        Arc::new(kubewright_store::SledStore::open(folder.join("sled")).expect("sled opens")),
    ));
    stores
}

fn put(at: usize) -> Commit {
    let value = Bytes::from(vec![at as u8; VALUE_LEN]);
    let op = Op::Put { key: format!("registry/pods/{:08}", at % KEYS).into(), value };
    Commit { compares: vec![], ops: vec![op] }
}

/// `count` puts by [`CALLERS`] tasks.
async fn grouped(store: &Arc<dyn Store>, count: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..CALLERS {
        let store = store.clone();
        tasks.spawn(async move {
            for at in (task..count).step_by(CALLERS) {
                store.commit(put(at)).await.expect("a put");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a task ends well");
    }
}

fn benches(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let _inside = runtime.enter();
    for (name, store) in stores(folder.path()) {
        runtime.block_on(grouped(&store, KEYS));
        let mut group = c.benchmark_group(name);
        group.sample_size(10);
        group.throughput(Throughput::Elements(10_000));
        group.bench_function("10,000 puts by 64 callers", |b| {
            b.iter(|| runtime.block_on(grouped(&store, 10_000)));
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function("one put", |b| {
            let mut at = 0;
            let next = || {
                at += 1;
                put(at)
            };
            b.iter_batched(next, |commit| runtime.block_on(store.commit(commit)), BatchSize::SmallInput);
        });
        group.throughput(Throughput::Elements(KEYS as u64));
        group.bench_function("range of 100,000", |b| {
            b.iter(|| {
                let request = RangeRequest { range: KeyRange::prefix("registry/"), limit: 0, revision: None };
                runtime.block_on(store.range(request)).expect("a range").items.len()
            });
        });
        group.finish();
        runtime.block_on(store.close()).expect("it closes");
    }
}

criterion_group!(all, benches);
criterion_main!(all);
