//! From a CustomResourceDefinition to the descriptors of its kinds.

use super::custom_resource_definition::storage_version;
use crate::api::kit::columns::name_column;
use crate::api::kit::{ErrorSink, Path, at, flag, get, int, list, set, sub, text};
use crate::resource::{
    Cell, ConversionWebhook, FieldValue, Origin, PrinterColumn, ScalePaths, Scope, SelectableField, StoredAs,
    Strategy, WriteContext,
};
use crate::{ErrorList, GroupVersionResource, JsonPath, KindDescriptor, Schema};
use serde_json::Value;
use smol_str::SmolStr;
use std::sync::Arc;

/// A descriptor for each served version of a definition. One of them stores the objects: the storage version, or the first where
/// that is not served; the others are views of it, which differ in `apiVersion` only (conversion `None`) or are made by a
/// webhook.
///
/// # Errors
/// Upstream's validation errors of the definition's versions; a definition that was stored has none.
pub fn descriptors(crd: &Value) -> Result<Vec<KindDescriptor>, ErrorList> {
    let mut errors = ErrorList::new();
    let spec = sub(crd, "spec");
    let versions = list(spec, "versions");
    let served: Vec<(usize, &Value)> =
        versions.iter().enumerate().filter(|(_, v)| flag(v, "served")).collect();
    let storage = storage_version(crd);
    let storing = served
        .iter()
        .map(|(_, v)| text(v, "name"))
        .find(|name| Some(*name) == storage)
        .or_else(|| served.first().map(|(_, v)| text(v, "name")));
    let mut kinds = Vec::with_capacity(served.len());
    for (i, version) in &served {
        let path = Path::Root.child("spec");
        let versions = path.child("versions");
        if let Some(kind) = descriptor(crd, version, storing.unwrap_or(""), &versions.index(*i), &mut errors)
        {
            kinds.push(kind);
        }
    }
    if errors.is_empty() { Ok(kinds) } else { Err(errors) }
}

fn descriptor(
    crd: &Value,
    version: &Value,
    storing: &str,
    path: &Path<'_>,
    errors: &mut ErrorList,
) -> Option<KindDescriptor> {
    let spec = sub(crd, "spec");
    let accepted = at(crd, &["status", "acceptedNames"]);
    let names = if text(accepted, "plural").is_empty() { sub(spec, "names") } else { accepted };
    let (group, plural, name) = (text(spec, "group"), text(names, "plural"), text(version, "name"));
    let schema_path = path.child("schema");
    let schema = match Schema::from_openapi(at(version, &["schema", "openAPIV3Schema"])) {
        Ok(schema) => Arc::new(schema),
        Err(found) => {
            let at_schema = schema_path.child("openAPIV3Schema");
            for error in found {
                errors.invalid(&at_schema, error.field.to_string(), &error.message);
            }
            return None;
        }
    };
    let subresources = sub(version, "subresources");
    let status = get(subresources, "status").is_some();
    let scale = get(subresources, "scale").map(scale_paths);
    Some(KindDescriptor {
        group: group.into(),
        version: name.into(),
        kind: text(names, "kind").into(),
        list_kind: text(names, "listKind").into(),
        plural: plural.into(),
        singular: text(names, "singular").into(),
        short_names: words(names, "shortNames"),
        categories: words(names, "categories"),
        scope: if text(spec, "scope") == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        status,
        generation: true,
        schema,
        strategy: Arc::new(CustomRules { status, replicas: scale.as_ref().map(|s| s.spec_replicas.clone()) }),
        scale,
        columns: columns(version, path, errors),
        selectable_fields: selectable_fields(version, path, errors),
        origin: Origin::Custom,
        stored_as: (name != storing).then(|| view(group, plural, name, storing)),
        conversion: conversion(spec).map(Arc::new),
    })
}

fn words(names: &Value, field: &str) -> Vec<SmolStr> {
    list(names, field).iter().filter_map(Value::as_str).map(SmolStr::from).collect()
}

fn scale_paths(scale: &Value) -> ScalePaths {
    let selector = text(scale, "labelSelectorPath");
    ScalePaths {
        spec_replicas: text(scale, "specReplicasPath").to_owned(),
        status_replicas: text(scale, "statusReplicasPath").to_owned(),
        label_selector: (!selector.is_empty()).then(|| selector.to_owned()),
    }
}

/// The webhook that converts, where one does.
fn conversion(spec: &Value) -> Option<ConversionWebhook> {
    let conversion = sub(spec, "conversion");
    if text(conversion, "strategy") != "Webhook" {
        return None;
    }
    let webhook = sub(conversion, "webhook");
    let versions = list(webhook, "conversionReviewVersions").iter();
    Some(ConversionWebhook {
        client_config: sub(webhook, "clientConfig").clone(),
        review_versions: versions.filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

/// A version that is stored as another one.
fn view(group: &str, plural: &str, own: &str, storing: &str) -> StoredAs {
    let versioned = |version: &str| {
        let api_version = format!("{group}/{version}");
        let convert = move |object: &mut Value| set(object, "apiVersion", api_version.as_str());
        Arc::new(convert) as crate::resource::ConvertFn
    };
    StoredAs {
        resource: GroupVersionResource::new(group, storing, plural),
        to_stored: versioned(storing),
        from_stored: versioned(own),
    }
}

fn columns(version: &Value, path: &Path<'_>, errors: &mut ErrorList) -> Vec<PrinterColumn> {
    let mut columns = vec![name_column()];
    let at_columns = path.child("additionalPrinterColumns");
    let wanted = list(version, "additionalPrinterColumns");
    for (i, column) in wanted.iter().enumerate() {
        let item = at_columns.index(i);
        if let Some(path) = parse(text(column, "jsonPath"), &item.child("jsonPath"), errors) {
            columns.push(PrinterColumn {
                name: text(column, "name").to_owned(),
                data_type: text(column, "type").to_owned(),
                format: text(column, "format").to_owned(),
                description: text(column, "description").to_owned(),
                priority: int(column, "priority").and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
                cell: Cell::Path(path),
            });
        }
    }
    if wanted.is_empty()
        && let Some(path) = parse(".metadata.creationTimestamp", &at_columns, errors)
    {
        columns.push(PrinterColumn {
            name: "Age".to_owned(),
            data_type: "date".to_owned(),
            format: String::new(),
            description: "The time since the object was created.".to_owned(),
            priority: 0,
            cell: Cell::Path(path),
        });
    }
    columns
}

fn selectable_fields(version: &Value, path: &Path<'_>, errors: &mut ErrorList) -> Vec<SelectableField> {
    let at_fields = path.child("selectableFields");
    let mut fields = Vec::new();
    for (i, field) in list(version, "selectableFields").iter().enumerate() {
        let wanted = text(field, "jsonPath");
        let item = at_fields.index(i);
        if let Some(path) = parse(wanted, &item.child("jsonPath"), errors) {
            let name = wanted.strip_prefix('.').unwrap_or(wanted);
            fields.push(SelectableField { name: name.into(), value: FieldValue::Path(path) });
        }
    }
    fields
}

fn parse(text: &str, path: &Path<'_>, errors: &mut ErrorList) -> Option<JsonPath> {
    match JsonPath::parse(text) {
        Ok(parsed) => Some(parsed),
        Err(why) => {
            errors.invalid(path, text, &why);
            None
        }
    }
}

/// What every custom kind keeps beside its schema.
struct CustomRules {
    status: bool,
    replicas: Option<String>,
}

impl Strategy for CustomRules {
    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        if self.status {
            crate::api::kit::remove(object, "status");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if let Some(path) = &self.replicas
            && let Some(replicas) = JsonPath::parse(path).ok().and_then(|p| p.first(object)?.as_i64())
            && !(0..=i64::from(i32::MAX)).contains(&replicas)
        {
            let detail = if replicas < 0 {
                "should be a non-negative integer"
            } else {
                "should be less than or equal to 2147483647"
            };
            errors.invalid(&Path::Root.child(path.trim_start_matches('.')), replicas, detail);
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition() -> Value {
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}, "color": {"type": "string"}}},
            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}});
        json!({"metadata": {"name": "widgets.example.com"}, "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
                "shortNames": ["wd"], "categories": ["all"]},
            "versions": [
                {"name": "v1beta1", "served": true, "storage": false, "schema": schema},
                {"name": "v1", "served": true, "storage": true, "schema": schema,
                    "subresources": {"status": {}, "scale": {
                        "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                    "selectableFields": [{"jsonPath": ".spec.color"}],
                    "additionalPrinterColumns": [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}]},
                {"name": "v2", "served": false, "storage": false, "schema": schema}]}})
    }

    #[test]
    fn each_served_version_gets_a_descriptor() {
        let kinds = descriptors(&definition()).unwrap();
        let names: Vec<&str> = kinds.iter().map(|k| k.version.as_str()).collect();
        assert_eq!(names, ["v1beta1", "v1"]);
        let [view, stored] = kinds.as_slice() else { panic!("two kinds") };
        assert!(stored.stored_as.is_none() && stored.status && stored.scale.is_some());
        assert_eq!(stored.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["Name", "Color"]);
        assert_eq!(view.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["Name", "Age"]);
        assert_eq!(stored.selectable_fields[0].name, "spec.color");
        let shared = view.stored_as.as_ref().unwrap();
        assert_eq!(shared.resource.version, "v1");
        let mut object = json!({"apiVersion": "example.com/v1beta1", "kind": "Widget"});
        (shared.to_stored)(&mut object);
        assert_eq!(object["apiVersion"], "example.com/v1");
        (shared.from_stored)(&mut object);
        assert_eq!(object["apiVersion"], "example.com/v1beta1");
        assert_eq!(stored.strategy.validate(&json!({"spec": {"replicas": -1}})).len(), 1);
    }

    #[test]
    fn broken_versions_are_told() {
        let mut definition = definition();
        definition["spec"]["versions"][1]["additionalPrinterColumns"][0]["jsonPath"] = ".a[".into();
        let errors = descriptors(&definition).unwrap_err();
        assert_eq!(errors[0].field.as_str(), "spec.versions[1].additionalPrinterColumns[0].jsonPath");
    }
}
