//! What a controller works with.

use crate::{EventRecorder, Informers};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubewright_client::{Api, Client};
use kubewright_core::{Clock, Entropy, Resource, SharedClock, SystemClock};
use std::fmt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The client, the informers and the sources of time and randomness that reconcilers use. Cloning is cheap.
#[derive(Clone)]
pub struct Context {
    client: Client,
    shared: Arc<Shared>,
}

struct Shared {
    informers: Informers,
    clock: SharedClock,
    entropy: Arc<Entropy>,
    events: EventRecorder,
    cancel: CancellationToken,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({:?})", self.client)
    }
}

impl Context {
    /// A context with informers of its own, the system's clock and randomness.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(client: Client) -> Self {
        let informers = Informers::new(client.clone());
        Self::with(client, informers, Arc::new(SystemClock), Arc::new(Entropy::from_system()))
    }

    /// A context out of its parts. Informers may be shared by contexts of different clients.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn with(client: Client, informers: Informers, clock: SharedClock, entropy: Arc<Entropy>) -> Self {
        let events = EventRecorder::new(client.clone(), clock.clone(), "kubewright");
        let shared = Shared { informers, clock, entropy, events, cancel: CancellationToken::new() };
        Context { client, shared: Arc::new(shared) }
    }

    /// The same, acting through another client.
    #[must_use]
    pub fn with_client(&self, client: Client) -> Self {
        Context { client, shared: self.shared.clone() }
    }

    /// The same, telling events as `controller`, and told of its end by `cancel`.
    #[must_use]
    pub fn named(&self, controller: &str, cancel: CancellationToken) -> Self {
        let shared = Shared {
            informers: self.shared.informers.clone(),
            clock: self.shared.clock.clone(),
            entropy: self.shared.entropy.clone(),
            events: self.shared.events.named(controller),
            cancel,
        };
        Context { client: self.client.clone(), shared: Arc::new(shared) }
    }

    /// The client. In a pass it notes what is written, so that the key's next pass sees it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The objects of `K` in a namespace, or in the cluster where it is empty.
    pub fn api<K: Resource>(&self, namespace: &str) -> Api<K> {
        match namespace {
            "" => Api::all(self.client.clone()),
            namespace => Api::namespaced(self.client.clone(), namespace),
        }
    }

    /// The shared informers.
    pub fn informers(&self) -> &Informers {
        &self.shared.informers
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    /// The clock, shared.
    pub fn shared_clock(&self) -> SharedClock {
        self.shared.clock.clone()
    }

    /// The time now.
    pub fn now(&self) -> jiff::Timestamp {
        self.shared.clock.now()
    }

    /// Randomness for names and jitter.
    pub fn entropy(&self) -> &Arc<Entropy> {
        &self.shared.entropy
    }

    /// The time now in whole seconds, as object metadata and conditions carry it.
    pub fn time(&self) -> Time {
        let now = self.now();
        Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
    }

    /// Tells people about objects.
    pub fn events(&self) -> &EventRecorder {
        &self.shared.events
    }

    /// Cancelled when the controller shall end.
    pub fn cancel(&self) -> &CancellationToken {
        &self.shared.cancel
    }
}
