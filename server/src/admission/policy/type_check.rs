//! What a policy's expressions get wrong about the kinds that it is about, told in its status when it is written.

use super::{GROUP, VALIDATING};
use crate::server::Reader;
use kubewright_core::cel::admission::{PolicyProblem, check_policy};
use kubewright_core::{GroupVersionResource, KindDescriptor};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// So many kinds are checked at most, as upstream.
const KINDS_MAX: usize = 10;

/// Whether a resource's status is filled in by this.
pub(crate) fn is_checked(group: &str, plural: &str) -> bool {
    group == GROUP && plural == VALIDATING.policies
}

/// Fills in the status of a policy that is about to be written.
pub(crate) fn settle(reader: &Reader, policy: &mut Value) {
    let generation = policy["metadata"]["generation"].as_i64().unwrap_or(1);
    let warnings = warnings(reader, &policy["spec"]);
    let checked = if warnings.is_empty() { json!({}) } else { json!({ "expressionWarnings": warnings }) };
    let Some(policy) = policy.as_object_mut() else { return };
    let status = policy.entry("status").or_insert_with(|| Value::Object(Map::new()));
    if let Some(status) = status.as_object_mut() {
        status.insert("observedGeneration".to_owned(), generation.into());
        status.insert("typeChecking".to_owned(), checked);
    }
}

fn warnings(reader: &Reader, spec: &Value) -> Vec<Value> {
    let params = spec.get("paramKind").filter(|k| !k.is_null()).and_then(|kind| {
        let api_version = kind["apiVersion"].as_str().unwrap_or("");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let name = kind["kind"].as_str().unwrap_or("");
        let found = reader.kinds.load().registry.by_kind(group, version, name).cloned()?;
        Some(Arc::new(found.schema.declaration()))
    });
    let mut found: Vec<(PolicyProblem, String)> = Vec::new();
    for kind in kinds(reader, spec) {
        let object = Arc::new(kind.schema.declaration());
        for problem in check_policy(spec, object, params.clone()) {
            if problem.place.0 != "validations" {
                continue;
            }
            let detail = problem.detail.strip_prefix("compilation failed: ").unwrap_or(&problem.detail);
            let told = format!("{}, Kind={}: {detail}\n", kind.api_version(), kind.kind);
            match found.iter_mut().find(|(known, _)| known.place == problem.place) {
                Some((_, text)) => text.push_str(&told),
                None => found.push((problem, told)),
            }
        }
    }
    let warning = |(problem, text): (PolicyProblem, String)| {
        let (list, i, field) = problem.place;
        json!({"fieldRef": format!("spec.{list}[{i}].{field}"), "warning": text})
    };
    found.into_iter().map(warning).collect()
}

/// The kinds that the rules name one by one.
fn kinds(reader: &Reader, spec: &Value) -> Vec<Arc<KindDescriptor>> {
    let kinds = reader.kinds.load();
    let mut found: Vec<Arc<KindDescriptor>> = Vec::new();
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        let listed = rule[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        listed.map(str::to_owned).collect()
    };
    for rule in spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
        let (groups, versions) = (texts(rule, "apiGroups"), texts(rule, "apiVersions"));
        for plural in texts(rule, "resources") {
            for (group, version) in groups.iter().flat_map(|g| versions.iter().map(move |v| (g, v))) {
                let resource = GroupVersionResource::new(group.as_str(), version.as_str(), plural.as_str());
                if let Some(kind) = kinds.registry.get(&resource)
                    && !found.iter().any(|k| k.resource() == kind.resource())
                    && found.len() < KINDS_MAX
                {
                    found.push(kind.clone());
                }
            }
        }
    }
    found.sort_by_key(|k| (k.group.clone(), k.version.clone(), k.kind.clone()));
    found
}
