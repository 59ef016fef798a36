//! PriorityLevelConfiguration: how many requests of a level run, and how many wait.

use crate::api::BuiltinOptions;
use crate::api::kit::checks::{drop_status, keep_other_half};
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::{
    ErrorSink, Path, column, default_int, default_to, describe, ensure, get, int, name_column, object_mut,
    sub, text,
};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;
use serde_json::Value;
use std::sync::Arc;

const QUEUES_MAX: i64 = 10_000_000;
/// How many bits of a hash there are to deal hands by.
const HASH_BITS: f64 = 60.0;

/// The descriptor of PriorityLevelConfiguration.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        status: true,
        generation: true,
        strategy: Arc::new(LevelRules),
        columns: columns(),
        ..describe::<PriorityLevelConfiguration>(Scope::Cluster)
    }
}

fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Type", "string", "Whether the level has a limit.", |o, _| {
            text(sub(o, "spec"), "type").into()
        }),
        column("NominalConcurrencyShares", "integer", "Its share of what may run.", |o, _| {
            get(sub(sub(o, "spec"), "limited"), "nominalConcurrencyShares")
                .cloned()
                .unwrap_or("<none>".into())
        }),
        column("Queues", "integer", "How many queues it has.", |o, _| queuing(o, "queues")),
        column("HandSize", "integer", "How many queues a flow may use.", |o, _| queuing(o, "handSize")),
        column("QueueLengthLimit", "integer", "How many may wait in a queue.", |o, _| {
            queuing(o, "queueLengthLimit")
        }),
        age_column(),
    ]
}

fn queuing(level: &Value, field: &str) -> Value {
    let response = sub(sub(sub(level, "spec"), "limited"), "limitResponse");
    get(sub(response, "queuing"), field).cloned().unwrap_or("<none>".into())
}

struct LevelRules;

impl Strategy for LevelRules {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        if text(spec, "type") == "Exempt"
            && let Some(exempt) = ensure(spec, "exempt")
        {
            default_to(exempt, "nominalConcurrencyShares", 0);
            default_to(exempt, "lendablePercent", 0);
        }
        let Some(limited) = object_mut(spec, "limited") else { return };
        default_to(limited, "nominalConcurrencyShares", 30);
        default_to(limited, "lendablePercent", 0);
        let response = object_mut(limited, "limitResponse");
        if let Some(queuing) = response.and_then(|response| object_mut(response, "queuing")) {
            default_int(queuing, "queues", 64);
            default_int(queuing, "handSize", 8);
            default_int(queuing, "queueLengthLimit", 50);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        drop_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        keep_other_half(object, old, cx);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let name = text(sub(object, "metadata"), "name");
        validate_spec(sub(object, "spec"), name, &Path::Root.child("spec"), &mut errors);
        super::validate_status(object, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, _: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource != Some("status") {
            return self.validate(object);
        }
        let mut errors = ErrorList::new();
        super::validate_status(object, &mut errors);
        errors
    }
}

fn validate_spec(spec: &Value, name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let kind = text(spec, "type");
    if (name == "exempt") != (kind == "Exempt") {
        let detail = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.invalid(&path.child("type"), kind, detail);
    }
    let (at_limited, at_exempt) = (path.child("limited"), path.child("exempt"));
    match kind {
        "Exempt" => {
            if get(spec, "limited").is_some() {
                errors.forbidden(&at_limited, "must be nil if the type is not Limited");
            }
            validate_shares(sub(spec, "exempt"), &at_exempt, errors);
        }
        "Limited" => {
            if get(spec, "exempt").is_some() {
                errors.forbidden(&at_exempt, "must be nil if the type is Limited");
            }
            match get(spec, "limited") {
                None => errors.required(&at_limited, "must not be empty when type is Limited"),
                Some(limited) => validate_limited(limited, &at_limited, errors),
            }
        }
        other => errors.not_supported(&path.child("type"), other, &["Exempt", "Limited"]),
    }
}

fn validate_shares(level: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(shares) = int(level, "nominalConcurrencyShares").filter(|n| *n < 0) {
        errors.invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
    if let Some(percent) = int(level, "lendablePercent").filter(|n| !(0..=100).contains(n)) {
        errors.invalid(&path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
}

fn validate_limited(limited: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_shares(limited, path, errors);
    if let Some(percent) = int(limited, "borrowingLimitPercent").filter(|n| *n < 0) {
        let detail = "if specified, must be a non-negative integer";
        errors.invalid(&path.child("borrowingLimitPercent"), percent, detail);
    }
    let response = sub(limited, "limitResponse");
    let at = path.child("limitResponse");
    let at_queuing = at.child("queuing");
    match (text(response, "type"), get(response, "queuing")) {
        ("Reject", None) => {}
        ("Reject", Some(_)) => {
            errors.forbidden(&at_queuing, "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Queue", None) => {
            errors.required(&at_queuing, "must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", Some(queuing)) => validate_queuing(queuing, &at_queuing, errors),
        (other, _) => errors.not_supported(&at.child("type"), other, &["Queue", "Reject"]),
    }
}

fn validate_queuing(queuing: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let number = |field: &str| int(queuing, field).unwrap_or(0);
    let (queues, hand, length) = (number("queues"), number("handSize"), number("queueLengthLimit"));
    if length <= 0 {
        errors.invalid(&path.child("queueLengthLimit"), length, "must be positive");
    }
    if queues <= 0 {
        errors.invalid(&path.child("queues"), queues, "must be positive");
    } else if queues > QUEUES_MAX {
        errors.invalid(&path.child("queues"), queues, &format!("must not be greater than {QUEUES_MAX}"));
    }
    let at_hand = path.child("handSize");
    if hand <= 0 {
        errors.invalid(&at_hand, hand, "must be positive");
    } else if hand > queues {
        errors.invalid(&at_hand, hand, &format!("should not be greater than queues ({queues})"));
    } else if entropy(queues, hand) > HASH_BITS {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        errors.invalid(&at_hand, hand, &detail);
    }
}

/// How many bits it takes to deal a hand of so many queues.
fn entropy(queues: i64, hand: i64) -> f64 {
    let mut bits = 0.0;
    for dealt in 0..hand {
        bits += ((queues - dealt) as f64).log2();
        // A hand may be as large as a number can be; enough is enough.
        if bits > HASH_BITS {
            break;
        }
    }
    bits.ceil()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts};
    use serde_json::json;

    #[test]
    fn levels_are_refused_in_upstreams_words() {
        let level = |name: &str, spec: Value| {
            let mut object = json!({"metadata": {"name": name}, "spec": spec});
            LevelRules.default(&mut object);
            object
        };
        let check = |name: &str, spec: Value, wanted: &[&str]| {
            assert_eq!(texts(&LevelRules.validate(&level(name, spec))), wanted);
        };
        let queue = |queuing: Value| json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}});
        check("l", queue(json!({})), &[]);
        check("exempt", json!({"type": "Exempt"}), &[]);
        check(
            "l",
            json!({"type": "Exempt", "limited": {}}),
            &[
                "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'",
                "spec.limited: Forbidden: must be nil if the type is not Limited",
            ],
        );
        check(
            "l",
            queue(json!({"queues": 4, "handSize": 5})),
            &[
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 5: should not be greater than queues (4)",
            ],
        );
        check(
            "l",
            queue(json!({"queues": 512, "handSize": 8})),
            &[
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize 512 and handSize 8 should not be greater than 60",
            ],
        );
        check(
            "l",
            json!({"type": "Limited", "limited": {"lendablePercent": 101, "limitResponse": {"type": "Drop"}}}),
            &[
                "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
                "spec.limited.limitResponse.type: Unsupported value: \"Drop\": supported values: \"Queue\", \"Reject\"",
            ],
        );
        assert_eq!(
            row(&columns(), &level("l", queue(json!({})))),
            json!(["l", "Limited", 30, 64, 8, 50, "<unknown>"])
        );
    }
}
