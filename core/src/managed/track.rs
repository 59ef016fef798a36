//! Writes that are no applies: the fields that changed belong to their writer.

use super::manager::{self, Manager, ManagerOperation};
use super::walk::Comparison;
use super::{FieldWrite, UNOWNED};
use serde_json::{Value, json};

/// How many managers of updates an object keeps before the oldest are merged.
const UPDATE_MANAGERS_MAX: usize = 10;
/// The manager that stands for those merged.
const ANCIENT: &str = "ancient-changes";

/// Notes in `metadata.managedFields` of `new` what the write changes against `live` (`None` for a create).
///
/// Managers that lost a field to the write lose it from their sets; entries that the client sent take the place of the live ones, as
/// upstream has it, unless they are malformed or the write goes through a subresource.
pub fn track(write: &FieldWrite<'_>, live: Option<&Value>, new: &mut Value) {
    let before = live.and_then(|l| l["metadata"].get("managedFields"));
    let sent = new["metadata"].get("managedFields");
    let managers = present(write, before, sent);
    if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    // An object whose managers were forgotten stays without them until it is applied.
    if managers.is_empty() && live.is_some() {
        return;
    }
    let skeleton;
    let old = match live {
        Some(live) => live,
        None => {
            skeleton = empty(new);
            &skeleton
        }
    };
    let managers = updated(write, old, new, managers);
    manager::put(new, managers);
}

/// The managers that count: those sent, if any are, else those of the live object.
fn present(write: &FieldWrite<'_>, before: Option<&Value>, sent: Option<&Value>) -> Vec<Manager> {
    let kept = || manager::decode(before).unwrap_or_default();
    if !write.subresource.is_empty() {
        return kept();
    }
    if manager::is_reset(sent) {
        return Vec::new();
    }
    manager::decode(sent).filter(|sent| !sent.is_empty()).unwrap_or_else(kept)
}

/// The managers after an update from `old` to `new`.
pub(super) fn updated(
    write: &FieldWrite<'_>,
    old: &Value,
    new: &Value,
    mut managers: Vec<Manager>,
) -> Vec<Manager> {
    let compared = Comparison::of(write.schema.root(), old, new).ignoring(write.ignored);
    let set = compared.modified.union(&compared.added);
    for manager in &mut managers {
        let fields = std::mem::take(&mut manager.fields);
        manager.fields = fields.difference(&set).difference(&compared.removed);
    }
    let fields = set.difference(&UNOWNED);
    if !fields.is_empty() {
        let writer = Manager {
            name: write.manager.to_owned(),
            operation: ManagerOperation::Update,
            api_version: write.api_version.to_owned(),
            subresource: write.subresource.to_owned(),
            time: Some(write.now.to_owned()),
            fields,
        };
        match managers.iter_mut().find(|m| m.is(&writer)) {
            Some(known) => {
                known.fields = std::mem::take(&mut known.fields).union(&writer.fields);
                known.time = writer.time;
            }
            None => managers.push(writer),
        }
    }
    managers.retain(|m| !m.fields.is_empty());
    cap(managers)
}

/// What a create is compared with: the parts that upstream's types always have, so that they are not told as set.
pub(super) fn empty(new: &Value) -> Value {
    let mut out = json!({"metadata": {}});
    for part in ["spec", "status"] {
        if new.get(part).is_some_and(Value::is_object) {
            out[part] = json!({});
        }
    }
    for part in ["strategy", "updateStrategy"] {
        if new["spec"].get(part).is_some_and(Value::is_object) {
            out["spec"][part] = json!({});
        }
    }
    if new["spec"].get("template").is_some_and(|t| t.get("spec").is_some_and(Value::is_object)) {
        out["spec"]["template"] = json!({"metadata": {}, "spec": {}});
    }
    out
}

/// Merges the oldest managers of updates, version by version, until there are few enough.
fn cap(mut managers: Vec<Manager>) -> Vec<Manager> {
    let is_update = |m: &Manager| m.operation == ManagerOperation::Update;
    let mut surplus = managers.iter().filter(|m| is_update(m)).count().saturating_sub(UPDATE_MANAGERS_MAX);
    if surplus == 0 {
        return managers;
    }
    managers.sort_by(|a, b| (&a.time, &a.name).cmp(&(&b.time, &b.name)));
    let mut out: Vec<Manager> = Vec::with_capacity(managers.len());
    // The first of each version becomes its bucket when a second one follows.
    for manager in managers {
        let bucket = out.iter_mut().find(|m| is_update(m) && m.api_version == manager.api_version);
        match bucket {
            Some(bucket) if surplus > 0 && is_update(&manager) => {
                bucket.name = ANCIENT.to_owned();
                bucket.subresource.clear();
                bucket.fields = std::mem::take(&mut bucket.fields).union(&manager.fields);
                bucket.time = manager.time;
                surplus -= 1;
            }
            _ => out.push(manager),
        }
    }
    out
}
