//! Policies that change.

use super::evaluate::{Asked, Pass, Stop, with_answers};
use super::input::{Input, namespace_object};
use super::table::{Binding, Definition};
use super::target::Seen;
use super::validating::{is_policy, refused};
use super::{Policies, params};
use crate::admission::request::Before;
use crate::admission::{Admission, AdmissionRequest};
use crate::pipeline;
use futures::future::BoxFuture;
use kubewright_core::cel::admission::MutationCode;
use kubewright_core::managed::merge_configuration;
use kubewright_core::{ApiError, KindDescriptor, patch};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

const NAME: &str = "MutatingAdmissionPolicy";

/// Upstream's plugin of this name.
pub struct MutatingPolicy(Arc<Policies>);

impl MutatingPolicy {
    pub(super) fn new(policies: Arc<Policies>) -> Self {
        MutatingPolicy(policies)
    }
}

impl fmt::Debug for MutatingPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MutatingPolicy({})", self.0.mutating.load().all.len())
    }
}

impl Admission for MutatingPolicy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let concerned = !self.0.mutating.load().concerning(&request.resource.resource).is_empty();
        match object {
            Some(object) if concerned && !is_policy(request) => Box::pin(self.run(request, object)),
            _ => Box::pin(std::future::ready(Ok(()))),
        }
    }
}

/// One policy with one binding and one set of parameters.
struct Invocation<'t> {
    definition: &'t Definition,
    binding: &'t Binding,
    params: Option<Value>,
    seen: Seen,
}

impl MutatingPolicy {
    async fn run(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> Result<(), ApiError> {
        let table = self.0.mutating.load_full();
        let mut before: Before = request.reinvocation.take(NAME).unwrap_or_default();
        let again = request.reinvocation.is_again();
        if again && before.output.as_ref() != Some(object) {
            before.require_again();
        }
        let mut asked = Asked::default();
        for at in table.concerning(&request.resource.resource) {
            let Some(policy) = table.all.get(*at) else { continue };
            for invocation in invocations(&policy.definition, &policy.bindings, request, object)? {
                let key = invocation.key();
                if again && !before.again.contains(&key) {
                    continue;
                }
                let changed = match self.one(&invocation, request, object, &mut asked).await {
                    Ok(changed) => changed,
                    Err(_) if invocation.definition.ignores_failure => continue,
                    Err(why) => {
                        let binding = Some(invocation.binding);
                        return Err(refusal(request, object, invocation.definition, binding, &why));
                    }
                };
                if changed {
                    before.require_again();
                    request.reinvocation.ask();
                }
                if invocation.definition.reinvoked {
                    before.invoked.insert(key);
                }
            }
        }
        before.output = Some(object.clone());
        request.reinvocation.leave(NAME, before);
        Ok(())
    }

    /// Applies one policy; whether it changed the object.
    async fn one(
        &self,
        invocation: &Invocation<'_>,
        request: &AdmissionRequest<'_>,
        object: &mut Value,
        asked: &mut Asked,
    ) -> Result<bool, String> {
        let namespace = namespace_object(request).map_err(|e| e.message().to_owned())?;
        let kind = match &invocation.seen {
            Seen::Own => None,
            Seen::As(kind) => Some(kind.clone()),
        };
        let told = |e: ApiError| e.message().to_owned();
        let (old, mut current) = match &kind {
            None => (request.old.cloned(), object.clone()),
            Some(kind) => {
                let old = self.0.converted(request.kind, kind, request.old).await.map_err(told)?;
                let own = self.0.converted(request.kind, kind, Some(object)).await.map_err(told)?;
                (old, own.unwrap_or_default())
            }
        };
        let first = current.clone();
        let code = &invocation.definition.code;
        let shape = kind.as_deref().unwrap_or(request.kind);
        for (i, mutation) in code.mutations.iter().enumerate() {
            let input = Input::of(request, shape, Some(&current), old.as_ref(), namespace.clone());
            let params = invocation.params.as_ref();
            let pass = |asked: &Asked| {
                let mut pass = Pass::new(code, &input, params, asked);
                if i == 0 && !pass.conditions(code)? {
                    return Ok(None);
                }
                let value = pass.eval(&mutation.expression)?;
                value.to_json().map(Some).ok_or_else(|| Stop::Error("the change is no JSON".to_owned()))
            };
            let made = with_answers(asked, &self.0.authorizer, request.user, pass).await;
            let Some(made) = made.map_err(|stop| stop.text())? else { return Ok(false) };
            current = changed(shape, request.subresource, &current, mutation, &made)?;
        }
        let changed = current != first;
        if changed {
            *object = match &kind {
                None => current,
                Some(kind) => {
                    let back = self.0.converted(kind, request.kind, Some(&current)).await;
                    back.map_err(told)?.unwrap_or_default()
                }
            };
        }
        Ok(changed)
    }
}

impl Invocation<'_> {
    fn key(&self) -> String {
        format!("{}/{}/{}", self.definition.name, self.binding.name, params::key(self.params.as_ref()))
    }
}

/// What there is to run of a policy.
///
/// # Errors
/// The refusal of a policy or binding that cannot be used.
fn invocations<'t>(
    definition: &'t Definition,
    bindings: &'t [Binding],
    request: &AdmissionRequest<'_>,
    object: &Value,
) -> Result<Vec<Invocation<'t>>, ApiError> {
    let failed = |binding: Option<&Binding>, why: &str| {
        if definition.ignores_failure {
            return Ok(());
        }
        let what = if binding.is_some() { "binding" } else { "policy" };
        Err(refusal(request, object, definition, binding, &format!("failed to configure {what}: {why}")))
    };
    let seen = match definition.target.matches(request, Some(object)) {
        Ok(Some(seen)) => seen,
        Ok(None) => return Ok(Vec::new()),
        Err(e) => return failed(None, e.message()).map(|()| Vec::new()),
    };
    if let Some(problem) = definition.problem() {
        return failed(None, problem).map(|()| Vec::new());
    }
    let mut found = Vec::new();
    for binding in bindings {
        let applies = binding
            .target
            .as_ref()
            .map_or(Ok(true), |t| t.matches(request, Some(object)).map(|s| s.is_some()));
        match applies.map_err(|e| e.message().to_owned()) {
            Ok(false) => {}
            Ok(true) => match params::collect(definition, binding, request) {
                Ok(params) => found.extend(params.into_iter().map(|params| Invocation {
                    definition,
                    binding,
                    params,
                    seen: seen.clone(),
                })),
                Err(why) => failed(Some(binding), &why)?,
            },
            Err(why) => failed(Some(binding), &why)?,
        }
    }
    Ok(found)
}

fn refusal(
    request: &AdmissionRequest<'_>,
    object: &Value,
    definition: &Definition,
    binding: Option<&Binding>,
    why: &str,
) -> ApiError {
    let with = binding.map_or_else(String::new, |b| format!(" with binding '{}'", b.name));
    let message = format!("policy '{}'{with} denied request: {why}", definition.name);
    refused(request, Some(object), &message, "")
}

/// The object after a mutation, decoded and with its defaults as if it had been sent so.
fn changed(
    kind: &KindDescriptor,
    subresource: Option<&str>,
    object: &Value,
    mutation: &MutationCode,
    made: &Value,
) -> Result<Value, String> {
    let mut new = if mutation.json_patch {
        let mut new = object.clone();
        patch::json_patch(&mut new, made).map_err(|e| format!("JSON Patch: {}", e.message()))?;
        new
    } else {
        merge_configuration(&kind.schema, object, made)?
    };
    let sent = crate::admission::request::kind_of(kind, subresource);
    if sent.kind == kind.kind && sent.group == kind.group {
        kind.schema.check_types(&new).map_err(|mismatch| mismatch.to_string())?;
        let unknown = kind.schema.prune(&mut new);
        if let Some(field) = unknown.first().filter(|_| !mutation.json_patch) {
            return Err(format!("error applying patch: .{field}: field not declared in schema"));
        }
        pipeline::default(kind, &mut new);
    }
    Ok(new)
}
