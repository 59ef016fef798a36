//! Closing a store, and opening it again.

use super::help::{Bench, why};
use super::{Why, case_list, ensure};
use crate::{Commit, Error, KeyRange, RangeRequest, Reason};

case_list![
    Nothing a_closed_store_says_so,
    Nothing closing_ends_watches,
    Persistence a_reopened_store_holds_everything,
    Persistence revisions_go_on_after_reopening,
];

async fn a_closed_store_says_so(b: Bench) -> Result<(), Why> {
    b.put("a", "1").await?;
    b.store.close().await.map_err(why("close"))?;
    let key = b.key("a");
    let request = RangeRequest { range: b.all(), limit: 0, revision: None };
    let commit = Commit { compares: vec![], ops: vec![b.put_op("b", "2")] };
    let answers: [(&str, Option<Error>); 6] = [
        ("get", b.store.get(key).await.err()),
        ("range", b.store.range(request).await.err()),
        ("commit", b.store.commit(commit).await.err()),
        ("current_revision", b.store.current_revision().await.err()),
        ("compact", b.store.compact(1).await.err()),
        ("watch", b.store.watch(KeyRange::prefix("x"), 1).await.err()),
    ];
    for (call, error) in answers {
        let reason = error.map(|e| e.reason());
        ensure!(reason == Some(Reason::Closed), "{call} on a closed store gave {reason:?}");
    }
    b.store.close().await.map_err(why("close twice"))
}

async fn closing_ends_watches(b: Bench) -> Result<(), Why> {
    let from = b.revision().await? + 1;
    let mut follower = b.watch(from).await?;
    b.store.close().await.map_err(why("close"))?;
    let reason = follower.end().await?;
    ensure!(reason == Reason::Closed, "the watch ended with {reason:?}");
    Ok(())
}

async fn a_reopened_store_holds_everything(b: Bench) -> Result<(), Why> {
    b.put("kept", "1").await?;
    b.put("gone", "1").await?;
    b.put("kept", "2").await?;
    b.delete("gone").await?;
    let before = b.range(b.all(), 0, None).await?.items;
    b.store.close().await.map_err(why("close"))?;
    let again = b.reopen().await?;
    let after = again.range(again.all(), 0, None).await?.items;
    ensure!(before == after, "{before:?} became {after:?}");
    again.store.close().await.map_err(why("close"))
}

async fn revisions_go_on_after_reopening(b: Bench) -> Result<(), Why> {
    b.put("a", "1").await?;
    let last = b.delete("a").await?;
    b.store.close().await.map_err(why("close"))?;
    let again = b.reopen().await?;
    ensure!(again.revision().await? >= last, "the store is at {}, not {last}", again.revision().await?);
    let mut follower = again.watch(last + 1).await?;
    let next = again.put("a", "2").await?;
    ensure!(next > last, "revision {next} came after {last}");
    let events = follower.events(1).await?;
    ensure!(events[0].revision() == next, "got {events:?}");
    again.store.close().await.map_err(why("close"))
}
