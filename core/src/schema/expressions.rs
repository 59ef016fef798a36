//! The rules of a schema that are expressions (`x-kubernetes-validations`): compiled once at their node, run on every write.

use super::node::{ListType, Node, Type};
use super::path::Path;
use crate::cel::{Decl, Env, Evaluation, Fault, FaultKind, PER_CALL_LIMIT, Program, Type as Cel, Val};
use crate::field::{ErrorList, FieldError, FieldPath};
use serde_json::Value;
use std::sync::Arc;

/// What all the rules of an object may cost together.
const OBJECT_BUDGET: u64 = 10_000_000;
/// The longest message that an expression may give.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

const SELF: usize = 0;
const OLD_SELF: usize = 1;

/// The compiled rules of one node.
#[derive(Debug)]
pub(crate) struct RuleSet {
    pub(crate) decl: Decl,
    pub(crate) rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Default)]
pub(crate) struct Rule {
    pub(crate) text: String,
    pub(crate) message: String,
    pub(crate) message_text: String,
    pub(crate) reason: String,
    pub(crate) field_path: String,
    /// `optionalOldSelf`, where it is stated.
    pub(crate) optional_old: Option<bool>,
    /// Nothing for an empty rule, or one that did not compile.
    pub(crate) program: Option<Program>,
    pub(crate) message_program: Option<Program>,
    /// Why the rule or its message does not compile.
    pub(crate) problem: Option<String>,
    pub(crate) message_problem: Option<String>,
    pub(crate) uses_old: bool,
}

impl Node {
    /// The compiled rules that stand at this node.
    pub(crate) fn rule_set(&self, resource: bool) -> Option<&RuleSet> {
        let rules = self.rules.as_deref().filter(|r| !r.expressions.is_empty())?;
        rules.compiled.get_or_init(|| compile(self, &rules.expressions, resource).map(Box::new)).as_deref()
    }
}

fn compile(node: &Node, expressions: &[Value], resource: bool) -> Option<RuleSet> {
    let decl = super::decl::decl(node, resource)?;
    let shared = Arc::new(decl.clone());
    let plain = Env::new().with_shared("self", shared.clone()).with_shared("oldSelf", shared.clone());
    let optional =
        Env::new().with_shared("self", shared.clone()).with("oldSelf", Decl::of(Cel::Optional(shared)));
    let rules = expressions
        .iter()
        .map(|rule| {
            let optional_old = rule.get("optionalOldSelf").and_then(Value::as_bool);
            compile_rule(rule, optional_old, if optional_old == Some(true) { &optional } else { &plain })
        })
        .collect();
    Some(RuleSet { decl, rules })
}

fn compile_rule(rule: &Value, optional_old: Option<bool>, env: &Env) -> Rule {
    let text = |field: &str| rule.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    let mut out = Rule {
        text: text("rule").trim().to_owned(),
        message: text("message").trim().to_owned(),
        message_text: text("messageExpression").trim().to_owned(),
        reason: text("reason"),
        field_path: text("fieldPath"),
        optional_old,
        ..Rule::default()
    };
    if out.text.is_empty() {
        return out;
    }
    match env.compile(&text("rule")) {
        Err(why) => out.problem = Some(format!("compilation failed: {why}")),
        Ok(program) if !matches!(program.ty(), Cel::Bool) => {
            out.problem = Some("cel expression must evaluate to a bool".to_owned());
        }
        Ok(program) => {
            out.uses_old = program.uses(OLD_SELF);
            out.program = Some(program);
        }
    }
    if !out.message_text.is_empty() {
        match env.compile(&text("messageExpression")) {
            Err(why) => out.message_problem = Some(format!("messageExpression compilation failed: {why}")),
            Ok(program) if !matches!(program.ty(), Cel::Text) => {
                out.message_problem = Some("messageExpression must evaluate to a string".to_owned());
            }
            Ok(program) => {
                out.uses_old |= program.uses(OLD_SELF);
                out.message_program = Some(program);
            }
        }
    }
    out
}

impl Rule {
    /// The rule as errors name it.
    fn shown(&self) -> &str {
        if self.message.is_empty() { &self.text } else { &self.message }
    }
}

/// What the rules of an object said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) errors: ErrorList,
    /// Errors of values that were there before and did not change.
    pub(crate) tolerated: Vec<String>,
}

/// Runs the rules at and below a node.
pub(crate) fn evaluate(node: &Node, value: &Value, old: Option<&Value>, at: &Path<'_>) -> Said {
    let mut run = Run { budget: OBJECT_BUDGET, said: Said::default() };
    // An error ends the walk: nothing more may be spent.
    let _ended = run.walk(node, Place { value, old, near: (value, old) }, true, at);
    run.said
}

/// A value with the one it replaces, and the nearest value around it that has one.
#[derive(Clone, Copy)]
struct Place<'v> {
    value: &'v Value,
    old: Option<&'v Value>,
    near: (&'v Value, Option<&'v Value>),
}

impl<'v> Place<'v> {
    fn below(self, value: &'v Value, old: Option<&'v Value>) -> Place<'v> {
        Place { value, old, near: if old.is_some() { (value, old) } else { self.near } }
    }

    fn is_unchanged(self) -> bool {
        self.near.1 == Some(self.near.0)
    }
}

/// There is nothing left to spend.
struct Ended;

struct Run {
    budget: u64,
    said: Said,
}

impl Run {
    fn walk(&mut self, node: &Node, place: Place<'_>, resource: bool, at: &Path<'_>) -> Result<(), Ended> {
        if !node.rules_below || place.value.is_null() {
            return Ok(());
        }
        if let Some(set) = node.rule_set(resource) {
            self.rules(set, node, place, at)?;
        }
        match (&node.ty, place.value) {
            (Type::Struct(s), Value::Object(map)) => {
                for (name, value) in map {
                    let old = place.old.and_then(|o| o.get(name));
                    if let Some(field) = s.fields.get(name.as_str()) {
                        self.walk(field, place.below(value, old), field.embedded, &at.field(name))?;
                    } else if let Some(inner) = &s.additional {
                        self.walk(inner, place.below(value, old), inner.embedded, &at.key(name))?;
                    }
                }
            }
            (Type::Map(inner), Value::Object(map)) => {
                for (name, value) in map {
                    let old = place.old.and_then(|o| o.get(name));
                    self.walk(inner, place.below(value, old), inner.embedded, &at.key(name))?;
                }
            }
            (Type::List(item), Value::Array(list)) => {
                for (i, value) in list.iter().enumerate() {
                    let old = old_item(node, place.old, value);
                    self.walk(item, place.below(value, old), item.embedded, &at.index(i))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rules(&mut self, set: &RuleSet, node: &Node, place: Place<'_>, at: &Path<'_>) -> Result<(), Ended> {
        let ty = node.json_type();
        for rule in &set.rules {
            if let Some(problem) = &rule.problem {
                let detail = format!("rule compile error: {problem}");
                self.said.errors.push(FieldError::invalid(&at.to_spec(), ty, &detail));
                continue;
            }
            let Some(program) = &rule.program else { continue };
            let optional = rule.optional_old == Some(true);
            if rule.uses_old && place.old.is_none() && !optional {
                continue;
            }
            let mut run = Evaluation::new(PER_CALL_LIMIT);
            run.set(SELF, Val::from_json(place.value, &set.decl));
            if rule.uses_old {
                let old = place.old.map(|old| Val::from_json(old, &set.decl));
                let old = if optional { Val::Optional(old.map(Arc::new)) } else { old.unwrap_or(Val::Null) };
                run.set(OLD_SELF, old);
            }
            let result = run.test(program);
            let spent = run.cost();
            if spent > self.budget {
                return Err(self.spent(at, ty));
            }
            self.budget -= spent;
            match result {
                Ok(true) => {}
                Ok(false) => self.broken(rule, &mut run, place, at, ty)?,
                Err(fault) => self.failed(rule, &fault, at, ty)?,
            }
        }
        Ok(())
    }

    fn spent(&mut self, at: &Path<'_>, ty: &str) -> Ended {
        let detail =
            "validation failed due to running out of cost budget, no further validation rules will be run";
        self.said.errors.push(FieldError::invalid(&at.to_spec(), ty, detail));
        Ended
    }

    fn failed(&mut self, rule: &Rule, fault: &Fault, at: &Path<'_>, ty: &str) -> Result<(), Ended> {
        let shown = rule.shown();
        let (detail, end) = match fault.kind() {
            FaultKind::Budget => (
                format!(
                    "'{fault}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
                ),
                true,
            ),
            _ if fault.to_string().starts_with("no such overload") => (
                format!(
                    "'{fault}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
                ),
                false,
            ),
            _ => (format!("{fault} evaluating rule: {shown}"), false),
        };
        self.said.errors.push(FieldError::invalid(&at.to_spec(), ty, &detail));
        if end { Err(Ended) } else { Ok(()) }
    }

    fn broken<'v>(
        &mut self,
        rule: &'v Rule,
        run: &mut Evaluation<'v>,
        place: Place<'_>,
        at: &Path<'_>,
        ty: &str,
    ) -> Result<(), Ended> {
        let field = FieldPath::new(&join(at.to_spec().as_str(), &normal_path(&rule.field_path)));
        let mut detail = None;
        if let Some(program) = &rule.message_program {
            let message = run.run(program);
            let spent = run.cost();
            let stop = if spent > self.budget {
                Some("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".to_owned())
            } else if message.as_ref().is_err_and(|f| *f.kind() == FaultKind::Budget) {
                Some(format!(
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                    rule.message_text
                ))
            } else {
                None
            };
            if let Some(why) = stop {
                self.say(rule, place, FieldError::invalid(&field, ty, &why));
                return Err(Ended);
            }
            self.budget -= spent;
            detail = message.ok().and_then(|value| usable(&value));
        }
        let detail = detail.unwrap_or_else(|| match rule.message.as_str() {
            "" => format!("failed rule: {}", rule.text),
            message => message.to_owned(),
        });
        self.say(rule, place, error(&rule.reason, &field, ty, &detail));
        Ok(())
    }

    fn say(&mut self, rule: &Rule, place: Place<'_>, error: FieldError) {
        if !rule.uses_old && place.is_unchanged() {
            self.said.tolerated.push(error.to_string());
        } else {
            self.said.errors.push(error);
        }
    }
}

/// What an expression says as a message, where it is one.
fn usable(value: &Val<'_>) -> Option<String> {
    let Val::Text(text) = value else { return None };
    let text = text.trim();
    (!text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n')).then(|| text.to_owned())
}

fn error(reason: &str, field: &FieldPath, ty: &str, detail: &str) -> FieldError {
    match reason {
        "FieldValueForbidden" => FieldError::forbidden(field, detail),
        "FieldValueRequired" => FieldError::required(field, detail),
        "FieldValueDuplicate" => FieldError::duplicate(field, ty),
        _ => FieldError::invalid(field, ty, detail),
    }
}

fn join(path: &str, below: &str) -> String {
    match (path.is_empty(), below.is_empty()) {
        (_, true) => path.to_owned(),
        (true, false) => below.to_owned(),
        (false, false) if below.starts_with('[') => format!("{path}{below}"),
        (false, false) => format!("{path}.{below}"),
    }
}

/// A rule's own field path (`.spec['a b'].c`) as errors write it.
fn normal_path(path: &str) -> String {
    let path = path.trim();
    path.strip_prefix('.').unwrap_or(path).replace("['", "[").replace("']", "]")
}

/// The item of the list before that an item continues: only lists of type map tell.
pub(crate) fn old_item<'v>(node: &Node, old: Option<&'v Value>, item: &Value) -> Option<&'v Value> {
    if node.list_type() != ListType::Map {
        return None;
    }
    old?.as_array()?.iter().find(|o| node.map_keys().all(|key| o.get(key) == item.get(key)))
}
