//! CustomResourceDefinition: a kind that comes at run time.

use super::validation;
use crate::api::BuiltinOptions;
use crate::api::kit::columns::bare_columns;
use crate::api::kit::{
    at, carry, default_int, default_text, default_to, describe, ensure, flag, list, names, object_mut, set,
    sub, text,
};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use std::sync::Arc;

/// The descriptor of CustomResourceDefinition.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["crd", "crds"]),
        categories: names(&["api-extensions"]),
        status: true,
        generation: true,
        strategy: Arc::new(DefinitionRules),
        columns: bare_columns(),
        ..describe::<CustomResourceDefinition>(Scope::Cluster)
    }
}

struct DefinitionRules;

impl Strategy for DefinitionRules {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        if let Some(names) = object_mut(spec, "names") {
            let kind = text(names, "kind").to_owned();
            if !kind.is_empty() {
                default_text(names, "singular", &kind.to_ascii_lowercase());
                default_text(names, "listKind", &format!("{kind}List"));
            }
        }
        default_to(spec, "conversion", json!({"strategy": "None"}));
        let service = object_mut(spec, "conversion")
            .and_then(|c| object_mut(c, "webhook"))
            .and_then(|w| object_mut(w, "clientConfig"))
            .and_then(|c| object_mut(c, "service"));
        if let Some(service) = service {
            default_int(service, "port", 443);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        let empty =
            json!({"conditions": [], "acceptedNames": {"kind": "", "plural": ""}, "storedVersions": []});
        set(object, "status", empty);
        note_stored_version(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        if cx.subresource == Some("status") {
            carry(object, old, "spec");
            return;
        }
        carry(object, old, "status");
        note_stored_version(object);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        validation::validate(object)
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") {
            return validation::validate_stored_versions(object);
        }
        validation::validate_update(object, old)
    }
}

/// Objects may be stored in every version that was the storage version once.
fn note_stored_version(object: &mut Value) {
    let Some(name) = storage_version(object).map(str::to_owned) else { return };
    let Some(status) = ensure(object, "status") else { return };
    match status.get_mut("storedVersions").and_then(Value::as_array_mut) {
        Some(stored) if stored.contains(&Value::from(name.as_str())) => {}
        Some(stored) => stored.push(name.into()),
        None => set(status, "storedVersions", json!([name])),
    }
}

/// The name of the version that is stored.
pub(super) fn storage_version(definition: &Value) -> Option<&str> {
    let versions = list(sub(definition, "spec"), "versions");
    versions.iter().find(|v| flag(v, "storage")).map(|v| text(v, "name"))
}

/// Whether a condition of the definition is true (`Established`, `NamesAccepted`).
pub fn condition_is_true(definition: &Value, kind: &str) -> bool {
    let conditions = list(at(definition, &["status"]), "conditions");
    conditions.iter().any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_status_are_upstreams() {
        let cx = WriteContext::new(None, jiff::Timestamp::UNIX_EPOCH);
        let mut crd = json!({"spec": {"names": {"kind": "Widget", "plural": "widgets"}, "versions": [
            {"name": "v1", "served": true}, {"name": "v2", "served": true, "storage": true}]}});
        DefinitionRules.default(&mut crd);
        let once = crd.clone();
        DefinitionRules.default(&mut crd);
        assert_eq!(crd, once);
        assert_eq!(crd["spec"]["names"]["singular"], "widget");
        assert_eq!(crd["spec"]["names"]["listKind"], "WidgetList");
        assert_eq!(crd["spec"]["conversion"], json!({"strategy": "None"}));
        DefinitionRules.prepare_for_create(&mut crd, cx);
        assert_eq!(crd["status"]["storedVersions"], json!(["v2"]));
        let old = crd.clone();
        crd["spec"]["versions"][0]["storage"] = true.into();
        crd["spec"]["versions"][1]["storage"] = false.into();
        DefinitionRules.prepare_for_update(&mut crd, &old, cx);
        assert_eq!(crd["status"]["storedVersions"], json!(["v2", "v1"]));
    }
}
