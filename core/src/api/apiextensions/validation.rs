//! Upstream's validation of a CustomResourceDefinition.

use super::custom_resource_definition::{condition_is_true, storage_version};
use crate::api::admissionregistration::client_config;
use crate::api::kit::meta::immutable;
use crate::api::kit::names;
use crate::api::kit::{ErrorSink, Path, at, flag, get, list, sub, text};
use crate::{ErrorList, FieldPath, JsonPath, Schema};
use serde_json::Value;
use std::collections::BTreeSet;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const SELECTABLE_MAX: usize = 8;

pub(super) fn validate(definition: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = sub(definition, "spec");
    let (root, name) = (Path::Root, text(sub(definition, "metadata"), "name"));
    let path = root.child("spec");
    let (plural, group) = (text(at(spec, &["names"]), "plural"), text(spec, "group"));
    if name != format!("{plural}.{group}") {
        let metadata = root.child("metadata");
        errors.invalid(&metadata.child("name"), name, "must be spec.names.plural+\".\"+spec.group");
    }
    validate_group(group, &path, &mut errors);
    match text(spec, "scope") {
        "" => errors.required(&path.child("scope"), ""),
        "Cluster" | "Namespaced" => {}
        other => errors.not_supported(&path.child("scope"), other, &["Cluster", "Namespaced"]),
    }
    if flag(spec, "preserveUnknownFields") {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&path.child("preserveUnknownFields"), true, detail);
    }
    validate_names(sub(spec, "names"), &path.child("names"), &mut errors);
    validate_versions(spec, &path, &mut errors);
    validate_conversion(spec, &path, &mut errors);
    errors.extend(validate_stored_versions(definition));
    errors
}

fn validate_group(group: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let path = path.child("group");
    if group.is_empty() {
        errors.required(&path, "");
        return;
    }
    for problem in names::subdomain(group) {
        errors.invalid(&path, group, &problem);
    }
    if !group.contains('.') {
        errors.invalid(&path, group, "should be a domain with at least one dot");
    }
}

fn validate_names(own: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let label = |value: &str, at: &Path<'_>, errors: &mut ErrorList| {
        for problem in names::label_1035(value) {
            errors.invalid(at, value, &problem);
        }
    };
    let plural = text(own, "plural");
    label(plural, &path.child("plural"), errors);
    let singular = text(own, "singular");
    if !singular.is_empty() {
        label(singular, &path.child("singular"), errors);
    }
    for field in ["kind", "listKind"] {
        let kind = text(own, field);
        for problem in names::label_1035(&kind.to_lowercase()) {
            let detail = format!("may have mixed case, but should otherwise match: {problem}");
            errors.invalid(&path.child(field), kind, &detail);
        }
    }
    if !text(own, "kind").is_empty() && text(own, "kind") == text(own, "listKind") {
        errors.invalid(
            &path.child("listKind"),
            text(own, "listKind"),
            "kind and listKind may not be the same",
        );
    }
    for field in ["shortNames", "categories"] {
        let at = path.child(field);
        for (i, name) in list(own, field).iter().filter_map(Value::as_str).enumerate() {
            label(name, &at.index(i), errors);
        }
    }
}

fn validate_versions(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let versions = list(spec, "versions");
    let at = path.child("versions");
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for (i, version) in versions.iter().enumerate() {
        let name = text(version, "name");
        unique &= seen.insert(name);
        let item = at.index(i);
        for problem in names::label_1035(name) {
            errors.invalid(&item.child("name"), name, &problem);
        }
        if get(sub(version, "schema"), "openAPIV3Schema").is_none() {
            let at_schema = item.child("schema");
            errors.required(&at_schema.child("openAPIV3Schema"), "schemas are required");
        }
    }
    validate_part(spec, path, "schema", errors, validate_schema);
    validate_part(spec, path, "subresources", errors, validate_subresources);
    validate_part(spec, path, "additionalPrinterColumns", errors, validate_columns);
    validate_part(spec, path, "selectableFields", errors, validate_selectable);
    if !unique {
        errors.invalid(&at, versions.to_vec(), "must contain unique version names");
    }
    if versions.iter().filter(|v| flag(v, "storage")).count() != 1 {
        errors.invalid(&at, versions.to_vec(), "must have exactly one version marked as storage version");
    }
}

/// Where a part of the versions is told to stand: once for the whole definition where all versions have the same, as upstream reads it.
fn validate_part(
    spec: &Value,
    path: &Path<'_>,
    field: &str,
    errors: &mut ErrorList,
    check: fn(&Value, &Path<'_>, &mut ErrorList),
) {
    let versions = list(spec, "versions");
    let shared = versions.first().map(|v| sub(v, field));
    if let Some(shared) = shared.filter(|s| !s.is_null() && versions.iter().all(|v| sub(v, field) == *s)) {
        let name = if field == "schema" { "validation" } else { field };
        check(shared, &path.child(name), errors);
        return;
    }
    let at = path.child("versions");
    for (i, version) in versions.iter().enumerate() {
        check(sub(version, field), &at.index(i).child(field), errors);
    }
}

fn validate_schema(schema: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at_schema = path.child("openAPIV3Schema");
    let Some(schema) = get(schema, "openAPIV3Schema") else { return };
    let found = match Schema::from_openapi(schema) {
        Ok(schema) => schema.check_definition(),
        Err(found) => found,
    };
    let prefix = at_schema.to_string();
    errors.extend(found.into_iter().map(|mut error| {
        error.field = below(&prefix, error.field.as_str());
        error
    }));
}

fn validate_subresources(subresources: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(scale) = get(subresources, "scale") {
        validate_scale(scale, &path.child("scale"), errors);
    }
}

fn validate_columns(columns: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for (i, column) in columns.as_array().into_iter().flatten().enumerate() {
        validate_column(column, &path.index(i), errors);
    }
}

fn validate_selectable(fields: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let fields = fields.as_array().map_or(&[][..], Vec::as_slice);
    if fields.len() > SELECTABLE_MAX {
        errors.too_many(path, fields.len(), SELECTABLE_MAX);
    }
    for (i, field) in fields.iter().enumerate() {
        let item = path.index(i);
        let wanted = text(field, "jsonPath");
        if wanted.is_empty() {
            errors.required(&item.child("jsonPath"), "");
        } else if !is_simple(wanted) {
            errors.invalid(&item.child("jsonPath"), wanted, "must be a simple json path starting with .");
        }
    }
}

/// A path of the schema, below where the schema stands.
fn below(prefix: &str, field: &str) -> FieldPath {
    if field.is_empty() {
        return FieldPath::new(prefix);
    }
    let dot = if field.is_empty() || field.starts_with('[') { "" } else { "." };
    FieldPath::new(&format!("{prefix}{dot}{field}"))
}

fn is_simple(path: &str) -> bool {
    path.starts_with('.') && JsonPath::parse(path).is_ok_and(|p| p.field_names().is_some())
}

fn validate_scale(scale: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let starts = |value: &str, field: &str| value == field || value.starts_with(&format!("{field}."));
    for (field, roots, detail) in [
        ("specReplicasPath", &[".spec"][..], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status"], "should be a json path under .status"),
        ("labelSelectorPath", &[".spec", ".status"], "should be a json path under either .spec or .status"),
    ] {
        let value = text(scale, field);
        let at = path.child(field);
        if value.is_empty() {
            if field != "labelSelectorPath" {
                errors.required(&at, "");
            }
        } else if !is_simple(value) {
            errors.invalid(&at, value, "must be a simple json path starting with .");
        } else if !roots.iter().any(|root| starts(value, root)) {
            errors.invalid(&at, value, detail);
        }
    }
}

fn validate_column(column: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if text(column, "name").is_empty() {
        errors.required(&path.child("name"), "");
    }
    match text(column, "type") {
        "" => {
            errors.required(&path.child("type"), &format!("must be one of {}", COLUMN_TYPES.join(",")));
        }
        known if COLUMN_TYPES.contains(&known) => {}
        other => {
            errors.invalid(&path.child("type"), other, &format!("must be one of {}", COLUMN_TYPES.join(",")));
        }
    }
    let wanted = text(column, "jsonPath");
    if wanted.is_empty() {
        errors.required(&path.child("jsonPath"), "");
    } else if let Err(why) = JsonPath::parse(wanted) {
        errors.invalid(&path.child("jsonPath"), wanted, &why);
    }
}

fn validate_conversion(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let conversion = sub(spec, "conversion");
    let path = path.child("conversion");
    match text(conversion, "strategy") {
        "" => errors.required(&path.child("strategy"), ""),
        "None" => {
            if get(conversion, "webhook").is_some() {
                errors.forbidden(
                    &path.child("webhook"),
                    "should not be set when strategy is not set to Webhook",
                );
            }
        }
        "Webhook" => {
            let webhook = path.child("webhook");
            let given = sub(conversion, "webhook");
            match get(given, "clientConfig") {
                None => errors
                    .required(&webhook.child("clientConfig"), "required when strategy is set to Webhook"),
                Some(config) => client_config::validate(config, &webhook.child("clientConfig"), errors),
            }
            let versions = webhook.child("conversionReviewVersions");
            validate_review_versions(list(given, "conversionReviewVersions"), &versions, errors);
        }
        other => errors.not_supported(&path.child("strategy"), other, &["None", "Webhook"]),
    }
}

/// The versions of reviews that a conversion webhook takes: one of ours at least.
fn validate_review_versions(versions: &[Value], path: &Path<'_>, errors: &mut ErrorList) {
    if versions.is_empty() {
        errors.required(path, "");
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        let version = version.as_str().unwrap_or("");
        if !seen.insert(version) {
            errors.invalid(&path.index(i), version, "duplicate version");
            continue;
        }
        for problem in names::label_1035(version) {
            errors.invalid(&path.index(i), version, &problem);
        }
    }
    if !seen.contains("v1") && !seen.contains("v1beta1") {
        errors.invalid(path, versions.to_vec(), "must include at least one of v1, v1beta1");
    }
}

/// Versions in which objects may be stored cannot go.
pub(super) fn validate_stored_versions(definition: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let status = Path::Root.child("status");
    let path = status.child("storedVersions");
    let stored = list(sub(definition, "status"), "storedVersions");
    let versions = list(sub(definition, "spec"), "versions");
    if definition.get("status").is_none() {
        return errors;
    }
    if stored.is_empty() {
        errors.invalid(&path, stored.to_vec(), "must have at least one stored version");
    }
    for (i, name) in stored.iter().enumerate() {
        if !versions.iter().any(|v| Some(text(v, "name")) == name.as_str()) {
            errors.invalid(&path.index(i), name.clone(), "missing from spec.versions; v1 was previously a storage version, \
                and must remain in spec.versions until a storage migration ensures no data remains persisted in it and removes it from status.storedVersions"
                .replacen("v1", name.as_str().unwrap_or(""), 1).as_str());
        }
    }
    if let Some(storage) = storage_version(definition)
        && !stored.is_empty()
        && !stored.iter().any(|s| s == storage)
    {
        errors.invalid(&path, stored.to_vec(), &format!("must have the storage version {storage}"));
    }
    errors
}

pub(super) fn validate_update(definition: &Value, old: &Value) -> ErrorList {
    let mut errors = validate(definition);
    let (spec, old_spec) = (sub(definition, "spec"), sub(old, "spec"));
    let path = Path::Root.child("spec");
    let names = path.child("names");
    if condition_is_true(old, "Established") {
        immutable(sub(spec, "scope"), sub(old_spec, "scope"), &path.child("scope"), &mut errors);
        let kind = |spec| at(spec, &["names", "kind"]);
        immutable(kind(spec), kind(old_spec), &names.child("kind"), &mut errors);
    }
    immutable(sub(spec, "group"), sub(old_spec, "group"), &path.child("group"), &mut errors);
    let plural = |spec| at(spec, &["names", "plural"]);
    immutable(plural(spec), plural(old_spec), &names.child("plural"), &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    pub(super) fn definition() -> Value {
        json!({"metadata": {"name": "widgets.example.com"}, "spec": {
            "group": "example.com", "scope": "Namespaced", "conversion": {"strategy": "None"},
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object"}}}}}]}})
    }

    #[test]
    fn definitions_are_refused_in_upstreams_words() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut definition = definition();
            change(&mut definition["spec"]);
            let texts: Vec<String> = validate(&definition).iter().map(ToString::to_string).collect();
            assert_eq!(texts.len(), wanted.len(), "{texts:?}");
            for (text, wanted) in texts.iter().zip(wanted) {
                assert!(text.starts_with(wanted), "{text}");
            }
        };
        check(|_| {}, &[]);
        check(
            |s| s["group"] = "example.org".into(),
            &[
                "metadata.name: Invalid value: \"widgets.example.com\": must be spec.names.plural+\".\"+spec.group",
            ],
        );
        check(
            |s| s["scope"] = "X".into(),
            &["spec.scope: Unsupported value: \"X\": supported values: \"Cluster\", \"Namespaced\""],
        );
        check(|s| s["versions"][0]["storage"] = false.into(), &["spec.versions: Invalid value: ["]);
        check(
            |s| s["versions"][0]["schema"] = json!({}),
            &["spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"],
        );
        check(
            |s| s["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({}),
            &[
                "spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
            ],
        );
        check(
            |s| {
                s["versions"][0]["subresources"] =
                    json!({"scale": {"specReplicasPath": ".status.x", "statusReplicasPath": ".status.y"}})
            },
            &[
                "spec.subresources.scale.specReplicasPath: Invalid value: \".status.x\": should be a json path under .spec",
            ],
        );
        check(
            |s| {
                s["versions"][0]["additionalPrinterColumns"] =
                    json!([{"name": "A", "type": "text", "jsonPath": ".a"}])
            },
            &["spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of"],
        );
    }

    #[test]
    fn established_kinds_stay() {
        let mut old = definition();
        old["status"] =
            json!({"storedVersions": ["v1"], "conditions": [{"type": "Established", "status": "True"}]});
        let mut new = old.clone();
        new["spec"]["scope"] = "Cluster".into();
        let texts: Vec<String> = validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["spec.scope: Invalid value: \"Cluster\": field is immutable"]);
        new = old.clone();
        new["spec"]["versions"][0]["name"] = "v2".into();
        let fields: Vec<String> = validate_update(&new, &old).iter().map(|e| e.field.to_string()).collect();
        assert_eq!(fields, ["status.storedVersions[0]", "status.storedVersions"]);
    }
}
