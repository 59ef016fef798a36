//! Many callers at once.

use super::help::{Bench, text, why};
use super::{Why, case_list, ensure};
use crate::{CommitOutcome, Event, Reason};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;

case_list![
    Nothing counters_count_exactly,
    Nothing acknowledged_means_visible,
    Nothing commits_are_seen_whole,
    Nothing watches_rebuild_the_map,
    Nothing a_dropped_commit_is_whole_or_absent,
];

async fn join(mut tasks: JoinSet<Result<(), Why>>) -> Result<(), Why> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| format!("a task ended: {error}"))??;
    }
    Ok(())
}

async fn counters_count_exactly(b: Bench) -> Result<(), Why> {
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let b = b.clone();
        tasks.spawn(async move {
            for _ in 0..10 {
                count_up(&b).await?;
            }
            Ok(())
        });
    }
    join(tasks).await?;
    let value = b.value("counter").await?;
    ensure!(value.as_deref() == Some("80"), "80 increments gave {value:?}");
    Ok(())
}

async fn count_up(b: &Bench) -> Result<(), Why> {
    let mut now = b.get("counter").await?;
    loop {
        // Lets the others read the same value.
        tokio::task::yield_now().await;
        let revision = now.as_ref().map_or(0, |kv| kv.mod_revision);
        let value: u64 = match &now {
            Some(kv) => text(&kv.value).parse().map_err(|_| format!("the counter is {kv:?}"))?,
            None => 0,
        };
        let next = b.put_op("counter", &format!("{}", value + 1));
        match b.commit(vec![b.compare("counter", revision)], vec![next]).await? {
            CommitOutcome::Committed { .. } => return Ok(()),
            CommitOutcome::Refused { current } => now = current.into_iter().next().flatten(),
        }
    }
}

async fn acknowledged_means_visible(b: Bench) -> Result<(), Why> {
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let b = b.clone();
        tasks.spawn(async move {
            let name = format!("{task}");
            for at in 0..20 {
                let value = format!("{at}");
                let revision = b.put(&name, &value).await?;
                ensure!(b.revision().await? >= revision, "the store's revision went back");
                ensure!(b.value(&name).await? == Some(value.clone()), "the put of {value} is not seen");
                let page = b.range(b.all(), 0, None).await?;
                let mine = page.items.iter().find(|kv| kv.key == b.key(&name)).map(|kv| text(&kv.value));
                ensure!(mine == Some(value), "the range does not hold the put: {mine:?}");
                ensure!(page.revision >= revision, "the range is older than the put before it");
            }
            Ok(())
        });
    }
    join(tasks).await
}

async fn commits_are_seen_whole(b: Bench) -> Result<(), Why> {
    b.write(vec![b.put_op("left", "0"), b.put_op("right", "0")]).await?;
    let writer = {
        let b = b.clone();
        async move {
            for at in 1..100 {
                let value = format!("{at}");
                b.write(vec![b.put_op("left", &value), b.put_op("right", &value)]).await?;
            }
            Ok::<(), Why>(())
        }
    };
    let mut writer = tokio::spawn(writer);
    loop {
        let page = b.range(b.all(), 0, None).await?;
        let values: Vec<_> = page.items.iter().map(|kv| (text(&kv.value), kv.mod_revision)).collect();
        ensure!(values.len() == 2 && values[0] == values[1], "a range saw half a commit: {values:?}");
        match tokio::time::timeout(Duration::from_micros(100), &mut writer).await {
            Ok(ended) => return ended.map_err(|error| format!("the writer ended: {error}"))?,
            Err(_) => continue,
        }
    }
}

/// Watchers that begin anywhere, and go away and come back, end up with what the store holds.
async fn watches_rebuild_the_map(b: Bench) -> Result<(), Why> {
    let from = b.revision().await? + 1;
    let mut tasks = JoinSet::new();
    for task in 0..4u64 {
        let b = b.clone();
        tasks.spawn(async move {
            for at in 0..50u64 {
                let name = format!("{}", (task * 31 + at * 7) % 10);
                match at % 5 {
                    4 => b.delete(&name).await?,
                    _ => b.put(&name, &format!("{task}-{at}")).await?,
                };
            }
            Ok(())
        });
    }
    let mut rebuilt = BTreeMap::new();
    let mut next = from;
    let mut follower = b.watch(next).await?;
    let mut batches = 0;
    let mut writing = Some(tasks);
    let mut target = u64::MAX;
    while follower.upto() < target && next <= target {
        if batches % 7 == 6 {
            follower = b.watch(next).await?;
        }
        if let Some(tasks) = writing.take_if(|_| batches >= 3) {
            join(tasks).await?;
            // One more, so that the last event comes soon.
            target = b.put("last", "x").await?;
        }
        for event in follower.batch().await? {
            match event {
                Event::Put { item, .. } => rebuilt.insert(item.key.clone(), item),
                Event::Delete { key, .. } => rebuilt.remove(&key),
            };
        }
        next = next.max(follower.upto() + 1);
        batches += 1;
    }
    let held = b.range(b.all(), 0, None).await?.items;
    let rebuilt: Vec<_> = rebuilt.into_values().collect();
    ensure!(held == rebuilt, "the watch rebuilt {rebuilt:?}, the store holds {held:?}");
    Ok(())
}

async fn a_dropped_commit_is_whole_or_absent(b: Bench) -> Result<(), Why> {
    for at in 0..20u64 {
        let (left, right) = (format!("{at}l"), format!("{at}r"));
        let ops = vec![b.put_op(&left, "x"), b.put_op(&right, "x")];
        let commit = crate::Commit { compares: vec![], ops };
        let wait = Duration::from_micros(at * 50);
        match tokio::time::timeout(wait, b.store.commit(commit)).await {
            Ok(Err(error)) if error.reason() != Reason::Timeout => return Err(why("commit")(error)),
            _ => {}
        }
    }
    // A commit that was dropped may still be under way; the next one is behind it, where they go one way.
    b.put("after", "x").await?;
    let found = b.range(b.all(), 0, None).await?.items;
    let mut whole: BTreeMap<u64, u32> = BTreeMap::new();
    for kv in found.iter().filter(|kv| kv.key != b.key("after")) {
        *whole.entry(kv.mod_revision).or_default() += 1;
    }
    ensure!(whole.values().all(|halves| *halves == 2), "half a commit was done: {found:?}");
    Ok(())
}
