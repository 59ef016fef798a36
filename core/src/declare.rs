//! What `#[derive(Resource)]` calls: from constants to a [`KindDescriptor`], and from there to a CustomResourceDefinition.

use crate::ErrorList;
use crate::jsonpath::JsonPath;
use crate::resource::{
    Cell, FieldValue, KindDescriptor, Origin, PrinterColumn, Resource, ScalePaths, Scope, SelectableField,
    Strategy, WriteContext,
};
use crate::schema::Schema;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What the attributes of a derived kind say beside its name.
#[derive(Clone, Copy, Debug)]
pub struct Declaration<'a> {
    /// `widget`.
    pub singular: &'a str,
    /// `wd`.
    pub short_names: &'a [&'a str],
    /// `all`.
    pub categories: &'a [&'a str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether `/status` exists.
    pub status: bool,
    /// Paths of the wanted number, the present number and the selector.
    pub scale: Option<(&'a str, &'a str, Option<&'a str>)>,
    /// Columns of `kubectl get` after NAME; AGE follows by itself.
    pub columns: &'a [Column<'a>],
    /// Fields for field selectors, `spec.size`.
    pub selectable_fields: &'a [&'a str],
}

/// A column as an attribute writes it.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    /// The heading.
    pub name: &'a str,
    /// A JSON path.
    pub path: &'a str,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub data_type: &'a str,
    /// Usually empty.
    pub format: &'a str,
    /// Prose.
    pub description: &'a str,
    /// 0 is always shown.
    pub priority: i32,
}

/// The descriptor of a host's kind.
///
/// # Panics
/// Where a path is no JSON path or the type's schema cannot be made structural: mistakes in the program, told in full.
pub fn descriptor<K: Resource + schemars::JsonSchema>(
    declaration: &Declaration<'_>,
    strategy: Arc<dyn Strategy>,
) -> KindDescriptor {
    let path = |text: &str| JsonPath::parse(text).unwrap_or_else(|why| panic!("{}: {why}", K::KIND));
    let columns = declaration.columns.iter().map(|c| PrinterColumn {
        name: c.name.to_owned(),
        data_type: c.data_type.to_owned(),
        format: c.format.to_owned(),
        description: c.description.to_owned(),
        priority: c.priority,
        cell: Cell::Path(path(c.path)),
    });
    let columns = with_name_and_age(columns.collect());
    let selectable = |name: &&str| SelectableField {
        name: name.trim_start_matches('.').into(),
        value: FieldValue::Path(path(&format!(".{}", name.trim_start_matches('.')))),
    };
    KindDescriptor {
        group: K::GROUP.into(),
        version: K::VERSION.into(),
        kind: K::KIND.into(),
        list_kind: format!("{}List", K::KIND).into(),
        plural: K::URL_PATH_SEGMENT.into(),
        singular: declaration.singular.into(),
        short_names: declaration.short_names.iter().map(|s| (*s).into()).collect(),
        categories: declaration.categories.iter().map(|s| (*s).into()).collect(),
        scope: if declaration.namespaced { Scope::Namespaced } else { Scope::Cluster },
        status: declaration.status,
        scale: declaration.scale.map(|(spec, status, selector)| ScalePaths {
            spec_replicas: spec.to_owned(),
            status_replicas: status.to_owned(),
            label_selector: selector.map(str::to_owned),
        }),
        generation: true,
        schema: Schema::of::<K>(),
        strategy: if declaration.status { Arc::new(OwnStatus(strategy)) } else { strategy },
        columns,
        selectable_fields: declaration.selectable_fields.iter().map(selectable).collect(),
        origin: Origin::BuiltIn,
        stored_as: None,
        conversion: None,
    }
}

/// The rules of a kind whose status has a way of its own: what a client says of it in a create is dropped.
struct OwnStatus(Arc<dyn Strategy>);

impl Strategy for OwnStatus {
    fn default(&self, object: &mut Value) {
        self.0.default(object);
    }

    fn prepare_for_create(&self, object: &mut Value, cx: WriteContext<'_>) {
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
        self.0.prepare_for_create(object, cx);
    }

    fn complete_create(&self, object: &mut Value, cx: WriteContext<'_>) {
        self.0.complete_create(object, cx);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        self.0.prepare_for_update(object, old, cx);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        self.0.validate(object)
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        self.0.validate_update(object, old, cx)
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        self.0.warnings(object)
    }
}

/// The columns of a kind of one's own between the two that every table has. Without columns the default table stands.
pub fn with_name_and_age(columns: Vec<PrinterColumn>) -> Vec<PrinterColumn> {
    if columns.is_empty() {
        return columns;
    }
    let column = |name: &str, data_type: &str, format: &str, path: &str| {
        JsonPath::parse(path).ok().map(|path| PrinterColumn {
            name: name.to_owned(),
            data_type: data_type.to_owned(),
            format: format.to_owned(),
            description: String::new(),
            priority: 0,
            cell: Cell::Path(path),
        })
    };
    let dated = columns.iter().any(|c| c.name.eq_ignore_ascii_case("age"));
    let mut out = Vec::with_capacity(columns.len() + 2);
    out.extend(column("Name", "string", "name", ".metadata.name"));
    out.extend(columns);
    out.extend((!dated).then(|| column("Age", "date", "", ".metadata.creationTimestamp")).flatten());
    out
}

/// The CustomResourceDefinition that declares the same kind to any Kubernetes. Columns that are computed by code are left out.
pub fn custom_resource_definition(d: &KindDescriptor) -> Value {
    let mut version = Map::new();
    version.insert("name".to_owned(), json!(d.version.as_str()));
    version.insert("served".to_owned(), json!(true));
    version.insert("storage".to_owned(), json!(true));
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let document = d.schema.document().cloned().unwrap_or(open);
    version.insert("schema".to_owned(), json!({"openAPIV3Schema": document}));
    let mut subresources = Map::new();
    if d.status {
        subresources.insert("status".to_owned(), json!({}));
    }
    if let Some(scale) = &d.scale {
        let mut paths =
            json!({"specReplicasPath": scale.spec_replicas, "statusReplicasPath": scale.status_replicas});
        if let Some(selector) = &scale.label_selector {
            paths["labelSelectorPath"] = json!(selector);
        }
        subresources.insert("scale".to_owned(), paths);
    }
    if !subresources.is_empty() {
        version.insert("subresources".to_owned(), Value::Object(subresources));
    }
    let columns: Vec<Value> = d.columns.iter().filter_map(column).collect();
    if !columns.is_empty() {
        version.insert("additionalPrinterColumns".to_owned(), Value::Array(columns));
    }
    let fields: Vec<Value> =
        d.selectable_fields.iter().map(|f| json!({"jsonPath": format!(".{}", f.name)})).collect();
    if !fields.is_empty() {
        version.insert("selectableFields".to_owned(), Value::Array(fields));
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", d.plural, d.group)},
        "spec": {
            "group": d.group.as_str(),
            "names": {
                "kind": d.kind.as_str(), "listKind": d.list_kind.as_str(), "plural": d.plural.as_str(), "singular": d.singular.as_str(),
                "shortNames": d.short_names.iter().map(|s| s.as_str()).collect::<Vec<_>>(),
                "categories": d.categories.iter().map(|s| s.as_str()).collect::<Vec<_>>(),
            },
            "scope": if d.namespaced() { "Namespaced" } else { "Cluster" },
            "versions": [Value::Object(version)],
        }
    })
}

fn column(c: &PrinterColumn) -> Option<Value> {
    let Cell::Path(path) = &c.cell else { return None };
    // NAME stands in every table by itself.
    if path.as_str() == ".metadata.name" {
        return None;
    }
    let mut out = json!({"name": c.name, "type": c.data_type, "jsonPath": path.as_str()});
    for (key, text) in [("format", &c.format), ("description", &c.description)] {
        if !text.is_empty() {
            out[key] = json!(text);
        }
    }
    if c.priority != 0 {
        out["priority"] = json!(c.priority);
    }
    Some(out)
}
