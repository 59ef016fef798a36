//! What an author of a controller writes.

use crate::{Context, ObjectKey};
use futures::future::BoxFuture;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a successful pass asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing before the next change.
    Done,
    /// Another pass after this time, or at the next change if that comes first.
    RequeueAfter(Duration),
}

/// Brings the world to what one object says.
///
/// A pass reads the state (the object, and the informers of [`Context`]), compares, and writes what differs. It must be idempotent: it
/// may run at any time and from any state. It is never told what changed, only that something may have.
///
/// | the pass gives | then |
/// |---|---|
/// | `Ok(Action::Done)` | the key's failures are forgotten; the next pass comes with the next change |
/// | `Ok(Action::RequeueAfter(d))` | the key's failures are forgotten; the next pass comes with the next change, at the latest after `d` |
/// | `Err(e)` | `e` is logged and counted; the next pass comes after the key's back-off (5 ms doubling to 1,000 s), or at the next change |
/// | a panic | as `Err`; other keys do not notice |
/// | it is dropped (shutdown) | nothing; after a restart every object gets a pass |
///
/// Guarantees: one key never has two passes at once; before a pass the informers involved have caught up with every write that the
/// key's earlier passes made through [`Context::client`], so a reconciler sees its own writes.
///
/// Besides a type of your own, a closure over `(Arc<K>, Context)` is a reconciler:
///
/// ```
/// use k8s_openapi::api::core::v1::ConfigMap;
/// use kubewright_reconcile::{Action, Context, Controller};
/// use std::sync::Arc;
///
/// let controller = Controller::for_kind::<ConfigMap>("greeter").with(|map: Arc<ConfigMap>, _: Context| async move {
///     println!("{:?}", map.metadata.name);
///     Ok::<_, std::io::Error>(Action::Done)
/// });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not reconcile `{K}`",
    note = "implement `Reconciler<{K}>`, or give a closure `|object: Arc<{K}>, cx: Context| async move {{ Ok(Action::Done) }}` with a named error type"
)]
pub trait Reconciler<K>: Send + Sync + 'static {
    /// Why a pass failed.
    type Error: fmt::Display + Send + 'static;

    /// One pass over an object that exists.
    ///
    /// # Errors
    /// The pass comes again after the key's back-off.
    ///
    /// # Cancel safety
    /// It may be dropped at any await when the plane shuts down.
    fn reconcile(
        &self,
        object: Arc<K>,
        cx: &Context,
    ) -> impl Future<Output = Result<Action, Self::Error>> + Send;

    /// One pass over a key whose object is gone. The default does nothing: children go by their owner references.
    ///
    /// # Errors
    /// As [`Reconciler::reconcile`].
    fn gone(
        &self,
        key: &ObjectKey,
        cx: &Context,
    ) -> impl Future<Output = Result<Action, Self::Error>> + Send {
        let _ = (key, cx);
        async { Ok(Action::Done) }
    }
}

impl<K, F, Fut, E> Reconciler<K> for F
where
    K: Send + Sync + 'static,
    F: Fn(Arc<K>, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Action, E>> + Send,
    E: fmt::Display + Send + 'static,
{
    type Error = E;

    fn reconcile(&self, object: Arc<K>, cx: &Context) -> impl Future<Output = Result<Action, E>> + Send {
        self(object, cx.clone())
    }
}

/// The object-safe side of [`Reconciler`].
pub(crate) trait ErasedReconciler<K>: Send + Sync {
    fn pass<'a>(
        &'a self,
        key: &'a ObjectKey,
        object: Option<Arc<K>>,
        cx: &'a Context,
    ) -> BoxFuture<'a, Result<Action, String>>;
}

impl<K: Send + Sync + 'static, R: Reconciler<K>> ErasedReconciler<K> for R {
    fn pass<'a>(
        &'a self,
        key: &'a ObjectKey,
        object: Option<Arc<K>>,
        cx: &'a Context,
    ) -> BoxFuture<'a, Result<Action, String>> {
        Box::pin(async move {
            match object {
                Some(object) => self.reconcile(object, cx).await,
                None => self.gone(key, cx).await,
            }
            .map_err(|e| e.to_string())
        })
    }
}
