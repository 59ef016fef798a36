//! Webhooks that check: all that concern a write are asked at once.

use super::call::Failure;
use super::review::Subject;
use super::{Invocation, Webhooks};
use crate::admission::matching::is_exempt;
use crate::admission::{Admission, AdmissionRequest};
use futures::future::{BoxFuture, join_all};
use kubewright_core::ApiError;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// Upstream's plugin of this name.
pub struct ValidatingWebhook(Arc<Webhooks>);

impl ValidatingWebhook {
    pub(super) fn new(webhooks: Arc<Webhooks>) -> Self {
        ValidatingWebhook(webhooks)
    }
}

impl fmt::Debug for ValidatingWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValidatingWebhook({})", self.0.validating.load().all.len())
    }
}

impl Admission for ValidatingWebhook {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        if self.0.validating.load().concerning(&request.resource.resource).is_empty() || is_exempt(request) {
            return Box::pin(std::future::ready(Ok(())));
        }
        let hooks = self.0.validating.load_full();
        Box::pin(async move {
            let mut asked = Vec::new();
            for at in hooks.concerning(&request.resource.resource) {
                asked.extend(self.0.invocation((*at, &hooks.all[*at]), request, object).await?);
            }
            let answers = join_all(asked.iter().map(|i| self.one(i, request, object))).await;
            // Every webhook has had its say; the first refusal is told.
            answers.into_iter().collect()
        })
    }
}

impl ValidatingWebhook {
    async fn one(
        &self,
        invocation: &Invocation,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let kind = invocation.kind.as_deref().unwrap_or(request.kind);
        let (own, before);
        let subject = if invocation.kind.is_none() {
            Subject { kind, object, old: request.old }
        } else {
            own = self.0.converted(request.kind, kind, object).await?;
            before = self.0.converted(request.kind, kind, request.old).await?;
            Subject { kind, object: own.as_ref(), old: before.as_ref() }
        };
        match self.0.ask(invocation, request, &subject, false).await {
            Ok(_) => Ok(()),
            Err(Failure::Call(why)) if invocation.hook.ignores_failure => {
                tracing::warn!(webhook = %invocation.hook.name, error = %why, "a webhook failed and is passed over");
                let key = format!(
                    "failed-open.validating.webhook.admission.k8s.io/round_0_index_{}",
                    invocation.index
                );
                request.notes.annotate(key, invocation.hook.name.as_str());
                Ok(())
            }
            Err(failure) => Err(failure.into_error(&invocation.hook)),
        }
    }
}
