//! ControllerRevision: a snapshot of a controller's state; its data never changes.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::{immutable, non_negative, validate_name};
use crate::api::kit::names::NameRule;
use crate::api::kit::{ErrorSink, Path, column, describe, flag, get, int, list, name_column, sub, text};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of ControllerRevision.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        strategy: Arc::new(RevisionRules),
        columns: vec![
            name_column(),
            column("Controller", "string", "Whose revision it is.", |o, _| controller(o).into()),
            column("Revision", "string", "The number of the revision.", |o, _| {
                int(o, "revision").unwrap_or(0).into()
            }),
            age_column(),
        ],
        ..describe::<ControllerRevision>(Scope::Namespaced)
    }
}

fn controller(revision: &Value) -> String {
    let owners = list(sub(revision, "metadata"), "ownerReferences");
    let Some(owner) = owners.iter().find(|o| flag(o, "controller")) else { return "<none>".to_owned() };
    let kind = text(owner, "kind").to_lowercase();
    match text(owner, "apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", text(owner, "name")),
        None => format!("{kind}/{}", text(owner, "name")),
    }
}

struct RevisionRules;

impl Strategy for RevisionRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        if get(object, "data").is_none() {
            errors.required(&Path::Root.child("data"), "data is mandatory");
        }
        non_negative(object, "revision", &Path::Root, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = self.validate(object);
        immutable(sub(object, "data"), sub(old, "data"), &Path::Root.child("data"), &mut errors);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn data_is_needed_and_stays() {
        let cx = WriteContext::new(None, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(RevisionRules.validate(&json!({})).len(), 1);
        let (a, b) = (json!({"data": {"x": 1}, "revision": 1}), json!({"data": {"x": 2}, "revision": 1}));
        assert_eq!(RevisionRules.validate_update(&a, &a, cx), vec![]);
        assert_eq!(RevisionRules.validate_update(&b, &a, cx).len(), 1);
        let owned = json!({"metadata": {"ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": true}]}});
        assert_eq!(controller(&owned), "daemonset.apps/d");
    }
}
