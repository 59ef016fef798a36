//! Deletion marks and finalizers.

use super::{finalizers, format_time, generation, is_deleting, metadata_mut};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// The finalizer that waits for dependents to go first.
pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";
/// The finalizer that lets go of dependents.
pub const ORPHAN_FINALIZER: &str = "orphan";

/// What happens to the dependents of a deleted object, `propagationPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They go afterwards.
    Background,
    /// They go before.
    Foreground,
    /// They stay.
    Orphan,
}

impl Propagation {
    /// From `propagationPolicy`'s text.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            "Orphan" => Some(Propagation::Orphan),
            _ => None,
        }
    }
}

/// Sets the finalizers that a delete with this policy needs, and takes out those of the other policies. Gives whether any finalizer is left.
pub fn set_finalizers(object: &mut Value, propagation: Propagation) -> bool {
    let wanted = match propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND_FINALIZER),
        Propagation::Orphan => Some(ORPHAN_FINALIZER),
    };
    let mut names: Vec<String> = finalizers(object)
        .filter(|f| Some(*f) == wanted || !matches!(*f, FOREGROUND_FINALIZER | ORPHAN_FINALIZER))
        .map(str::to_owned)
        .collect();
    if let Some(wanted) = wanted.filter(|w| !names.iter().any(|n| n == w)) {
        names.push(wanted.to_owned());
    }
    put_finalizers(object, names)
}

/// Takes a finalizer out. Gives whether any is left.
pub fn remove_finalizer(object: &mut Value, name: &str) -> bool {
    let names = finalizers(object).filter(|f| *f != name).map(str::to_owned).collect();
    put_finalizers(object, names)
}

fn put_finalizers(object: &mut Value, names: Vec<String>) -> bool {
    let any = !names.is_empty();
    if let Some(metadata) = metadata_mut(object) {
        if any {
            metadata.insert("finalizers".to_owned(), Value::from(names));
        } else {
            metadata.remove("finalizers");
        }
    }
    any
}

/// Marks an object as being deleted `grace_period_seconds` from `now`. On an object marked before, the mark only moves to an earlier time. Gives whether anything changed.
pub fn begin_deletion(object: &mut Value, now: Timestamp, grace_period_seconds: i64) -> bool {
    let grace = grace_period_seconds.max(0);
    let before = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    let deleting = is_deleting(object);
    if deleting && before.is_none_or(|b| b <= grace) {
        return false;
    }
    // A later, shorter period counts from the first request.
    let start = match (super::deletion_timestamp(object), before) {
        (Some(at), Some(b)) => at.checked_sub(SignedDuration::from_secs(b)).unwrap_or(now),
        _ => now,
    };
    let at = start.checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
    let next = generation(object) + 1;
    let Some(metadata) = metadata_mut(object) else { return false };
    metadata.insert("deletionTimestamp".to_owned(), Value::String(format_time(at)));
    metadata.insert("deletionGracePeriodSeconds".to_owned(), Value::from(grace));
    if !deleting && next > 1 {
        metadata.insert("generation".to_owned(), Value::from(next));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finalizers_follow_the_policy() {
        let check = |have: Value, propagation, want: Value| {
            let mut object = json!({"metadata": {"finalizers": have}});
            let any = set_finalizers(&mut object, propagation);
            assert_eq!(object["metadata"].get("finalizers").cloned().unwrap_or(Value::Null), want);
            assert_eq!(any, !want.is_null());
        };
        check(json!(["a/b", "orphan"]), Propagation::Foreground, json!(["a/b", "foregroundDeletion"]));
        check(json!(["orphan"]), Propagation::Background, Value::Null);
        check(json!(["orphan"]), Propagation::Orphan, json!(["orphan"]));
    }

    #[test]
    fn a_deletion_only_comes_nearer() {
        let mut object = json!({"metadata": {"generation": 1}});
        let now = Timestamp::UNIX_EPOCH;
        assert!(begin_deletion(&mut object, now, 30));
        assert_eq!(object["metadata"]["deletionTimestamp"], "1970-01-01T00:00:30Z");
        assert_eq!(object["metadata"]["generation"], 2);
        let later = now + SignedDuration::from_secs(5);
        assert!(!begin_deletion(&mut object, later, 60));
        assert!(begin_deletion(&mut object, later, 10));
        assert_eq!(object["metadata"]["deletionTimestamp"], "1970-01-01T00:00:10Z");
        assert_eq!(object["metadata"]["generation"], 2);
        assert!(begin_deletion(&mut object, later, 0));
        assert_eq!(object["metadata"]["deletionGracePeriodSeconds"], 0);
    }
}
