//! Policies that check.

use super::evaluate::{Asked, Pass, Stop, with_answers};
use super::input::{Input, namespace_object};
use super::table::{Binding, Definition, Policy};
use super::target::Seen;
use super::{Policies, params};
use crate::admission::{Admission, AdmissionRequest};
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause};
use kubewright_core::cel::Val;
use kubewright_core::cel::admission::{MESSAGE_BYTES_MAX, PolicyCode, ValidationCode};
use kubewright_core::{ApiError, Reason, meta};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The longest value of an audit annotation, in bytes.
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";

/// Upstream's plugin of this name.
pub struct ValidatingPolicy(Arc<Policies>);

impl ValidatingPolicy {
    pub(super) fn new(policies: Arc<Policies>) -> Self {
        ValidatingPolicy(policies)
    }
}

impl fmt::Debug for ValidatingPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValidatingPolicy({})", self.0.validating.load().all.len())
    }
}

impl Admission for ValidatingPolicy {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        if self.0.validating.load().concerning(&request.resource.resource).is_empty() || is_policy(request) {
            return Box::pin(std::future::ready(Ok(())));
        }
        Box::pin(self.run(request, object))
    }
}

/// Nothing may keep policies themselves from being mended.
pub(super) fn is_policy(request: &AdmissionRequest<'_>) -> bool {
    let kinds = [super::VALIDATING, super::MUTATING];
    request.resource.group == super::GROUP
        && kinds
            .iter()
            .any(|k| request.resource.resource == k.policies || request.resource.resource == k.bindings)
}

/// A refusal.
struct Denied {
    binding: Option<String>,
    policy: String,
    message: String,
    reason: String,
}

/// What one evaluation decided.
enum Decided {
    Admit,
    Deny { message: String, reason: String },
}

/// What a policy says of a write with one set of parameters.
#[derive(Default)]
struct Verdict {
    decisions: Vec<Decided>,
    /// Values for the audit log.
    annotations: Vec<(String, Result<String, String>)>,
}

impl ValidatingPolicy {
    async fn run(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> Result<(), ApiError> {
        let table = self.0.validating.load_full();
        let mut denied = Vec::new();
        let mut asked = Asked::default();
        for at in table.concerning(&request.resource.resource) {
            let Some(policy) = table.all.get(*at) else { continue };
            self.policy(policy, request, object, &mut asked, &mut denied).await?;
        }
        match denied.into_iter().next() {
            Some(first) => Err(refusal(request, object, &first)),
            None => Ok(()),
        }
    }

    async fn policy(
        &self,
        policy: &Policy,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
        asked: &mut Asked,
        denied: &mut Vec<Denied>,
    ) -> Result<(), ApiError> {
        let definition = &policy.definition;
        let seen = match definition.target.matches(request, object) {
            Ok(None) => return Ok(()),
            Ok(Some(seen)) => seen,
            Err(e) => {
                misconfigured(definition, None, e.message(), denied);
                return Ok(());
            }
        };
        if let Some(problem) = definition.problem() {
            misconfigured(definition, None, problem, denied);
            return Ok(());
        }
        let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for binding in &policy.bindings {
            let applies =
                binding.target.as_ref().map_or(Ok(true), |t| t.matches(request, object).map(|s| s.is_some()));
            let params = match applies.map_err(|e| e.message().to_owned()) {
                Ok(false) => continue,
                Ok(true) => params::collect(definition, binding, request),
                Err(why) => Err(why),
            };
            let params = match params {
                Ok(params) => params,
                Err(why) => {
                    misconfigured(definition, Some(binding), &why, denied);
                    continue;
                }
            };
            for params in params {
                let verdict =
                    self.verdict(definition, request, object, &seen, params.as_ref(), asked).await?;
                settle(definition, binding, request, verdict, &mut annotations, denied);
            }
        }
        for (key, values) in annotations {
            request.notes.annotate(format!("{}/{key}", definition.name), values.join(", "));
        }
        Ok(())
    }

    async fn verdict(
        &self,
        definition: &Definition,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
        seen: &Seen,
        params: Option<&Value>,
        asked: &mut Asked,
    ) -> Result<Verdict, ApiError> {
        let namespace = namespace_object(request)?;
        let (kind, own, before);
        let input = match seen {
            Seen::Own => Input::of(request, request.kind, object, request.old, namespace),
            Seen::As(other) => {
                kind = other.clone();
                own = self.0.converted(request.kind, &kind, object).await?;
                before = self.0.converted(request.kind, &kind, request.old).await?;
                Input::of(request, &kind, own.as_ref(), before.as_ref(), namespace)
            }
        };
        let code = &definition.code;
        let pass = |asked: &Asked| {
            judge(code, definition.ignores_failure, &mut Pass::new(code, &input, params, asked))
        };
        let verdict = with_answers(asked, &self.0.authorizer, request.user, pass).await;
        Ok(verdict.unwrap_or_else(|stop| Verdict {
            decisions: vec![on_error(definition.ignores_failure, stop.text())],
            annotations: Vec::new(),
        }))
    }
}

fn on_error(ignores: bool, message: String) -> Decided {
    if ignores { Decided::Admit } else { Decided::Deny { message, reason: String::new() } }
}

/// Runs all that a policy says.
fn judge<'v>(code: &'v PolicyCode, ignores: bool, pass: &mut Pass<'v>) -> Result<Verdict, Stop> {
    match pass.conditions(code) {
        Ok(true) => {}
        Ok(false) => return Ok(Verdict::default()),
        Err(Stop::Error(_)) if ignores => return Ok(Verdict::default()),
        Err(stop) => return Err(stop),
    }
    let mut verdict = Verdict::default();
    for validation in &code.validations {
        let decided = match pass.eval(&validation.expression) {
            Ok(Val::Bool(true)) => Decided::Admit,
            Ok(_) => {
                let message = message(validation, pass)?;
                Decided::Deny { message, reason: validation.reason.clone() }
            }
            Err(Stop::Error(why)) => on_error(ignores, why),
            Err(stop) => return Err(stop),
        };
        verdict.decisions.push(decided);
    }
    for (key, expression) in &code.annotations {
        let value = match pass.eval(expression) {
            Ok(Val::Text(text)) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            Ok(Val::Text(_) | Val::Null) => continue,
            Ok(_) => Err(format!(
                "valueExpression '{}' resulted in unsupported return type. Return type must be either string or null.",
                expression.text
            )),
            Err(Stop::Error(_)) if ignores => continue,
            Err(Stop::Error(why)) => Err(why),
            Err(stop) => return Err(stop),
        };
        verdict.annotations.push((key.clone(), value));
    }
    Ok(verdict)
}

fn message<'v>(validation: &'v ValidationCode, pass: &mut Pass<'v>) -> Result<String, Stop> {
    if let Some(expression) = &validation.message_expression {
        match pass.eval(expression) {
            Ok(Val::Text(text)) => {
                let text = text.trim();
                if !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n') {
                    return Ok(text.to_owned());
                }
            }
            Ok(_) | Err(Stop::Error(_)) => {}
            Err(Stop::Budget) => {
                return Err(Stop::Error(format!("failed messageExpression: {}", Stop::Budget.text())));
            }
            Err(stop) => return Err(stop),
        }
    }
    Ok(match validation.message.as_str() {
        "" => format!("failed expression: {}", validation.expression.text),
        message => message.to_owned(),
    })
}

fn misconfigured(definition: &Definition, binding: Option<&Binding>, why: &str, denied: &mut Vec<Denied>) {
    if definition.ignores_failure {
        return;
    }
    let what = if binding.is_some() { "binding" } else { "policy" };
    denied.push(Denied {
        binding: binding.map(|b| b.name.clone()),
        policy: definition.name.clone(),
        message: format!("failed to configure {what}: {why}"),
        reason: String::new(),
    });
}

/// What follows of a verdict by the actions of the binding.
fn settle(
    definition: &Definition,
    binding: &Binding,
    request: &AdmissionRequest<'_>,
    verdict: Verdict,
    annotations: &mut BTreeMap<String, Vec<String>>,
    denied: &mut Vec<Denied>,
) {
    let refuse = |message: String, reason: String| Denied {
        binding: Some(binding.name.clone()),
        policy: definition.name.clone(),
        message,
        reason,
    };
    for (i, decision) in verdict.decisions.into_iter().enumerate() {
        let Decided::Deny { message, reason } = decision else { continue };
        if binding.audit {
            let told = json!([{"message": message, "policy": definition.name, "binding": binding.name,
                "expressionIndex": i, "validationActions": binding.actions}]);
            request.notes.annotate(FAILURES, told.to_string());
        }
        if binding.warn {
            request.notes.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                definition.name, binding.name
            ));
        }
        if binding.deny {
            denied.push(refuse(message, reason));
        }
    }
    for (key, value) in verdict.annotations {
        match value {
            Ok(mut value) => {
                let end =
                    (0..=ANNOTATION_BYTES_MAX.min(value.len())).rev().find(|i| value.is_char_boundary(*i));
                value.truncate(end.unwrap_or(0));
                let values = annotations.entry(key).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            Err(why) => denied.push(refuse(why, String::new())),
        }
    }
}

fn refusal(request: &AdmissionRequest<'_>, object: Option<&Value>, denied: &Denied) -> ApiError {
    let who = match &denied.binding {
        Some(binding) => format!("ValidatingAdmissionPolicy '{}' with binding '{binding}'", denied.policy),
        None => format!("ValidatingAdmissionPolicy '{}'", denied.policy),
    };
    let message = format!("{who} denied request: {}", denied.message);
    refused(request, object, &message, &denied.reason)
}

/// A refusal with a reason of its own; 422 where none is given.
pub(super) fn refused(
    request: &AdmissionRequest<'_>,
    object: Option<&Value>,
    message: &str,
    reason: &str,
) -> ApiError {
    let name = if request.name.is_empty() { object.map_or("", meta::name) } else { request.name };
    let error = ApiError::forbidden(&request.resource.group, &request.resource.resource, name, message);
    let reason = match reason {
        "" => Reason::Invalid,
        known => Reason::parse(known),
    };
    let mut status: Status = error.status().clone();
    status.reason = Some(reason.as_str().to_owned());
    status.code = Some(i32::from(reason.code()));
    if let Some(details) = &mut status.details {
        let cause = StatusCause { message: Some(message.to_owned()), ..StatusCause::default() };
        details.causes.get_or_insert_with(Vec::new).push(cause);
    }
    ApiError::from_status(status)
}
