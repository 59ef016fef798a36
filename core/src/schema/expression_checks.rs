//! What a definition's own expressions and defaults have to be, before any object is checked by them.

use super::expressions::{self, Rule};
use super::node::{ListType, Node, Type};
use super::path::Path;
use crate::cel::{Program, REQUEST_BYTES_MAX};
use crate::field::{ErrorList, FieldError, FieldErrorKind, FieldPath};
use serde_json::Value;

/// What one expression may cost by its estimate.
const EXPRESSION_COST_MAX: u64 = 10_000_000;
/// What all expressions of a schema may cost by their estimates.
const SCHEMA_COST_MAX: u64 = 100_000_000;
/// How many of the dearest expressions are named where all together cost too much.
const DEAREST: usize = 4;
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Checks a schema's expressions and defaults; paths start at the schema itself.
pub(crate) fn check(root: &Node) -> ErrorList {
    let mut checks = Checks::default();
    checks.walk(root, &FieldPath::root(), Context { resource: true, times: Some(1), uncorrelated: None });
    checks.total();
    checks.errors
}

#[derive(Clone, Copy)]
struct Context<'c> {
    /// The node is the root of a resource.
    resource: bool,
    /// How often the rules of the node run at most, where the lists and maps around it are bounded.
    times: Option<u64>,
    /// The list around the node whose items are not told apart.
    uncorrelated: Option<&'c FieldPath>,
}

#[derive(Default)]
struct Checks {
    errors: ErrorList,
    costs: Vec<(FieldPath, u64)>,
}

impl Checks {
    fn walk(&mut self, node: &Node, at: &FieldPath, cx: Context<'_>) {
        self.default_value(node, at);
        self.expressions(node, at, cx);
        let times = |max: Option<u64>| Some(cx.times?.saturating_mul(max?));
        let rules = node.rules.as_deref();
        match &node.ty {
            Type::Struct(s) => {
                let mut names: Vec<_> = s.fields.keys().collect();
                names.sort();
                for name in names {
                    if let Some(field) = s.fields.get(name) {
                        let below = Context { resource: field.embedded, ..cx };
                        self.walk(field, &at.child("properties").key(name), below);
                    }
                }
                if let Some(inner) = &s.additional {
                    let times = times(rules.and_then(|r| r.max_properties));
                    let below = Context { resource: inner.embedded, times, ..cx };
                    self.walk(inner, &at.child("additionalProperties"), below);
                }
            }
            Type::Map(inner) => {
                let times = times(rules.and_then(|r| r.max_properties));
                let below = Context { resource: inner.embedded, times, ..cx };
                self.walk(inner, &at.child("additionalProperties"), below);
            }
            Type::List(item) => {
                let times = times(rules.and_then(|r| r.max_items));
                let uncorrelated = if node.list_type() == ListType::Map { cx.uncorrelated } else { Some(at) };
                let below = Context { resource: item.embedded, times, uncorrelated };
                self.walk(item, &at.child("items"), below);
            }
            _ => {}
        }
    }

    /// A default has to be an object that the schema takes as it is.
    fn default_value(&mut self, node: &Node, at: &FieldPath) {
        let Some(default) = node.default.as_deref() else { return };
        let at = at.child("default");
        let mut pruned = default.clone();
        super::prune::prune(node, &mut pruned, &Path::ROOT, &mut Vec::new());
        if pruned != *default {
            self.errors.push(FieldError::invalid(&at, default.clone(), "must not have unknown fields"));
        }
        if default.is_null() && node.nullable {
            return;
        }
        let mut found = super::validate::validate(node, default);
        if found.is_empty() {
            found = expressions::evaluate(node, default, None, &Path::ROOT).errors;
        }
        self.errors.extend(found.into_iter().map(|mut error| {
            error.field = match error.field.as_str() {
                "" => at.clone(),
                below if below.starts_with('[') => FieldPath::new(&format!("{}{below}", at.as_str())),
                below => at.child(below),
            };
            error
        }));
    }

    fn expressions(&mut self, node: &Node, at: &FieldPath, cx: Context<'_>) {
        let Some(rules) = node.rules.as_deref().filter(|r| !r.expressions.is_empty()) else { return };
        let at = at.child("x-kubernetes-validations");
        let before = self.errors.len();
        for (i, rule) in rules.expressions.iter().enumerate() {
            self.shape(node, rule, &at.index(i));
        }
        if self.errors.len() > before {
            return;
        }
        let Some(set) = node.rule_set(cx.resource) else {
            let detail = "rule declared on schema that does not support validation rules type";
            self.errors.push(FieldError::invalid(&at, node.json_type(), detail));
            return;
        };
        let times = cx.times.unwrap_or(REQUEST_BYTES_MAX / (set.decl.min_bytes + 1));
        for (i, (rule, raw)) in set.rules.iter().zip(&rules.expressions).enumerate() {
            self.compiled(rule, raw, &at.index(i), times, cx.uncorrelated);
        }
    }

    /// What a rule says beside its expression.
    fn shape(&mut self, node: &Node, rule: &Value, at: &FieldPath) {
        let text = |field: &str| rule.get(field).and_then(Value::as_str);
        let (own, message) = (text("rule").unwrap_or("").trim(), text("message").unwrap_or(""));
        let at_message = at.child("message");
        let mut add = |error: FieldError| self.errors.push(error);
        if own.is_empty() {
            add(FieldError::required(&at.child("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            add(FieldError::invalid(&at_message, message, "message must be non-empty if specified"));
        } else if message.trim().contains('\n') {
            add(FieldError::invalid(&at_message, message, "message must not contain line breaks"));
        } else if own.contains('\n') && message.is_empty() {
            add(FieldError::required(&at_message, "message must be specified if rule contains line breaks"));
        }
        if text("messageExpression").is_some_and(|t| !t.is_empty() && t.trim().is_empty()) {
            let detail = "messageExpression must be non-empty if specified";
            add(FieldError::required(&at.child("messageExpression"), detail));
        }
        if let Some(reason) = text("reason").filter(|r| !REASONS.contains(r)) {
            add(FieldError::not_supported(&at.child("reason"), reason, &REASONS));
        }
        let Some(path) = text("fieldPath").filter(|p| !p.is_empty()) else { return };
        let at = at.child("fieldPath");
        if path.trim().is_empty() {
            add(FieldError::invalid(&at, path, "fieldPath must be non-empty if specified"));
        }
        if path.contains('\n') {
            add(FieldError::invalid(&at, path, "fieldPath must not contain line breaks"));
        }
        if let Err(why) = follow(node, path.trim()) {
            add(FieldError::invalid(&at, path, &format!("fieldPath must be a valid path: {why}")));
        }
    }

    fn compiled(
        &mut self,
        rule: &Rule,
        raw: &Value,
        at: &FieldPath,
        times: u64,
        uncorrelated: Option<&FieldPath>,
    ) {
        let at_rule = at.child("rule");
        self.cost(rule.program.as_ref(), "estimated rule cost", &at_rule, times);
        if let Some(problem) = &rule.problem {
            self.errors.push(FieldError::invalid(&at_rule, raw.clone(), problem));
        }
        let at_message = at.child("messageExpression");
        match &rule.message_problem {
            Some(problem) => self.errors.push(FieldError::invalid(&at_message, raw.clone(), problem)),
            None => {
                self.cost(rule.message_program.as_ref(), "estimated messageExpression cost", &at_message, 1)
            }
        }
        if rule.uses_old {
            if let Some(list) = uncorrelated {
                let within = list.as_str();
                let detail = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {within}"
                );
                self.errors.push(FieldError::invalid(&at_rule, rule.text.as_str(), &detail));
            }
        } else if let Some(optional) = rule.optional_old.filter(|_| rule.problem.is_none()) {
            let detail = "may not be set if oldSelf is not used in rule";
            self.errors.push(FieldError::invalid(&at.child("optionalOldSelf"), optional, detail));
        }
    }

    fn cost(&mut self, program: Option<&Program>, what: &str, at: &FieldPath, times: u64) {
        let Some(program) = program else { return };
        let cost = program.cost().max.saturating_mul(times);
        if cost > EXPRESSION_COST_MAX {
            self.errors.push(FieldError::forbidden(at, &over(what, cost, EXPRESSION_COST_MAX)));
        }
        self.costs.push((at.clone(), cost));
    }

    fn total(&mut self) {
        let total = self.costs.iter().fold(0_u64, |sum, (_, cost)| sum.saturating_add(*cost));
        if total <= SCHEMA_COST_MAX {
            return;
        }
        self.costs.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        let detail =
            "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        for (at, _) in self.costs.iter().take(DEAREST).filter(|(_, cost)| *cost >= SCHEMA_COST_MAX / 100) {
            self.errors.push(FieldError::forbidden(at, detail));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        self.errors.push(FieldError::forbidden(&FieldPath::root(), &over(what, total, SCHEMA_COST_MAX)));
    }
}

#[expect(clippy::cast_precision_loss, reason = "only shown")]
fn over(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// Follows a path of names and quoted keys through a schema.
fn follow(node: &Node, path: &str) -> Result<(), String> {
    let (mut node, mut rest) = (node, path);
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix("['") {
            let end = after.find("']").ok_or("unexpected end of JSON path")?;
            name = &after[..end];
            rest = &after[end + 2..];
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            if end == 0 {
                return Err("unexpected end of JSON path".to_owned());
            }
            name = &after[..end];
            rest = &after[end..];
        } else {
            let end = rest.find(['.', '[', ']']).filter(|e| *e > 0).unwrap_or(rest.len());
            return Err(format!("expected [ or . but got: {}", &rest[..end]));
        }
        node = node.field(name).ok_or("does not refer to a valid field")?;
    }
    Ok(())
}

/// Whether errors of a schema's other rules keep its expressions from being run, and what is said then.
pub(crate) fn blocked(errors: &ErrorList) -> Option<FieldError> {
    use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    let blocks = |e: &FieldError| matches!(e.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid);
    let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
    errors.iter().any(blocks).then(|| FieldError::invalid(&FieldPath::root(), Value::Null, detail))
}
