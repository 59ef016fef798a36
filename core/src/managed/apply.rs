//! Server-side apply.

use super::manager::{self, Manager, ManagerOperation};
use super::merge::{merge, remove};
use super::set::FieldSet;
use super::walk::{Comparison, fields_of};
use super::{FieldWrite, LAST_APPLIED, UNOWNED, track};
use crate::ApiError;
use serde_json::Value;
use std::collections::BTreeMap;

/// The manager of everything that was there before the first apply to an object without managers.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager whose applies take over what client-side apply owned.
const KUBECTL: &str = "kubectl";

/// Merges an applied object into the live one (`None` creates) and gives the object wanted, its `managedFields` included.
///
/// `force` takes conflicting fields over. Where nothing changes, the result equals `live`.
///
/// # Errors
/// 409 with a cause for each conflicting field, 400 for `managedFields` in the applied object, 500 where an item of a keyed list has no key.
pub fn apply(
    write: &FieldWrite<'_>,
    live: Option<&Value>,
    applied: &Value,
    force: bool,
) -> Result<Value, ApiError> {
    if applied["metadata"].get("managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let skeleton;
    let live = match live {
        Some(live) => live,
        None => {
            skeleton = created(applied);
            &skeleton
        }
    };
    let mut managers = manager::decode(live["metadata"].get("managedFields")).unwrap_or_default();
    if managers.is_empty() && live["metadata"].get("uid").is_some() {
        let before = FieldWrite { manager: BEFORE_FIRST_APPLY, subresource: "", ..write.clone() };
        managers = track::updated(&before, &track::empty(live), &without_managers(live), managers);
    }
    let merged = Applied::of(write, live, applied, managers)?;
    if !force {
        let mut conflicts = merged.conflicts();
        if write.manager == KUBECTL && !conflicts.is_empty() {
            let allowed = last_applied(write, live);
            conflicts
                .iter_mut()
                .for_each(|(_, fields)| *fields = std::mem::take(fields).difference(&allowed));
            conflicts.retain(|(_, fields)| !fields.is_empty());
        }
        if !conflicts.is_empty() {
            return Err(conflict_error(&conflicts));
        }
    }
    Ok(merged.finish(write, live, applied))
}

/// What an apply that creates is merged into.
fn created(applied: &Value) -> Value {
    let mut out = serde_json::Map::new();
    for field in ["apiVersion", "kind"] {
        if let Some(value) = applied.get(field) {
            out.insert(field.to_owned(), value.clone());
        }
    }
    out.insert("metadata".to_owned(), Value::Object(serde_json::Map::new()));
    Value::Object(out)
}

fn without_managers(object: &Value) -> Value {
    let mut out = object.clone();
    if let Some(metadata) = out.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    out
}

/// The merged object with what it means for the managers.
struct Applied {
    object: Value,
    /// All other managers.
    others: Vec<Manager>,
    own: Manager,
    compared: Comparison,
}

impl Applied {
    fn of(
        write: &FieldWrite<'_>,
        live: &Value,
        applied: &Value,
        managers: Vec<Manager>,
    ) -> Result<Self, ApiError> {
        let node = write.schema.root();
        let fields = fields_of(node, applied)
            .map_err(|e| ApiError::internal(format!("failed to create typed patch object: {e}")))?;
        let own = Manager {
            name: write.manager.to_owned(),
            operation: ManagerOperation::Apply,
            api_version: write.api_version.to_owned(),
            subresource: write.subresource.to_owned(),
            time: None,
            fields: fields.without_all_below(write.ignored),
        };
        let (last, others): (Vec<Manager>, Vec<Manager>) = managers.into_iter().partition(|m| m.is(&own));
        let last = last.into_iter().next();
        let base = without_managers(live);
        let mut object = merge(Some(node), &base, applied);
        if let Some(last) = &last {
            let all = others.iter().fold(own.fields.clone(), |all, m| all.union(&m.fields));
            object = pruned(write, object, &last.fields, &all)?;
        }
        let compared = Comparison::of(node, &base, &object).ignoring(write.ignored);
        let time = last.and_then(|last| last.time);
        Ok(Applied { object, others, own: Manager { time, ..own }, compared })
    }

    fn conflicts(&self) -> Vec<(String, FieldSet)> {
        let set = self.compared.modified.clone().union(&self.compared.added);
        let each = self.others.iter().map(|m| (m.describe(), m.fields.intersection(&set)));
        each.filter(|(_, fields)| !fields.is_empty()).collect()
    }

    fn finish(mut self, write: &FieldWrite<'_>, live: &Value, applied: &Value) -> Value {
        let taken = self.compared.modified.union(&self.compared.added);
        for other in &mut self.others {
            let fields = std::mem::take(&mut other.fields);
            other.fields = fields.difference(&taken).difference(&self.compared.removed);
        }
        self.own.fields = self.own.fields.difference(&UNOWNED);
        let changed = self.object != without_managers(live);
        if changed || self.own.time.is_none() {
            self.own.time = Some(write.now.to_owned());
        }
        if write.manager == KUBECTL {
            note_last_applied(&mut self.object, applied);
        }
        let mut managers = self.others;
        managers.push(self.own);
        let mut object = self.object;
        manager::put(&mut object, managers);
        object
    }
}

/// Takes out what the manager applied last time, applies no more, and nobody else owns.
fn pruned(
    write: &FieldWrite<'_>,
    merged: Value,
    last: &FieldSet,
    owned: &FieldSet,
) -> Result<Value, ApiError> {
    if last.is_empty() {
        return Ok(merged);
    }
    let root = write.schema.root();
    let node = Some(root);
    let set_of = |object: &Value| -> Result<FieldSet, ApiError> {
        let fields = fields_of(root, object).map_err(ApiError::internal)?;
        Ok(fields.with_named_fields(node))
    };
    let last = last.with_named_fields(node);
    let all = set_of(&merged)?;
    let first = remove(node, &merged, &last);
    // What was taken out though somebody owns it, or something below it, comes back.
    let kept = set_of(&first)?.union(&owned.with_named_fields(node));
    let second = remove(node, &merged, &all.clone().difference(&kept));
    // So does what nobody owned and this manager never applied.
    let gone = all.difference(&set_of(&second)?).intersection(&last);
    Ok(remove(node, &merged, &gone))
}

/// What client-side apply set and is still as it set it.
fn last_applied(write: &FieldWrite<'_>, live: &Value) -> FieldSet {
    let text = live["metadata"]["annotations"].get(LAST_APPLIED).and_then(Value::as_str).unwrap_or("");
    let Ok(last) = serde_json::from_str::<Value>(text) else { return FieldSet::default() };
    if last["apiVersion"] != write.api_version {
        return FieldSet::default();
    }
    let Ok(fields) = fields_of(write.schema.root(), &last) else { return FieldSet::default() };
    let compared = Comparison::of(write.schema.root(), &last, live);
    fields.difference(&compared.modified).difference(&compared.added).difference(&compared.removed)
}

/// Keeps the annotation of client-side apply, where there is one, in step with what kubectl applies.
fn note_last_applied(object: &mut Value, applied: &Value) {
    let Some(annotation) = object["metadata"]["annotations"].get(LAST_APPLIED) else { return };
    if annotation.as_str().is_none_or(str::is_empty) {
        return;
    }
    let mut applied = applied.clone();
    if let Some(annotations) = applied["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    object["metadata"]["annotations"][LAST_APPLIED] = Value::String(format!("{applied}\n"));
}

fn conflict_error(conflicts: &[(String, FieldSet)]) -> ApiError {
    let mut by_manager: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (manager, fields) in conflicts {
        fields.each_path(&mut |path| by_manager.entry(manager).or_default().push(path.to_owned()));
    }
    let all: Vec<(&str, &String)> =
        by_manager.iter().flat_map(|(manager, paths)| paths.iter().map(|path| (*manager, path))).collect();
    let message = match all.as_slice() {
        [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
        _ => {
            let mut lines = Vec::new();
            for (manager, paths) in &by_manager {
                lines.push(format!("conflicts with {manager}:"));
                lines.extend(paths.iter().map(|path| format!("- {path}")));
            }
            format!("Apply failed with {} conflicts: {}", all.len(), lines.join("\n"))
        }
    };
    let causes = all.iter().map(|(manager, path)| ((*path).clone(), format!("conflict with {manager}")));
    ApiError::apply_conflict(message, causes.collect())
}
