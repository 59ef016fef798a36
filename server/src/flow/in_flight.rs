//! The plain limit of requests at once, where there is no flow control.

use super::{too_many_requests, work};
use futures::future::BoxFuture;
use kubewright_core::{ApiError, ApiRequest, ApiResponse, UserInfo, Verb};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// Bounds the requests that run at once: those that write, and those that read. Streams count only until they begin, and
/// `system:masters` is never refused.
#[derive(Clone)]
pub struct MaxInFlight(Arc<Counts>);

struct Counts {
    writes_max: usize,
    reads_max: usize,
    writes: AtomicUsize,
    reads: AtomicUsize,
}

impl Default for MaxInFlight {
    /// Upstream's limits: 200 that write and 400 that read.
    fn default() -> Self {
        Self::new(200, 400)
    }
}

impl MaxInFlight {
    /// At most so many that write and so many that read.
    pub fn new(writes_max: usize, reads_max: usize) -> Self {
        let (writes, reads) = (AtomicUsize::new(0), AtomicUsize::new(0));
        MaxInFlight(Arc::new(Counts { writes_max, reads_max, writes, reads }))
    }

    fn enter(&self, request: &ApiRequest) -> Result<Option<InFlight>, ApiError> {
        if work::is_long_running(request) {
            return Ok(None);
        }
        let write = !matches!(request.verb, Verb::Get | Verb::List | Verb::Watch);
        let guard = InFlight { counts: self.0.clone(), write };
        let (count, max) = guard.count();
        let before = count.fetch_add(1, Ordering::Relaxed);
        if before >= max && !is_master(&request.user) {
            return Err(too_many_requests());
        }
        Ok(Some(guard))
    }
}

fn is_master(user: &UserInfo) -> bool {
    user.groups.iter().flatten().any(|g| g == "system:masters")
}

impl fmt::Debug for MaxInFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MaxInFlight({} writes, {} reads)", self.0.writes_max, self.0.reads_max)
    }
}

/// A request that runs, or was just refused.
struct InFlight {
    counts: Arc<Counts>,
    write: bool,
}

impl InFlight {
    fn count(&self) -> (&AtomicUsize, usize) {
        match self.write {
            true => (&self.counts.writes, self.counts.writes_max),
            false => (&self.counts.reads, self.counts.reads_max),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.count().0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Layer<S> for MaxInFlight {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded { inner, limit: self.clone() }
    }
}

/// A service behind [`MaxInFlight`].
#[derive(Clone, Debug)]
pub struct Bounded<S> {
    inner: S,
    limit: MaxInFlight,
}

impl<S> Service<ApiRequest> for Bounded<S>
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
        match self.limit.enter(&request) {
            Err(refused) => Box::pin(std::future::ready(Err(refused))),
            Ok(place) => {
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let _place = place;
                    answer.await
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authenticated;
    use futures::FutureExt;
    use kubewright_core::{GroupVersionResource, ResponseBody};

    #[tokio::test]
    async fn more_than_the_limit_is_refused_until_one_ends() {
        let inner = tower::service_fn(async |request: ApiRequest| {
            if request.verb != Verb::Get {
                tokio::task::yield_now().await;
            }
            Ok::<_, ApiError>(ApiResponse::new(200, ResponseBody::Value(serde_json::Value::Null)))
        });
        let mut service = MaxInFlight::new(1, 1).layer(inner);
        let request = |verb: Verb, group: &str| {
            let pods = GroupVersionResource::new("", "v1", "pods");
            let mut request = ApiRequest::resource(verb, pods, Some("a"), None);
            request.user = authenticated("jane", &[group]).into();
            request
        };
        let mut first = service.call(request(Verb::Create, "dev"));
        assert!((&mut first).now_or_never().is_none(), "it runs");
        let refused = service.call(request(Verb::Create, "dev")).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.status().details.as_ref().unwrap().retry_after_seconds),
            (429, Some(1))
        );
        service.call(request(Verb::Create, "system:masters")).await.unwrap();
        service.call(request(Verb::Get, "dev")).await.unwrap();
        service.call(request(Verb::Create, "dev").subresource("exec")).await.unwrap();
        first.await.unwrap();
        drop(service.call(request(Verb::Create, "dev")));
        service.call(request(Verb::Create, "dev")).await.unwrap();
    }
}
