//! Keys, values, revisions and conditions.

use super::help::{Bench, text, why};
use super::{Why, case_list, ensure};
use crate::{Commit, CommitOutcome, Compare, KeyRange, Op, Reason};
use bytes::Bytes;

case_list![
    Nothing a_put_can_be_read,
    Nothing a_missing_key_is_none,
    Nothing a_new_life_has_a_new_create_revision,
    Nothing bytes_are_kept_as_they_are,
    Nothing one_commit_takes_one_revision,
    Nothing conditions_are_kept,
    Nothing a_refused_commit_shows_what_is_there,
    Nothing a_delete_of_nothing_changes_nothing,
    Nothing a_commit_without_ops_only_compares,
    Nothing bad_commits_are_invalid,
    Nothing what_is_too_large_is_refused,
    Nothing a_range_is_ordered_and_bounded,
    Nothing a_limit_cuts_a_range,
    Nothing an_empty_range_is_empty,
];

async fn a_put_can_be_read(b: Bench) -> Result<(), Why> {
    let before = b.revision().await?;
    let revision = b.put("a", "one").await?;
    ensure!(revision > before, "revision {revision} came after {before}");
    let Some(kv) = b.get("a").await? else { return Err("the key is missing".into()) };
    ensure!(kv.key == b.key("a") && text(&kv.value) == "one", "got {kv:?}");
    ensure!(kv.create_revision == revision && kv.mod_revision == revision, "got {kv:?} at {revision}");
    let second = b.put("a", "two").await?;
    ensure!(second > revision, "revision {second} came after {revision}");
    let Some(kv) = b.get("a").await? else { return Err("the key is missing".into()) };
    ensure!(kv.create_revision == revision && kv.mod_revision == second, "got {kv:?} at {second}");
    ensure!(b.revision().await? >= second, "the store's revision is older than its last commit");
    Ok(())
}

async fn a_missing_key_is_none(b: Bench) -> Result<(), Why> {
    b.put("ab", "x").await?;
    for name in ["a", "abc", ""] {
        ensure!(b.get(name).await?.is_none(), "{name:?} exists");
    }
    Ok(())
}

async fn a_new_life_has_a_new_create_revision(b: Bench) -> Result<(), Why> {
    let first = b.put("a", "x").await?;
    let gone = b.delete("a").await?;
    ensure!(gone > first, "the delete took revision {gone} after {first}");
    ensure!(b.get("a").await?.is_none(), "the deleted key exists");
    let again = b.put("a", "y").await?;
    let kv = b.get("a").await?.ok_or("the key is missing")?;
    ensure!(kv.create_revision == again && again > gone, "got {kv:?}");
    Ok(())
}

async fn bytes_are_kept_as_they_are(b: Bench) -> Result<(), Why> {
    let every: Vec<u8> = (0..=255).collect();
    let mut key = b.prefix.clone().into_bytes();
    key.extend_from_slice(&every);
    let (key, value) = (Bytes::from(key), Bytes::from(every));
    let empty = b.key("empty");
    let ops = vec![
        Op::Put { key: key.clone(), value: value.clone() },
        Op::Put { key: empty.clone(), value: Bytes::new() },
    ];
    b.write(ops).await?;
    let kv = b.store.get(key.clone()).await.map_err(why("get"))?;
    ensure!(kv.as_ref().is_some_and(|kv| kv.value == value && kv.key == key), "got {kv:?}");
    let kv = b.store.get(empty).await.map_err(why("get"))?;
    ensure!(kv.is_some_and(|kv| kv.value.is_empty()), "an empty value was not kept");
    Ok(())
}

async fn one_commit_takes_one_revision(b: Bench) -> Result<(), Why> {
    b.put("gone", "x").await?;
    let ops = vec![b.put_op("a", "1"), b.put_op("b", "2"), b.delete_op("gone")];
    let revision = b.write(ops).await?;
    for name in ["a", "b"] {
        let found = b.get(name).await?.map(|kv| kv.mod_revision);
        ensure!(found == Some(revision), "{name} has revision {found:?}, not {revision}");
    }
    ensure!(b.listed(None).await? == ["a=1", "b=2"], "found {:?}", b.listed(None).await?);
    Ok(())
}

async fn conditions_are_kept(b: Bench) -> Result<(), Why> {
    let refused = |outcome: &CommitOutcome| matches!(outcome, CommitOutcome::Refused { .. });
    let create = || (vec![b.compare("a", 0)], vec![b.put_op("a", "1")]);
    let first = b.commit(create().0, create().1).await?;
    let CommitOutcome::Committed { revision } = first else { return Err("a create was refused".into()) };
    let again = b.commit(create().0, create().1).await?;
    ensure!(refused(&again), "a create of what exists gave {again:?}");
    let stale = b.commit(vec![b.compare("a", revision + 1)], vec![b.put_op("a", "2")]).await?;
    ensure!(refused(&stale), "a wrong revision gave {stale:?}");
    let half = b.commit(
        vec![b.compare("a", revision), b.compare("none", revision)],
        vec![b.put_op("a", "2"), b.put_op("other", "2")],
    );
    let half = half.await?;
    ensure!(refused(&half), "one wrong condition of two gave {half:?}");
    ensure!(b.listed(None).await? == ["a=1"], "a refused commit wrote something");
    let good = b.commit(vec![b.compare("a", revision)], vec![b.put_op("a", "3")]).await?;
    let CommitOutcome::Committed { revision: second } = good else {
        return Err("an update was refused".into());
    };
    let gone = b.commit(vec![b.compare("a", second)], vec![b.delete_op("a")]).await?;
    ensure!(!refused(&gone), "a delete was refused: {gone:?}");
    let absent = b.commit(vec![b.compare("a", 0)], vec![b.put_op("b", "other key")]).await?;
    ensure!(!refused(&absent), "a condition on an absent key gave {absent:?}");
    Ok(())
}

async fn a_refused_commit_shows_what_is_there(b: Bench) -> Result<(), Why> {
    b.put("a", "1").await?;
    let before = b.revision().await?;
    let compares = vec![b.compare("a", 0), b.compare("none", 0)];
    let outcome = b.commit(compares, vec![b.put_op("b", "x")]).await?;
    let CommitOutcome::Refused { current } = outcome else { return Err(format!("got {outcome:?}")) };
    let shown: Vec<_> = current.iter().map(|kv| kv.as_ref().map(|kv| b.shown(kv))).collect();
    ensure!(shown == [Some("a=1".to_string()), None], "got {shown:?}");
    ensure!(current[0] == b.get("a").await?, "the revisions shown are wrong: {current:?}");
    ensure!(
        b.store.capabilities().shared || b.revision().await? == before,
        "a refused commit took a revision"
    );
    Ok(())
}

async fn a_delete_of_nothing_changes_nothing(b: Bench) -> Result<(), Why> {
    let put = b.put("a", "1").await?;
    let revision = b.delete("none").await?;
    ensure!(revision >= put, "the delete gave revision {revision}, older than {put}");
    let mut follower = b.watch(put + 1).await?;
    let mixed = b.write(vec![b.delete_op("none"), b.put_op("b", "2")]).await?;
    let events = follower.events(1).await?;
    ensure!(events[0].revision() == mixed && events[0].key() == &b.key("b"), "got {events:?}");
    Ok(())
}

async fn a_commit_without_ops_only_compares(b: Bench) -> Result<(), Why> {
    let put = b.put("a", "1").await?;
    let holds = b.commit(vec![b.compare("a", put)], vec![]).await?;
    ensure!(matches!(holds, CommitOutcome::Committed { revision } if revision >= put), "got {holds:?}");
    let fails = b.commit(vec![b.compare("a", put + 1)], vec![]).await?;
    ensure!(matches!(fails, CommitOutcome::Refused { .. }), "got {fails:?}");
    Ok(())
}

async fn bad_commits_are_invalid(b: Bench) -> Result<(), Why> {
    let empty = || Bytes::new();
    let bad = [
        Commit { compares: vec![], ops: vec![b.put_op("a", "1"), b.put_op("a", "2")] },
        Commit { compares: vec![], ops: vec![b.put_op("a", "1"), b.delete_op("a")] },
        Commit { compares: vec![], ops: vec![b.put_op("b", "1"), Op::Put { key: empty(), value: empty() }] },
        Commit { compares: vec![Compare { key: empty(), mod_revision: 0 }], ops: vec![b.put_op("b", "1")] },
    ];
    for commit in bad {
        let shown = format!("{commit:?}");
        match b.store.commit(commit).await {
            Ok(outcome) => return Err(format!("{shown} gave {outcome:?}")),
            Err(error) => ensure!(
                error.reason() == Reason::Invalid && !error.is_indeterminate(),
                "{shown} gave {error} ({:?})",
                error.reason()
            ),
        }
    }
    ensure!(b.listed(None).await?.is_empty(), "a bad commit wrote something");
    Ok(())
}

async fn what_is_too_large_is_refused(b: Bench) -> Result<(), Why> {
    let mebibyte = Bytes::from(vec![7u8; 1 << 20]);
    b.write(vec![Op::Put { key: b.key("large"), value: mebibyte.clone() }]).await?;
    let found = b.get("large").await?;
    ensure!(found.is_some_and(|kv| kv.value == mebibyte), "a value of 1 MiB was not kept");
    let far_too_large = Op::Put { key: b.key("larger"), value: Bytes::from(vec![7u8; 16 << 20]) };
    match b.store.commit(Commit { compares: vec![], ops: vec![far_too_large] }).await {
        Ok(_) => return Err("a value of 16 MiB was taken".into()),
        Err(error) => ensure!(error.reason() == Reason::TooLarge, "got {error} ({:?})", error.reason()),
    }
    ensure!(b.get("larger").await?.is_none(), "the refused value is there");
    Ok(())
}

async fn a_range_is_ordered_and_bounded(b: Bench) -> Result<(), Why> {
    for name in ["b/2", "c", "a", "b/10", "b", "b0"] {
        b.put(name, "").await?;
    }
    let whole = b.listed(None).await?;
    ensure!(whole == ["a=", "b=", "b/10=", "b/2=", "b0=", "c="], "got {whole:?}");
    let below = b.range(KeyRange::prefix(b.key("b/")), 0, None).await?;
    let below: Vec<_> = below.items.iter().map(|kv| b.short(&kv.key)).collect();
    ensure!(below == ["b/10", "b/2"], "below b/ there is {below:?}");
    let between = KeyRange { start: b.key("b"), end: Some(b.key("b0")) };
    let between = b.range(between, 0, None).await?;
    ensure!(between.count == 3 && between.items.len() == 3 && !between.more, "got {between:?}");
    let open = KeyRange { start: b.key("b0"), end: None };
    let open = b.range(open, 2, None).await?;
    ensure!(b.short(&open.items[0].key) == "b0", "got {open:?}");
    Ok(())
}

async fn a_limit_cuts_a_range(b: Bench) -> Result<(), Why> {
    for name in ["a", "b", "c"] {
        b.put(name, "").await?;
    }
    for (limit, items, more) in [(1, 1, true), (2, 2, true), (3, 3, false), (4, 3, false), (0, 3, false)] {
        let page = b.range(b.all(), limit, None).await?;
        let got = (page.items.len(), page.more, page.count);
        ensure!(got == (items, more, 3), "a limit of {limit} gave {got:?}");
        ensure!(page.revision >= page.items[0].mod_revision, "the page is at revision {}", page.revision);
    }
    Ok(())
}

async fn an_empty_range_is_empty(b: Bench) -> Result<(), Why> {
    b.put("a", "").await?;
    for (start, end) in [("b", "c"), ("b", "b"), ("b", "a"), ("a0", "a1")] {
        let range = KeyRange { start: b.key(start), end: Some(b.key(end)) };
        let page = b.range(range, 0, None).await?;
        ensure!(page.items.is_empty() && page.count == 0 && !page.more, "{start}..{end} gave {page:?}");
    }
    Ok(())
}
