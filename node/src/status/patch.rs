//! The patch from the status that the API has to the one it should have.

use super::conditions::OWNED;
use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use serde_json::{Map, Value, json};

/// A strategic merge patch of the status; `None` where nothing differs. Conditions of others are not touched.
pub fn status_patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (as_json(old), as_json(new)) else { return None };
    let mut patch = Map::new();
    for (key, value) in &after {
        if key == "conditions" || before.get(key) == Some(value) {
            continue;
        }
        let mut value = value.clone();
        if matches!(key.as_str(), "podIPs" | "hostIPs")
            && let Value::Array(items) = &mut value
        {
            // These lists merge by address; the pod has only the new ones.
            items.insert(0, json!({"$patch": "replace"}));
        }
        patch.insert(key.clone(), value);
    }
    for key in before.keys().filter(|k| !after.contains_key(*k) && *k != "conditions") {
        patch.insert(key.clone(), Value::Null);
    }
    let changed = changed_conditions(old, new);
    if !changed.is_empty() {
        patch.insert("conditions".to_owned(), Value::Array(changed));
    }
    (!patch.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": patch}))
}

fn as_json(status: &PodStatus) -> Value {
    serde_json::to_value(status).unwrap_or_default()
}

fn changed_conditions(old: &PodStatus, new: &PodStatus) -> Vec<Value> {
    let past = old.conditions.as_deref().unwrap_or(&[]);
    let wanted = new.conditions.iter().flatten().filter(|c| OWNED.contains(&c.type_.as_str()));
    wanted.filter_map(|c| condition_patch(past.iter().find(|p| p.type_ == c.type_), c)).collect()
}

fn condition_patch(past: Option<&PodCondition>, wanted: &PodCondition) -> Option<Value> {
    if past == Some(wanted) {
        return None;
    }
    let mut value = serde_json::to_value(wanted).ok()?;
    // A merge keeps what it is not told to drop.
    for (name, gone) in [
        ("reason", past.is_some_and(|p| p.reason.is_some()) && wanted.reason.is_none()),
        ("message", past.is_some_and(|p| p.message.is_some()) && wanted.message.is_none()),
    ] {
        if gone {
            value[name] = Value::Null;
        }
    }
    Some(value)
}
