//! API priority and fairness: FlowSchemas sort the requests into priority levels, and each level has seats and queues of its own, so
//! that a flood of one kind of requests leaves room for the others.
//!
//! A request that finds a free seat takes no lock; queues, loans between levels and their lock come into play only when a level is
//! full. Where flow control is off, [`MaxInFlight`] bounds the requests at once.

mod config;
mod defaults;
mod fixed;
mod in_flight;
mod keeper;
mod level;
mod metrics;
mod pool;
mod queues;
mod schema;
#[cfg(test)]
mod tests;
mod work;

pub use fixed::FixedFlowControl;
pub use in_flight::{Bounded, MaxInFlight};

use crate::auth::Attributes;
use crate::builder::ApiServerBuilder;
use crate::server::Reader;
use arc_swap::ArcSwap;
use config::{Config, Objects};
use futures::future::BoxFuture;
use kubewright_core::{ApiError, ApiRequest, ApiResponse, FlowNote, SharedClock};
use level::Seats;
use parking_lot::Mutex;
use pool::Pool;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;
use tower::{Layer, Service};

/// Upstream's limits of requests that write and that read, together.
const SEATS: u32 = 600;
/// A quarter of the time that a request has.
const PATIENCE: Duration = Duration::from_secs(15);

/// 429 in upstream's words.
fn too_many_requests() -> ApiError {
    ApiError::too_many_requests("too many requests, please try again later", 1)
}

/// Priority and fairness of one server, as a tower layer that belongs around authorization.
///
/// ```
/// use kubewright_core::SystemClock;
/// use kubewright_server::ApiServer;
/// use kubewright_server::flow::FlowControl;
/// use kubewright_store::MemoryStore;
/// use std::sync::Arc;
/// use tower::Layer;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let flow = FlowControl::new(Arc::new(SystemClock));
/// let server = flow.install(ApiServer::builder(Arc::new(MemoryStore::new()))).build().await?;
/// flow.start(&server).await?;
/// let service = flow.layer(server.clone());
/// # drop(service);
/// # server.shutdown().await;
/// # Ok::<(), kubewright_core::ApiError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct FlowControl {
    control: Arc<Control>,
    /// Follows the objects; ends with the last clone.
    keeper: Arc<OnceLock<AbortOnDropHandle<()>>>,
}

/// What all requests share.
struct Control {
    config: ArcSwap<Config>,
    pool: Arc<Pool>,
    seats: i64,
    patience: Duration,
    clock: SharedClock,
    reader: OnceLock<Reader>,
    /// One change of the configuration at a time.
    loading: Mutex<()>,
}

impl FlowControl {
    /// Flow control over 600 seats, with the default schemas and levels until a server's objects are read.
    pub fn new(clock: SharedClock) -> Self {
        Self::with_limits(clock, SEATS, PATIENCE)
    }

    /// Flow control over so many seats, in which a request waits for at most `patience`.
    pub fn with_limits(clock: SharedClock, seats: u32, patience: Duration) -> Self {
        let seats = i64::from(seats);
        let config = Config::compile(&Objects::default(), seats, None);
        let control = Control {
            pool: Arc::default(),
            config: ArcSwap::from_pointee(config),
            seats,
            patience,
            clock,
            reader: OnceLock::new(),
            loading: Mutex::new(()),
        };
        control.pool.set(control.config.load().levels.values().cloned().collect());
        FlowControl { control: Arc::new(control), keeper: Arc::default() }
    }

    /// Adds the check of the mandatory objects to a server that is being composed.
    #[must_use]
    pub fn install(&self, builder: ApiServerBuilder) -> ApiServerBuilder {
        builder.admission(Arc::new(FixedFlowControl))
    }
}

impl Control {
    /// Puts objects into force.
    fn load(&self, objects: &Objects) {
        let _one_at_a_time = self.loading.lock();
        let before = self.config.load_full();
        let config = Config::compile(objects, self.seats, Some(&before));
        self.pool.set(config.levels.values().cloned().collect());
        self.config.store(Arc::new(config));
    }

    async fn enter(&self, request: &ApiRequest) -> Result<Option<Seats>, ApiError> {
        if work::is_long_running(request) {
            return Ok(None);
        }
        let (schema, flow) = {
            let config = self.config.load();
            let attributes = Attributes::of(request);
            let Some(schema) = config.schema_of(&attributes) else { return Ok(None) };
            let flow = if schema.level.is_exempt() { 0 } else { schema.flow(&attributes) };
            (schema.clone(), flow)
        };
        let (schema_uid, level_uid) = (schema.uid.clone(), schema.level.uid.clone());
        request.notes.set_flow(FlowNote { schema_uid, level_uid });
        let width = work::width(request, self.reader.get(), schema.level.width_max());
        let seats = schema.level.enter(&self.pool, flow, width, self.patience).await?;
        schema.dispatched.fetch_add(1, Ordering::Relaxed);
        Ok(Some(seats))
    }
}

impl fmt::Debug for FlowControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.control.config.load();
        write!(f, "FlowControl({} schemas, {} levels)", config.schemas.len(), config.levels.len())
    }
}

impl<S> Layer<S> for FlowControl {
    type Service = Controlled<S>;

    fn layer(&self, inner: S) -> Controlled<S> {
        Controlled { inner, flow: self.clone() }
    }
}

/// A service behind [`FlowControl`].
#[derive(Clone, Debug)]
pub struct Controlled<S> {
    inner: S,
    flow: FlowControl,
}

impl<S> Service<ApiRequest> for Controlled<S>
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
        let control = self.flow.control.clone();
        Box::pin(async move {
            let _seats = control.enter(&request).await?;
            inner.call(request).await
        })
    }
}
