//! Any history, judged by a model that keeps every version: reads at every revision, pages, and watches from anywhere.

use futures::StreamExt as _;
use kubewright_store::{
    Commit, CommitOutcome, Compare, Event, KeyRange, Limits, MemoryStore, Op, RangeRequest, Reason, Store,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Key number, and the value to put or nothing to delete.
type Write = (u8, Option<u8>);

/// One commit: the writes, and whether a condition on the first key is right, wrong, or not there.
type Step = (Vec<Write>, Option<bool>);

/// Key to value and (create, mod) revision.
type State = BTreeMap<String, (u8, u64, u64)>;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (0..6u8, prop::option::weighted(0.7, any::<u8>()));
    let writes = prop::collection::btree_map(0..6u8, prop::option::weighted(0.7, any::<u8>()), 1..4);
    let writes = prop_oneof![write.prop_map(|w| vec![w]), writes.prop_map(|m| m.into_iter().collect())];
    prop::collection::vec((writes, prop::option::weighted(0.3, any::<bool>())), 1..40)
}

fn key(number: u8) -> String {
    format!("k/{number}")
}

/// What the step makes of the newest state; `None` where its condition does not hold.
fn model(state: &State, revision: u64, (writes, condition): &Step) -> Option<State> {
    if *condition == Some(false) {
        return None;
    }
    let mut next = state.clone();
    for (number, value) in writes {
        let create = state.get(&key(*number)).map_or(revision, |(_, create, _)| *create);
        match value {
            Some(value) => next.insert(key(*number), (*value, create, revision)),
            None => next.remove(&key(*number)),
        };
    }
    Some(next)
}

fn commit(state: &State, (writes, condition): &Step) -> Commit {
    let first = key(writes[0].0);
    let now = state.get(&first).map_or(0, |(_, _, modified)| *modified);
    let compares = condition
        .iter()
        .map(|right| Compare { key: first.clone().into(), mod_revision: if *right { now } else { now + 1 } });
    let op = |(number, value): &Write| match value {
        Some(value) => Op::Put { key: key(*number).into(), value: vec![*value].into() },
        None => Op::Delete { key: key(*number).into() },
    };
    Commit { compares: compares.collect(), ops: writes.iter().map(op).collect() }
}

async fn read(store: &dyn Store, revision: u64, limit: usize) -> Result<State, Reason> {
    let mut range = KeyRange::prefix("k/");
    let mut state = State::new();
    loop {
        let request = RangeRequest { range: range.clone(), limit, revision: Some(revision) };
        let page = store.range(request).await.map_err(|error| error.reason())?;
        let rest = page.count as usize - page.items.len();
        assert_eq!(page.more, rest > 0);
        for kv in page.items {
            range.start = [&kv.key[..], b"\0"].concat().into();
            let name = String::from_utf8(kv.key.to_vec()).unwrap();
            state.insert(name, (kv.value[0], kv.create_revision, kv.mod_revision));
        }
        if !page.more {
            return Ok(state);
        }
    }
}

/// Replays the events from a revision on over the state before it.
async fn replay(store: &dyn Store, mut state: State, from: u64, upto: u64) -> State {
    let mut watch = store.watch(KeyRange::prefix("k/"), from).await.unwrap();
    let mut at = from - 1;
    while at < upto {
        let batch = watch.next().await.unwrap().unwrap();
        at = batch.revision;
        for event in batch.events {
            let name = String::from_utf8(event.key().to_vec()).unwrap();
            let (Event::Put { previous, .. } | Event::Delete { previous, .. }) = &event;
            let before = previous.as_ref().map(|kv| (kv.value[0], kv.create_revision, kv.mod_revision));
            assert_eq!(before.as_ref(), state.get(&name), "what was before {event:?}");
            match event {
                Event::Put { item, .. } => {
                    state.insert(name, (item.value[0], item.create_revision, item.mod_revision));
                }
                Event::Delete { .. } => {
                    state.remove(&name);
                }
            }
        }
    }
    state
}

async fn check(store: &dyn Store, steps: Vec<Step>, history_revisions_max: usize) {
    let mut states = vec![State::new()];
    for step in &steps {
        let newest = states.last().unwrap();
        let revision = states.len() as u64;
        let outcome = store.commit(commit(newest, step)).await.unwrap();
        match model(newest, revision, step) {
            None => assert!(matches!(outcome, CommitOutcome::Refused { .. })),
            Some(same) if same == *newest => {
                assert_eq!(outcome, CommitOutcome::Committed { revision: revision - 1 });
            }
            Some(next) => {
                assert_eq!(outcome, CommitOutcome::Committed { revision });
                states.push(next);
            }
        }
    }
    let newest = states.len() as u64 - 1;
    for (revision, state) in states.iter().enumerate() {
        let revision = revision as u64;
        let known = revision + history_revisions_max as u64 >= newest;
        for limit in [0, 2] {
            let want = if known { Ok(state.clone()) } else { Err(Reason::Compacted) };
            assert_eq!(read(store, revision, limit).await, want, "at {revision}, limit {limit}");
        }
        if known {
            assert_eq!(replay(store, state.clone(), revision + 1, newest).await, states[newest as usize]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn every_history_fits_the_model(steps in steps(), history in prop_oneof![Just(1000usize), 1..10usize]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limits = Limits { history_revisions_max: history, ..Limits::default() };
        runtime.block_on(check(&MemoryStore::with_limits(limits), steps, history));
    }
}

/// The same with a third of the keys in memory, beside those on disk.
#[cfg(feature = "redb")]
mod mixed {
    use super::*;
    use kubewright_store::{RedbOptions, RedbStore};
    use proptest::test_runner::RngSeed;

    async fn on_disk(steps: Vec<Step>, history: usize) {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { history_revisions_max: history, ..Limits::default() };
        let options = RedbOptions { limits, ..RedbOptions::default() };
        let store = RedbStore::open_with(folder.path().join("store.redb"), options).unwrap();
        for prefix in ["k/1", "k/4"] {
            store.keep_in_memory(prefix.into()).await.unwrap();
        }
        check(&store, steps, history).await;
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 24, rng_seed: RngSeed::Fixed(11), ..ProptestConfig::default()
        })]
        #[test]
        fn keys_in_memory_fit_it_too(steps in steps(), history in prop_oneof![Just(1000usize), 1..10usize]) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(on_disk(steps, history));
        }
    }
}
