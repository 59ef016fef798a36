//! Reads at past revisions, and compaction.

use super::help::Bench;
use super::{Why, case_list, ensure};
use crate::{KeyRange, Reason};

case_list![
    History the_past_can_be_read,
    History pages_of_one_revision_fit_together,
    Nothing the_newest_revision_can_be_named,
    Nothing the_future_can_not_be_read,
    Nothing compaction_forgets_the_past,
    Nothing the_future_can_not_be_compacted,
];

async fn the_past_can_be_read(b: Bench) -> Result<(), Why> {
    let mut want = vec![(b.put("before", "0").await?, vec!["before=0"])];
    want.push((b.put("a", "1").await?, vec!["a=1", "before=0"]));
    want.push((b.put("a", "2").await?, vec!["a=2", "before=0"]));
    want.push((b.delete("a").await?, vec!["before=0"]));
    let both = b.write(vec![b.put_op("a", "3"), b.delete_op("before")]).await?;
    want.push((both, vec!["a=3"]));
    for (revision, items) in &want {
        let found = b.listed(Some(*revision)).await?;
        ensure!(&found == items, "revision {revision} held {found:?}, not {items:?}");
    }
    let old = b.range(b.all(), 0, Some(want[1].0)).await?;
    ensure!(old.revision == want[1].0, "the answer is at {}, not {}", old.revision, want[1].0);
    ensure!(old.items[0].mod_revision == want[1].0, "an old item has revision {}", old.items[0].mod_revision);
    Ok(())
}

async fn pages_of_one_revision_fit_together(b: Bench) -> Result<(), Why> {
    for at in 0..20 {
        b.put(&format!("{at:02}"), "old").await?;
    }
    let first = b.range(b.all(), 3, None).await?;
    let (mut found, mut page, mut round) = (Vec::new(), first.clone(), 0);
    while page.more {
        found.extend(page.items.iter().map(|kv| b.shown(kv)));
        // Writers go on meanwhile, before and behind the reader.
        b.put(&format!("{:02}", round), "new").await?;
        b.put(&format!("{:02}x", 19 - round), "new").await?;
        b.delete(&format!("{:02}", 19 - round)).await?;
        round += 1;
        let mut start = page.items.last().ok_or("an empty page has more behind it")?.key.to_vec();
        start.push(0);
        let rest = KeyRange { start: start.into(), end: b.all().end };
        page = b.range(rest, 3, Some(first.revision)).await?;
        let left = 20 - found.len() as u64;
        ensure!(page.count == left, "{} keys are left, the page says {}", left, page.count);
        ensure!(page.revision == first.revision, "the page is at {}", page.revision);
    }
    found.extend(page.items.iter().map(|kv| b.shown(kv)));
    let want: Vec<_> = (0..20).map(|at| format!("{at:02}=old")).collect();
    ensure!(found == want, "the pages hold {found:?}");
    Ok(())
}

async fn the_newest_revision_can_be_named(b: Bench) -> Result<(), Why> {
    b.put("a", "1").await?;
    let revision = b.revision().await?;
    let found = b.listed(Some(revision)).await;
    // A shared store may have moved on.
    let found = if b.revision().await? == revision { found? } else { return Ok(()) };
    ensure!(found == ["a=1"], "got {found:?}");
    Ok(())
}

async fn the_future_can_not_be_read(b: Bench) -> Result<(), Why> {
    let revision = b.put("a", "1").await?;
    let reason = b.range_error(revision + 1_000_000).await?;
    ensure!(reason == Reason::FutureRevision, "got {reason:?}");
    Ok(())
}

async fn compaction_forgets_the_past(b: Bench) -> Result<(), Why> {
    let first = b.put("a", "1").await?;
    b.put("b", "1").await?;
    let second = b.put("a", "2").await?;
    let third = b.put("a", "3").await?;
    b.store.compact(second).await.map_err(super::help::why("compact"))?;
    let reason = b.range_error(first).await?;
    ensure!(reason == Reason::Compacted, "a read of what is compacted gave {reason:?}");
    let reason = b.watch_error(first).await?;
    ensure!(reason == Reason::Compacted, "a watch of what is compacted gave {reason:?}");
    ensure!(b.listed(None).await? == ["a=3", "b=1"], "the newest values are {:?}", b.listed(None).await?);
    let events = b.watch(third).await?.events(1).await?;
    ensure!(events[0].revision() == third, "got {events:?}");
    if b.store.capabilities().history {
        let found = b.listed(Some(second)).await?;
        ensure!(found == ["a=2", "b=1"], "the compaction's own revision held {found:?}");
    }
    // Once more, and further back, is no error.
    for revision in [second, first] {
        b.store.compact(revision).await.map_err(super::help::why("compact again"))?;
    }
    Ok(())
}

async fn the_future_can_not_be_compacted(b: Bench) -> Result<(), Why> {
    let revision = b.put("a", "1").await?;
    match b.store.compact(revision + 1_000_000).await {
        Ok(()) => Err("the future was compacted".into()),
        Err(error) if error.reason() == Reason::FutureRevision => Ok(()),
        Err(error) => Err(format!("got {error} ({:?})", error.reason())),
    }
}
