//! The match conditions of webhooks.

use super::AuthorizerSlot;
use super::evaluate::{Asked, Pass, with_answers};
use super::input::Input;
use crate::admission::AdmissionRequest;
use kubewright_core::KindDescriptor;
use kubewright_core::cel::admission::{PolicyCode, compile_conditions};
use serde_json::Value;

/// Compiled match conditions.
#[derive(Debug, Default)]
pub(crate) struct MatchConditions(PolicyCode);

impl MatchConditions {
    /// Compiles the `matchConditions` of a webhook.
    pub(crate) fn compile(webhook: &Value) -> Self {
        MatchConditions(compile_conditions(webhook))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.conditions.is_empty() && self.0.problems.is_empty()
    }

    /// Whether they hold for a request about objects of `kind`. A webhook that ignores failures is not asked where that can't be told.
    ///
    /// # Errors
    /// Why that can't be told, in upstream's words.
    pub(crate) async fn check(
        &self,
        request: &AdmissionRequest<'_>,
        kind: &KindDescriptor,
        object: Option<&Value>,
        old: Option<&Value>,
        authorizer: &AuthorizerSlot,
        ignores_failure: bool,
    ) -> Result<bool, String> {
        if self.is_empty() {
            return Ok(true);
        }
        let result = match self.0.problems.first() {
            Some(problem) => Err(problem.detail.clone()),
            None => {
                let input = Input::of(request, kind, object, old, Value::Null);
                let pass = |asked: &Asked| Pass::new(&self.0, &input, None, asked).conditions(&self.0);
                let mut asked = Asked::default();
                let found = with_answers(&mut asked, authorizer, request.user, pass).await;
                found.map_err(|stop| stop.text())
            }
        };
        match result {
            Err(_) if ignores_failure => Ok(false),
            other => other,
        }
    }
}
