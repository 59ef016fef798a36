//! Authorization as a layer around the API service, so that callers in the same process pass it too.

use super::authorizer::{Attributes, Authorizer, Decision};
use super::counts::AuthorizationCounts;
use futures::future::BoxFuture;
use kubewright_core::{ApiError, ApiRequest, ApiResponse, Notes, Target, Verb};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tower::{Layer, Service};

/// Puts an [`Authorizer`] in front of a service over [`ApiRequest`].
#[derive(Clone)]
pub struct AuthorizationLayer(Arc<dyn Authorizer>, Arc<AuthorizationCounts>);

impl AuthorizationLayer {
    /// Asks this authorizer about every request.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        AuthorizationLayer(authorizer, Arc::default())
    }

    /// Counts what was decided here.
    pub(crate) fn counting(mut self, counts: Arc<AuthorizationCounts>) -> Self {
        self.1 = counts;
        self
    }
}

impl fmt::Debug for AuthorizationLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorizationLayer")
    }
}

impl<S> Layer<S> for AuthorizationLayer {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { inner, authorizer: self.0.clone(), counts: self.1.clone() }
    }
}

/// A service that is called only for what the user may do.
#[derive(Clone)]
pub struct Authorized<S> {
    inner: S,
    authorizer: Arc<dyn Authorizer>,
    counts: Arc<AuthorizationCounts>,
}

impl<S: fmt::Debug> fmt::Debug for Authorized<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorized({:?})", self.inner)
    }
}

impl<S> Service<ApiRequest> for Authorized<S>
where
    S: Service<ApiRequest, Response = ApiResponse, Error = ApiError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = ApiResponse;
    type Error = ApiError;
    type Future = BoxFuture<'static, Result<ApiResponse, ApiError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: ApiRequest) -> Self::Future {
        // The clone was not polled ready, the present one was.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let (authorizer, counts) = (self.authorizer.clone(), self.counts.clone());
        Box::pin(async move {
            check(&*authorizer, &counts, &request).await?;
            inner.call(request).await
        })
    }
}

async fn check(
    authorizer: &dyn Authorizer,
    counts: &AuthorizationCounts,
    request: &ApiRequest,
) -> Result<(), ApiError> {
    let attributes = Attributes::of(request);
    ask(authorizer, counts, &attributes, &request.notes).await?;
    // A WebSocket begins with a GET, but running a program in a pod is no reading: it takes `create` as well.
    if connects(request) {
        let attributes = Attributes { verb: Verb::Create.as_str(), ..attributes };
        ask(authorizer, counts, &attributes, &request.notes).await?;
    }
    Ok(())
}

/// Tells the audit log, where there is one.
fn note(notes: &Notes, decision: &str, reason: &str) {
    if notes.origin().is_some() {
        notes.annotate("authorization.k8s.io/decision", decision);
        notes.annotate("authorization.k8s.io/reason", reason);
    }
}

async fn ask(
    authorizer: &dyn Authorizer,
    counts: &AuthorizationCounts,
    attributes: &Attributes<'_>,
    notes: &Notes,
) -> Result<(), ApiError> {
    let since = Instant::now();
    let decision = authorizer.authorize(attributes).await;
    counts.count(&decision, since.elapsed());
    match decision {
        Decision::Allow => {
            // Nobody else wants to know why.
            if notes.origin().is_some() {
                note(notes, "allow", &authorizer.explain(attributes));
            }
            Ok(())
        }
        Decision::Deny(reason) | Decision::NoOpinion(reason) => {
            note(notes, "forbid", &reason);
            Err(attributes.forbidden(&reason))
        }
    }
}

fn connects(request: &ApiRequest) -> bool {
    let Target::Resource { resource, subresource: Some(subresource), .. } = &request.target else {
        return false;
    };
    request.verb == Verb::Get
        && resource.group.is_empty()
        && resource.resource == "pods"
        && matches!(subresource.as_str(), "exec" | "attach" | "portforward")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authenticated;
    use kubewright_core::{GroupVersionResource, ResponseBody};
    use tower::ServiceExt;

    struct Reads;

    impl Authorizer for Reads {
        fn authorize<'a>(&'a self, a: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
            let decision =
                if a.verb == "get" { Decision::Allow } else { Decision::NoOpinion("only reads".to_owned()) };
            Box::pin(std::future::ready(decision))
        }
    }

    #[tokio::test]
    async fn what_is_not_allowed_does_not_arrive() {
        let inner = tower::service_fn(async |_: ApiRequest| {
            Ok::<_, ApiError>(ApiResponse::new(200, ResponseBody::Value(serde_json::json!({}))))
        });
        let service = AuthorizationLayer::new(Arc::new(Reads)).layer(inner);
        let check = async |verb: Verb, subresource: Option<&str>, want: Option<&str>| {
            let pods = GroupVersionResource::new("", "v1", "pods");
            let mut request = ApiRequest::resource(verb, pods, Some("a"), Some("p"));
            if let Some(subresource) = subresource {
                request = request.subresource(subresource);
            }
            request.user = authenticated("jane", &[]).into();
            let got = service.clone().oneshot(request).await.err().map(|e| e.message().to_owned());
            assert_eq!(got.as_deref(), want);
        };
        check(Verb::Get, None, None).await;
        check(Verb::Get, Some("log"), None).await;
        check(
            Verb::Delete,
            None,
            Some("pods \"p\" is forbidden: User \"jane\" cannot delete resource \"pods\" in API group \"\" in the namespace \"a\": only reads"),
        )
        .await;
        check(
            Verb::Get,
            Some("exec"),
            Some("pods \"p\" is forbidden: User \"jane\" cannot create resource \"pods/exec\" in API group \"\" in the namespace \"a\": only reads"),
        )
        .await;
    }
}
