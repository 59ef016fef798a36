//! Watches: no gap, no repeat, whole revisions, and an end that says why.

use super::help::{Bench, EVENT_TIMEOUT};
use super::{Why, case_list, ensure};
use crate::{Event, KeyRange, Reason};
use std::time::Duration;

case_list![
    Nothing a_watch_shows_what_happens,
    Nothing a_watch_begins_in_the_past,
    Nothing a_watch_waits_for_the_future,
    Nothing a_watch_sees_only_its_range,
    Nothing a_revision_is_never_split,
    PreviousValues events_carry_what_was_before,
    Nothing a_watch_tells_its_progress,
    Nothing watchers_do_not_disturb_each_other,
    Nothing a_slow_watcher_holds_up_nobody,
];

fn kinds(b: &Bench, events: &[Event]) -> Vec<String> {
    let shown = |event: &Event| match event {
        Event::Put { item, .. } => format!("+{}", b.shown(item)),
        Event::Delete { key, .. } => format!("-{}", b.short(key)),
    };
    events.iter().map(shown).collect()
}

async fn a_watch_shows_what_happens(b: Bench) -> Result<(), Why> {
    let before = b.revision().await?;
    let mut follower = b.watch(before + 1).await?;
    let put = b.put("a", "1").await?;
    let update = b.put("a", "2").await?;
    let gone = b.delete("a").await?;
    let events = follower.events(3).await?;
    ensure!(kinds(&b, &events) == ["+a=1", "+a=2", "-a"], "got {events:?}");
    let revisions: Vec<_> = events.iter().map(Event::revision).collect();
    ensure!(revisions == [put, update, gone], "the revisions are {revisions:?}");
    match &events[1] {
        Event::Put { item, .. } => {
            ensure!((item.create_revision, item.mod_revision) == (put, update), "got {item:?}");
        }
        other => return Err(format!("got {other:?}")),
    }
    Ok(())
}

async fn a_watch_begins_in_the_past(b: Bench) -> Result<(), Why> {
    b.put("a", "0").await?;
    let from = b.put("a", "1").await?;
    b.put("b", "2").await?;
    b.delete("a").await?;
    let mut follower = b.watch(from).await?;
    b.put("c", "3").await?;
    let found = kinds(&b, &follower.events(4).await?);
    ensure!(found == ["+a=1", "+b=2", "-a", "+c=3"], "got {found:?}");
    Ok(())
}

async fn a_watch_waits_for_the_future(b: Bench) -> Result<(), Why> {
    let first = b.put("a", "1").await?;
    let mut follower = b.watch(first + 3).await?;
    let mut last = first;
    while last < first + 3 {
        last = b.put("a", "later").await?;
    }
    let events = follower.events(1).await?;
    ensure!(events[0].revision() == last, "got {events:?}, not revision {last}");
    Ok(())
}

async fn a_watch_sees_only_its_range(b: Bench) -> Result<(), Why> {
    let from = b.revision().await? + 1;
    let mut below = b.watch_range(KeyRange::prefix(b.key("b/")), from).await?;
    let between = KeyRange { start: b.key("b"), end: Some(b.key("b0")) };
    let mut between = b.watch_range(between, from).await?;
    for name in ["a", "b", "b/1", "b0", "c"] {
        b.put(name, "").await?;
    }
    b.write(vec![b.put_op("z", ""), b.put_op("b/2", "")]).await?;
    let found = kinds(&b, &below.events(2).await?);
    ensure!(found == ["+b/1=", "+b/2="], "below b/ the watch saw {found:?}");
    let found = kinds(&b, &between.events(3).await?);
    ensure!(found == ["+b=", "+b/1=", "+b/2="], "from b to b0 the watch saw {found:?}");
    Ok(())
}

async fn a_revision_is_never_split(b: Bench) -> Result<(), Why> {
    let from = b.revision().await? + 1;
    let mut live = b.watch(from).await?;
    for round in 0..10 {
        let ops = (0..20).map(|at| b.put_op(&format!("{at:02}"), &format!("{round}"))).collect();
        b.write(ops).await?;
    }
    let mut replay = b.watch(from).await?;
    for follower in [&mut live, &mut replay] {
        let mut seen = 0;
        while seen < 200 {
            let events = follower.batch().await?;
            ensure!(events.len() % 20 == 0, "a batch holds {} events of revisions of 20", events.len());
            seen += events.len();
        }
        ensure!(seen == 200, "{seen} events came");
    }
    Ok(())
}

async fn events_carry_what_was_before(b: Bench) -> Result<(), Why> {
    let from = b.put("a", "1").await?;
    b.put("a", "2").await?;
    b.delete("a").await?;
    b.put("a", "3").await?;
    let events = b.watch(from).await?.events(4).await?;
    let before: Vec<_> = events
        .iter()
        .map(|event| {
            let (Event::Put { previous, .. } | Event::Delete { previous, .. }) = event;
            previous.as_ref().map(|kv| b.shown(kv))
        })
        .collect();
    let want = [None, Some("a=1".to_string()), Some("a=2".to_string()), None];
    ensure!(before == want, "the events carry {before:?}");
    Ok(())
}

async fn a_watch_tells_its_progress(b: Bench) -> Result<(), Why> {
    let from = b.revision().await? + 1;
    let mut follower = b.watch_range(KeyRange::prefix(b.key("quiet/")), from).await?;
    let elsewhere = b.put("loud", "1").await?;
    let far_enough = async {
        while follower.upto() < elsewhere {
            let events = follower.batch().await?;
            ensure!(events.is_empty(), "got {events:?}");
        }
        Ok(())
    };
    match tokio::time::timeout(EVENT_TIMEOUT, far_enough).await {
        Ok(result) => result,
        Err(_) => Err("no progress mark came".into()),
    }
}

async fn watchers_do_not_disturb_each_other(b: Bench) -> Result<(), Why> {
    let from = b.revision().await? + 1;
    let mut followers = Vec::new();
    for _ in 0..20 {
        followers.push(b.watch(from).await?);
    }
    b.put("a", "1").await?;
    // Every other one goes away in the middle.
    let mut at = 0;
    followers.retain(|_| {
        at += 1;
        at % 2 == 0
    });
    b.put("a", "2").await?;
    for follower in &mut followers {
        let found = kinds(&b, &follower.events(2).await?);
        ensure!(found == ["+a=1", "+a=2"], "got {found:?}");
    }
    Ok(())
}

async fn a_slow_watcher_holds_up_nobody(b: Bench) -> Result<(), Why> {
    let from = b.revision().await? + 1;
    let mut slow = b.watch(from).await?;
    let value = "x".repeat(256);
    let writes = async {
        for at in 0..100 {
            let ops = (0..50).map(|n| b.put_op(&format!("{n}"), &format!("{at}{value}"))).collect();
            b.write(ops).await?;
        }
        Ok::<(), Why>(())
    };
    let writes = tokio::time::timeout(Duration::from_secs(50), writes).await;
    writes.map_err(|_| "the writers were held up by a watcher that does not read".to_string())??;
    // Either it gets everything, or it is told that it does not.
    let mut seen = 0;
    while seen < 5_000 {
        match slow.batch().await {
            Ok(events) => seen += events.len(),
            Err(why) => {
                let told =
                    [Reason::Lagged, Reason::Compacted].iter().any(|r| why.contains(&format!("{r:?}")));
                ensure!(told, "{why}");
                return Ok(());
            }
        }
    }
    ensure!(seen == 5_000, "{seen} events came");
    Ok(())
}
