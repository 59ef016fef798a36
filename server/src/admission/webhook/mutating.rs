//! Webhooks that change: asked one after the other, each about what those before it made, and again where others changed it since.

use super::call::Failure;
use super::review::Subject;
use super::{Invocation, Webhooks};
use crate::admission::matching::is_exempt;
use crate::admission::request::Before;
use crate::admission::{Admission, AdmissionRequest};
use crate::pipeline;
use futures::future::BoxFuture;
use kubewright_core::{ApiError, KindDescriptor, patch};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

const NAME: &str = "MutatingAdmissionWebhook";
const PATCHES: &str = "patch.webhook.admission.k8s.io";
const MUTATIONS: &str = "mutation.webhook.admission.k8s.io";

/// Upstream's plugin of this name.
pub struct MutatingWebhook(Arc<Webhooks>);

impl MutatingWebhook {
    pub(super) fn new(webhooks: Arc<Webhooks>) -> Self {
        MutatingWebhook(webhooks)
    }
}

impl fmt::Debug for MutatingWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MutatingWebhook({})", self.0.mutating.load().all.len())
    }
}

impl Admission for MutatingWebhook {
    fn name(&self) -> &'static str {
        NAME
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        if self.0.mutating.load().concerning(&request.resource.resource).is_empty() || is_exempt(request) {
            return Box::pin(std::future::ready(Ok(())));
        }
        Box::pin(self.run(request, object))
    }
}

impl MutatingWebhook {
    async fn run(
        &self,
        request: &AdmissionRequest<'_>,
        mut object: Option<&mut Value>,
    ) -> Result<(), ApiError> {
        let hooks = self.0.mutating.load_full();
        let mut before: Before = request.reinvocation.take(NAME).unwrap_or_default();
        let again = request.reinvocation.is_again();
        if again && before.output.as_ref() != object.as_deref() {
            // The server's own plugins changed it in their second run.
            before.require_again();
        }
        for at in hooks.concerning(&request.resource.resource) {
            let asked = self.0.invocation((*at, &hooks.all[*at]), request, object.as_deref()).await?;
            let Some(found) = asked else { continue };
            if again && !before.again.contains(&found.hook.uid) {
                continue;
            }
            let changed = self.one(&found, request, object.as_deref_mut()).await?;
            if changed {
                before.require_again();
                request.reinvocation.ask();
            }
            if found.hook.reinvoked {
                before.invoked.insert(found.hook.uid.clone());
            }
        }
        before.output = object.map(|o| o.clone());
        request.reinvocation.leave(NAME, before);
        Ok(())
    }

    /// Asks one webhook; whether it changed the object.
    async fn one(
        &self,
        invocation: &Invocation,
        request: &AdmissionRequest<'_>,
        object: Option<&mut Value>,
    ) -> Result<bool, ApiError> {
        let round = u8::from(request.reinvocation.is_again());
        let place = format!("round_{round}_index_{}", invocation.index);
        let hook = &invocation.hook;
        let mut about = json!({"configuration": hook.configuration.as_str(), "webhook": hook.name});
        let done = self.changed(invocation, request, object, &place).await;
        about["mutated"] = json!(matches!(done, Ok(true)));
        request.notes.annotate(format!("{MUTATIONS}/{place}"), about.to_string());
        match done {
            Ok(changed) => Ok(changed),
            Err(Failure::Call(why)) if hook.ignores_failure => {
                tracing::warn!(webhook = %hook.name, error = %why, "a webhook failed and is passed over");
                request.notes.annotate(format!("failed-open.{MUTATIONS}/{place}"), hook.name.as_str());
                Ok(false)
            }
            Err(failure) => Err(failure.into_error(hook)),
        }
    }

    async fn changed(
        &self,
        invocation: &Invocation,
        request: &AdmissionRequest<'_>,
        object: Option<&mut Value>,
        place: &str,
    ) -> Result<bool, Failure> {
        let hook = &invocation.hook;
        let kind = invocation.kind.as_deref().unwrap_or(request.kind);
        let (own, before);
        let subject = if invocation.kind.is_none() {
            own = None;
            Subject { kind, object: object.as_deref(), old: request.old }
        } else {
            own = self.0.converted(request.kind, kind, object.as_deref()).await.map_err(Failure::Refused)?;
            before = self.0.converted(request.kind, kind, request.old).await.map_err(Failure::Refused)?;
            Subject { kind, object: own.as_ref(), old: before.as_ref() }
        };
        let verdict = self.0.ask(invocation, request, &subject, true).await?;
        let Some(patch) = verdict.patch else { return Ok(false) };
        let patch: Value = serde_json::from_slice(&patch)
            .map_err(|e| Failure::Call(format!("received undecodable patch in webhook response: {e}")))?;
        if patch.as_array().is_some_and(Vec::is_empty) {
            return Ok(false);
        }
        let Some(object) = object else {
            let why = format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                hook.name
            );
            return Err(Failure::Refused(ApiError::internal(why)));
        };
        let current = own.unwrap_or_else(|| object.clone());
        let new = patched(kind, request.subresource, &current, &patch).map_err(Failure::Refused)?;
        let told = json!({"configuration": hook.configuration.as_str(), "webhook": hook.name, "patch": patch, "patchType": "JSONPatch"});
        request.notes.annotate(format!("{PATCHES}/{place}"), told.to_string());
        let changed = new != current;
        if changed {
            *object = match self
                .0
                .converted(kind, request.kind, Some(&new).filter(|_| invocation.kind.is_some()))
                .await
            {
                Ok(back) => back.unwrap_or(new),
                Err(e) => return Err(Failure::Refused(e)),
            };
        }
        Ok(changed)
    }
}

/// The object after a patch, decoded and with its defaults as if it had been sent so.
fn patched(
    kind: &KindDescriptor,
    subresource: Option<&str>,
    object: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    let mut new = object.clone();
    patch::json_patch(&mut new, patch).map_err(|e| ApiError::internal(e.message()))?;
    let sent = crate::admission::request::kind_of(kind, subresource);
    if sent.kind == kind.kind && sent.group == kind.group {
        if let Err(mismatch) = kind.schema.check_types(&new) {
            let (name, version) = (&kind.kind, kind.api_version());
            let why = format!("{name} in version {version:?} cannot be handled as a {name}: {mismatch}");
            return Err(ApiError::internal(why));
        }
        kind.schema.prune(&mut new);
        pipeline::default(kind, &mut new);
    }
    Ok(new)
}
