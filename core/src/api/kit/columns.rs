//! Making printer columns, and cells that several kinds have.

use super::access::{at, entries, list, sub, text};
use super::duration::age_of;
use crate::resource::{Cell, PrinterColumn};
use jiff::Timestamp;
use serde_json::Value;

/// How a cell is computed.
pub(crate) type CellFn = fn(&Value, Timestamp) -> Value;

/// A column that is always shown.
pub(crate) fn column(name: &str, data_type: &str, description: &str, cell: CellFn) -> PrinterColumn {
    computed(name, data_type, description, 0, cell)
}

/// A column of a priority.
pub(crate) fn computed(
    name: &str,
    data_type: &str,
    description: &str,
    priority: i32,
    cell: CellFn,
) -> PrinterColumn {
    PrinterColumn {
        name: name.to_owned(),
        data_type: data_type.to_owned(),
        format: String::new(),
        description: description.to_owned(),
        priority,
        cell: Cell::Computed(cell),
    }
}

/// The column that names the object.
pub(crate) fn name_column() -> PrinterColumn {
    let mut column = column("Name", "string", "The name of the object, unique in its scope.", name);
    column.format = "name".to_owned();
    column
}

/// The column of the object's age.
pub(crate) fn age_column() -> PrinterColumn {
    column("Age", "string", "The time since the object was created.", age)
}

/// The two columns of kinds that upstream gives no printer.
pub(crate) fn bare_columns() -> Vec<PrinterColumn> {
    let created = |object: &Value, _: Timestamp| at(object, &["metadata", "creationTimestamp"]).clone();
    vec![name_column(), column("Created At", "date", "When the object was created.", created)]
}

/// `metadata.name`.
pub(crate) fn name(object: &Value, _: Timestamp) -> Value {
    text(sub(object, "metadata"), "name").into()
}

/// The age by `metadata.creationTimestamp`.
pub(crate) fn age(object: &Value, now: Timestamp) -> Value {
    age_of(at(object, &["metadata", "creationTimestamp"]), now).into()
}

/// The text or a placeholder for an empty one.
pub(crate) fn or<'a>(text: &'a str, placeholder: &'a str) -> &'a str {
    if text.is_empty() { placeholder } else { text }
}

/// Texts joined by commas.
pub(crate) fn joined<'a>(items: impl Iterator<Item = &'a str>) -> String {
    items.collect::<Vec<_>>().join(",")
}

/// Labels as `a=b,c=d` by key; `<none>` for none.
pub(crate) fn labels(owner: &Value, key: &str) -> String {
    let mut pairs: Vec<String> =
        entries(owner, key).map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
    pairs.sort();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// Names of the containers of a pod spec.
pub(crate) fn container_names(pod_spec: &Value) -> String {
    joined(list(pod_spec, "containers").iter().map(|c| text(c, "name")))
}

/// Images of the containers of a pod spec.
pub(crate) fn container_images(pod_spec: &Value) -> String {
    joined(list(pod_spec, "containers").iter().map(|c| text(c, "image")))
}

/// The three wide columns of kinds with a pod template and a label selector.
pub(crate) fn template_columns() -> [PrinterColumn; 3] {
    [
        computed("Containers", "string", "The names of the template's containers.", 1, |o, _| {
            container_names(at(o, &["spec", "template", "spec"])).into()
        }),
        computed("Images", "string", "The images of the template's containers.", 1, |o, _| {
            container_images(at(o, &["spec", "template", "spec"])).into()
        }),
        computed("Selector", "string", "Which pods belong to the object.", 1, |o, _| {
            super::selectors::format_label_selector(at(o, &["spec", "selector"])).into()
        }),
    ]
}

/// Access modes in their short names, each once, in upstream's order.
pub(crate) fn access_modes(owner: &Value) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let modes = list(owner, "accessModes");
    joined(SHORT.iter().filter(|(long, _)| modes.iter().any(|m| m == long)).map(|(_, short)| *short))
}
