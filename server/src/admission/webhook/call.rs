//! One call of one webhook.

use super::hook::{Hook, ReviewVersion};
use super::review::{self, Subject, Verdict};
use super::{Invocation, Webhooks};
use crate::admission::AdmissionRequest;
use crate::outbound::{Answer, refused};
use kubewright_core::ApiError;
use std::time::Duration;

/// The largest answer that is read, in bytes: a patch of the largest object, in base64, and room around it.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How asking a webhook ended badly.
pub(super) enum Failure {
    /// It could not be asked, or gave no proper answer: its failure policy says what follows.
    Call(String),
    /// The request is refused whatever the failure policy says.
    Refused(ApiError),
}

impl Failure {
    /// 500 for a failed call, in upstream's words.
    pub(super) fn into_error(self, hook: &Hook) -> ApiError {
        match self {
            Failure::Refused(error) => error,
            Failure::Call(why) => {
                ApiError::internal(format!("failed calling webhook {:?}: {why}", hook.name))
            }
        }
    }
}

impl Webhooks {
    /// Asks a webhook about what is under review, and notes what it remarks.
    pub(super) async fn ask(
        &self,
        invocation: &Invocation,
        request: &AdmissionRequest<'_>,
        subject: &Subject<'_>,
        mutating: bool,
    ) -> Result<Verdict, Failure> {
        let hook = &*invocation.hook;
        if request.dry_run {
            match hook.dry_runs {
                None => return Err(Failure::Call("Webhook SideEffects is nil".to_owned())),
                Some(false) => {
                    let why = format!("admission webhook {:?} does not support dry run", hook.name);
                    return Err(Failure::Refused(ApiError::bad_request(why)));
                }
                Some(true) => {}
            }
        }
        let version = hook.version.ok_or_else(|| {
            let why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)";
            Failure::Call(format!("could not create admission objects: {why}"))
        })?;
        let uid = self.entropy.uid();
        let document = review::request(version, &uid, request, subject).map_err(Failure::Refused)?;
        let answer = self.post(hook, document).await.map_err(Failure::Call)?;
        let verdict = read(version, &uid, mutating, &answer).map_err(Failure::Call)?;
        for (key, value) in &verdict.annotations {
            request.notes.annotate(format!("{}/{key}", hook.name), value.as_str());
        }
        for warning in &verdict.warnings {
            request.notes.warn(warning.as_str());
        }
        if !verdict.allowed {
            return Err(Failure::Refused(review::denied(&hook.name, verdict.status)));
        }
        Ok(verdict)
    }

    async fn post(&self, hook: &Hook, document: bytes::Bytes) -> Result<Answer, String> {
        let unusable = |why: &dyn std::fmt::Display| format!("could not get REST client: {why}");
        let endpoint = hook.endpoint.as_ref().map_err(|why| unusable(why))?;
        let client = self.outbound.client(&endpoint.destination).map_err(|e| unusable(&e))?;
        let path = with_timeout(&endpoint.path, hook.timeout);
        let answer = client.post(&path, document, None, hook.timeout, ANSWER_BYTES_MAX).await;
        answer.map_err(|e| format!("failed to call webhook: Post \"{}\": {e}", client.url(&path)))
    }
}

/// Tells the other side how long it has.
fn with_timeout(path: &str, timeout: Duration) -> String {
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("{path}{mark}timeout={}s", timeout.as_secs())
}

fn read(version: ReviewVersion, uid: &str, mutating: bool, answer: &Answer) -> Result<Verdict, String> {
    if !(200..300).contains(&answer.status) {
        return Err(format!("failed to call webhook: {}", refused(answer)));
    }
    review::verdict(version, uid, mutating, &answer.body)
        .map_err(|why| format!("received invalid webhook response: {why}"))
}
