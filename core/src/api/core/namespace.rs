//! Namespace: a scope of names, with a finalizer of its own kind in `spec`.

use crate::api::BuiltinOptions;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::{self, NameRule};
use crate::api::kit::{
    ErrorSink, Path, at, carry, column, default_text, describe, ensure, field_at, list, name_column, set,
    sub, text,
};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};
use std::sync::Arc;

/// The label that every namespace has with its own name.
pub const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// The finalizer in `spec` that stays until the namespace's content is gone.
pub const KUBERNETES_FINALIZER: &str = "kubernetes";

/// The descriptor of Namespace.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: crate::api::kit::names(&["ns"]),
        status: true,
        strategy: Arc::new(NamespaceRules),
        columns: vec![
            name_column(),
            column("Status", "string", "The phase of the namespace.", |o, _| {
                text(sub(o, "status"), "phase").into()
            }),
            age_column(),
        ],
        selectable_fields: vec![
            field_at("name", |o| text(sub(o, "metadata"), "name").to_owned()),
            field_at("status.phase", |o| text(sub(o, "status"), "phase").to_owned()),
        ],
        ..describe::<Namespace>(Scope::Cluster)
    }
}

struct NamespaceRules;

impl Strategy for NamespaceRules {
    fn default(&self, object: &mut Value) {
        if let Some(status) = ensure(object, "status") {
            default_text(status, "phase", "Active");
        }
        let name = text(sub(object, "metadata"), "name");
        if !name.is_empty() && at(object, &["metadata", "labels", METADATA_NAME]) != name {
            let name = name.to_owned();
            if let Some(labels) = ensure(object, "metadata").and_then(|m| ensure(m, "labels")) {
                set(labels, METADATA_NAME, name);
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        set(object, "status", json!({"phase": "Active"}));
        let has = list(sub(object, "spec"), "finalizers").iter().any(|f| f == KUBERNETES_FINALIZER);
        if !has && let Some(spec) = ensure(object, "spec") {
            match spec.get_mut("finalizers").and_then(Value::as_array_mut) {
                Some(list) => list.push(KUBERNETES_FINALIZER.into()),
                None => set(spec, "finalizers", json!([KUBERNETES_FINALIZER])),
            }
        }
        self.default(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        // The finalizers change through the `finalize` subresource only, which keeps everything else.
        if cx.subresource != Some("finalize") {
            carry(object, old, "spec");
        }
        if cx.subresource != Some("status") {
            carry(object, old, "status");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Label, &mut errors);
        let spec = Path::Root.child("spec");
        for (i, finalizer) in list(sub(object, "spec"), "finalizers").iter().enumerate() {
            validate_finalizer(
                finalizer.as_str().unwrap_or(""),
                &spec.child("finalizers").index(i),
                &mut errors,
            );
        }
        errors
    }

    fn validate_update(&self, object: &Value, _: &Value, cx: WriteContext<'_>) -> ErrorList {
        let mut errors = self.validate(object);
        if cx.subresource == Some("status") {
            let deleting = sub(object, "metadata").get("deletionTimestamp").is_some_and(|v| !v.is_null());
            let phase = text(sub(object, "status"), "phase");
            let status = Path::Root.child("status");
            if !deleting && phase != "Active" {
                errors.invalid(
                    &status.child("Phase"),
                    phase,
                    "may only be 'Active' if `deletionTimestamp` is empty",
                );
            }
            if deleting && phase != "Terminating" {
                errors.invalid(
                    &status.child("Phase"),
                    phase,
                    "may only be 'Terminating' if `deletionTimestamp` is not empty",
                );
            }
        }
        errors
    }
}

fn validate_finalizer(finalizer: &str, path: &Path<'_>, errors: &mut ErrorList) {
    for problem in names::qualified(finalizer) {
        errors.invalid(path, finalizer, &problem);
    }
    if !finalizer.contains('/')
        && !matches!(finalizer, KUBERNETES_FINALIZER | "orphan" | "foregroundDeletion")
    {
        errors.invalid(
            path,
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cx(subresource: Option<&'static str>) -> WriteContext<'static> {
        WriteContext::new(subresource, jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_new_namespace_is_active_and_guarded() {
        let mut ns = json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}});
        NamespaceRules.default(&mut ns);
        NamespaceRules.prepare_for_create(&mut ns, cx(None));
        let wanted = json!({
            "metadata": {"name": "a", "labels": {METADATA_NAME: "a"}},
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"}});
        assert_eq!(ns, wanted);
        NamespaceRules.default(&mut ns);
        assert_eq!(ns, wanted);
    }

    #[test]
    fn only_finalize_changes_finalizers() {
        let old = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let check = |subresource: Option<&'static str>, wanted: Value| {
            let mut new =
                json!({"metadata": {"name": "a"}, "spec": {"finalizers": []}, "status": {"phase": "Active"}});
            NamespaceRules.prepare_for_update(&mut new, &old, cx(subresource));
            assert_eq!(new["spec"]["finalizers"], wanted);
        };
        check(None, json!(["kubernetes"]));
        check(Some("status"), json!(["kubernetes"]));
        check(Some("finalize"), json!([]));
    }
}
