//! IPAddress: an address of the Services' ranges, and who has it.

use crate::api::BuiltinOptions;
use crate::api::kit::checks::stay;
use crate::api::kit::columns::age_column;
use crate::api::kit::names::{self, path_segment};
use crate::api::kit::network::parse_ip;
use crate::api::kit::{ErrorSink, Path, column, describe, field_at, get, name_column, sub, text};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::networking::v1::IPAddress;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of IPAddress.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: crate::api::kit::names(&["ip"]),
        strategy: Arc::new(AddressRules),
        columns: vec![
            name_column(),
            column("ParentRef", "string", "Who has the address.", |o, _| parent(o).into()),
            age_column(),
        ],
        selectable_fields: vec![
            field_at("spec.parentRef.group", |o| parent_field(o, "group")),
            field_at("spec.parentRef.resource", |o| parent_field(o, "resource")),
            field_at("spec.parentRef.namespace", |o| parent_field(o, "namespace")),
            field_at("spec.parentRef.name", |o| parent_field(o, "name")),
        ],
        ..describe::<IPAddress>(Scope::Cluster)
    }
}

fn parent_field(address: &Value, field: &str) -> String {
    text(sub(sub(address, "spec"), "parentRef"), field).to_owned()
}

fn parent(address: &Value) -> String {
    let Some(parent) = get(sub(address, "spec"), "parentRef") else { return "<none>".to_owned() };
    let resource = match text(parent, "group") {
        "" => text(parent, "resource").to_lowercase(),
        group => format!("{}.{group}", text(parent, "resource")).to_lowercase(),
    };
    let name = text(parent, "name");
    match text(parent, "namespace") {
        "" => format!("{resource}/{name}"),
        namespace => format!("{resource}/{namespace}/{name}"),
    }
}

struct AddressRules;

impl Strategy for AddressRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let metadata = Path::Root.child("metadata");
        let name = text(sub(object, "metadata"), "name");
        let address = parse_ip(name, &metadata.child("name"), &mut errors);
        if let Some(address) = address.filter(|a| a.to_string() != name) {
            let detail = format!("must be in canonical form ({:?})", address.to_string());
            errors.invalid(&metadata.child("name"), name, &detail);
        }
        let spec = Path::Root.child("spec");
        let path = spec.child("parentRef");
        let Some(parent) = get(sub(object, "spec"), "parentRef") else {
            errors.required(&path, "");
            return errors;
        };
        let group = text(parent, "group");
        for problem in names::subdomain(group).iter().filter(|_| !group.is_empty()) {
            errors.invalid(&path.child("group"), group, problem);
        }
        for field in ["resource", "name", "namespace"] {
            let value = text(parent, field);
            if value.is_empty() && field != "namespace" {
                errors.required(&path.child(field), "");
            }
            for problem in path_segment(value) {
                errors.invalid(&path.child(field), value, &problem);
            }
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        stay(&["parentRef"], object, old, &mut errors);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    #[test]
    fn addresses_are_named_by_themselves() {
        let check = |name: &str, spec: Value, wanted: &[&str]| {
            let object = json!({"metadata": {"name": name}, "spec": spec});
            assert_eq!(texts(&AddressRules.validate(&object)), wanted);
        };
        let service = json!({"parentRef": {"resource": "services", "namespace": "a", "name": "b"}});
        check("10.0.0.1", service.clone(), &[]);
        check(
            "x",
            service.clone(),
            &[
                "metadata.name: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        );
        check(
            "fd00::0:1",
            service.clone(),
            &["metadata.name: Invalid value: \"fd00::0:1\": must be in canonical form (\"fd00::1\")"],
        );
        check("10.0.0.1", json!({}), &["spec.parentRef: Required value"]);
        check("10.0.0.1", json!({"parentRef": {"name": "b"}}), &["spec.parentRef.resource: Required value"]);
        let old = json!({"metadata": {"name": "10.0.0.1"}, "spec": service});
        let mut new = old.clone();
        new["spec"]["parentRef"]["name"] = "c".into();
        assert_eq!(AddressRules.validate_update(&new, &old, write(None)).len(), 1);
        let columns = descriptor(&BuiltinOptions::default()).columns;
        assert_eq!(row(&columns, &old), json!(["10.0.0.1", "services/a/b", "<unknown>"]));
    }
}
