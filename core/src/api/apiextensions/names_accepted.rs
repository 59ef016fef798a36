//! Which names a CustomResourceDefinition gets, and whether it is established.

use super::custom_resource_definition::condition_is_true;
use crate::api::kit::{at, ensure, list, same, set, sub, text};
use crate::meta::format_time;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Works out the accepted names and the conditions `NamesAccepted` and `Established` of a definition, beside all the other definitions
/// (those of other groups are passed over). Gives whether its status changed and must be written.
///
/// A name that another definition has had accepted stays that one's; a name that this one had accepted before stays its own.
pub fn update_status<'a>(
    definition: &mut Value,
    others: impl IntoIterator<Item = &'a Value>,
    now: Timestamp,
) -> bool {
    let before = sub(definition, "status").clone();
    let taken = Taken::by(definition, others);
    let (accepted, conflict) = accept(definition, &taken);
    let Some(status) = ensure(definition, "status") else { return false };
    set(status, "acceptedNames", accepted);
    let time = format_time(now);
    match conflict {
        Some((reason, message)) => {
            set_condition(status, "NamesAccepted", "False", reason, &message, &time);
            // A kind that was established once stays so.
            if !has_condition(status, "Established") {
                set_condition(
                    status,
                    "Established",
                    "False",
                    "NotAccepted",
                    "not all names are accepted",
                    &time,
                );
            }
        }
        None => {
            set_condition(status, "NamesAccepted", "True", "NoConflicts", "no conflicts found", &time);
            if !is_true(status, "Established") {
                let message = "the initial names have been accepted";
                set_condition(status, "Established", "True", "InitialNamesAccepted", message, &time);
            }
        }
    }
    *status != before
}

/// Whether the kinds of a definition are to be served.
pub fn is_established(definition: &Value) -> bool {
    condition_is_true(definition, "Established")
}

/// The names that others in the group have: of resources, and of kinds.
struct Taken<'a> {
    resources: Vec<&'a str>,
    kinds: Vec<&'a str>,
}

impl<'a> Taken<'a> {
    fn by(definition: &Value, others: impl IntoIterator<Item = &'a Value>) -> Self {
        let group = text(sub(definition, "spec"), "group");
        let own = text(sub(definition, "metadata"), "name");
        let mut taken = Taken { resources: Vec::new(), kinds: Vec::new() };
        for other in others {
            if text(sub(other, "spec"), "group") != group || text(sub(other, "metadata"), "name") == own {
                continue;
            }
            let names = at(other, &["status", "acceptedNames"]);
            taken.resources.extend([text(names, "plural"), text(names, "singular")]);
            taken.resources.extend(list(names, "shortNames").iter().filter_map(Value::as_str));
            taken.kinds.extend([text(names, "kind"), text(names, "listKind")]);
        }
        taken
    }
}

type Conflict = (&'static str, String);

/// The names to accept, and the first conflict in the order of upstream's conditions (the last found wins there).
fn accept(definition: &Value, taken: &Taken<'_>) -> (Value, Option<Conflict>) {
    let wanted = at(definition, &["spec", "names"]);
    let had = at(definition, &["status", "acceptedNames"]);
    let mut accepted = had.as_object().cloned().unwrap_or_default();
    let mut conflict: Option<Conflict> = None;
    let fields: [(&str, &'static str, &Vec<&str>); 4] = [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ];
    for (field, reason, others) in fields {
        let name = text(wanted, field);
        if !name.is_empty() && others.contains(&name) {
            conflict.get_or_insert((reason, format!("{name:?} is already in use")));
        } else {
            put(&mut accepted, field, sub(wanted, field));
        }
    }
    let short: Vec<String> = list(wanted, "shortNames")
        .iter()
        .filter_map(Value::as_str)
        .filter(|name| taken.resources.contains(name))
        .map(|name| format!("{name:?} is already in use"))
        .collect();
    if short.is_empty() {
        put(&mut accepted, "shortNames", sub(wanted, "shortNames"));
    } else {
        let message = if short.len() == 1 { short[0].clone() } else { format!("[{}]", short.join(", ")) };
        conflict.get_or_insert(("ShortNamesConflict", message));
    }
    put(&mut accepted, "categories", sub(wanted, "categories"));
    (Value::Object(accepted), conflict)
}

fn put(accepted: &mut Map<String, Value>, field: &str, value: &Value) {
    if value.is_null() {
        accepted.remove(field);
    } else if !accepted.get(field).is_some_and(|old| same(old, value)) {
        accepted.insert(field.to_owned(), value.clone());
    }
}

fn has_condition(status: &Value, kind: &str) -> bool {
    list(status, "conditions").iter().any(|c| text(c, "type") == kind)
}

fn is_true(status: &Value, kind: &str) -> bool {
    list(status, "conditions").iter().any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

fn set_condition(status: &mut Value, kind: &str, value: &str, reason: &str, message: &str, time: &str) {
    let old = list(status, "conditions").iter().find(|c| text(c, "type") == kind);
    if old.is_some_and(|c| {
        text(c, "status") == value && text(c, "reason") == reason && text(c, "message") == message
    }) {
        return;
    }
    // The time tells when the status last turned, not when its reason did.
    let since = old.filter(|c| text(c, "status") == value).map_or(time, |c| text(c, "lastTransitionTime"));
    let condition = json!({"type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": since});
    match status.get_mut("conditions").and_then(Value::as_array_mut) {
        Some(conditions) => match conditions.iter_mut().find(|c| text(c, "type") == kind) {
            Some(slot) => *slot = condition,
            None => conditions.push(condition),
        },
        None => set(status, "conditions", json!([condition])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str) -> Value {
        json!({"metadata": {"name": format!("{plural}.example.com")}, "spec": {"group": "example.com", "names": {
            "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": ["x"]}}})
    }

    #[test]
    fn the_first_keeps_its_names() {
        let now = Timestamp::UNIX_EPOCH;
        let mut first = definition("widgets", "Widget");
        assert!(update_status(&mut first, [], now));
        assert!(is_established(&first));
        assert_eq!(first["status"]["acceptedNames"]["plural"], "widgets");
        assert!(!update_status(&mut first, [], "2026-01-01T00:00:00Z".parse().unwrap()));
        let mut second = definition("gadgets", "Widget");
        assert!(update_status(&mut second, [&first], now));
        assert!(!is_established(&second));
        let conditions = &second["status"]["conditions"];
        assert_eq!(conditions[0]["reason"], "SingularConflict");
        assert_eq!(conditions[1]["message"], "not all names are accepted");
        assert!(update_status(&mut second, [], now));
        assert!(is_established(&second));
    }
}
