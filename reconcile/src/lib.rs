//! Informers, work queues and the Reconciler trait: what every controller of Kubewright is made of.
//!
//! It knows a client and API objects, no server, and no controller in particular.
//!
//! ```no_run
//! use k8s_openapi::api::core::v1::Namespace;
//! use kubewright_reconcile::{Action, Context, Controller, client::Client};
//! use std::sync::Arc;
//!
//! async fn greet(client: Client) {
//!     let greeter = Controller::for_kind::<Namespace>("greeter").with(|ns: Arc<Namespace>, _: Context| async move {
//!         println!("{:?} is here", ns.metadata.name);
//!         Ok::<_, std::io::Error>(Action::Done)
//!     });
//!     greeter.run(Context::new(client), Default::default()).await;
//! }
//! ```

mod backoff;
mod context;
mod controller;
mod events;
pub mod informer;
mod key;
mod leader;
mod manager;
pub mod owner;
pub mod patch;
pub mod queue;
mod reconciler;
pub mod testing;
mod writes;

pub use backoff::Backoff;
pub use context::Context;
pub use controller::{Controller, ControllerBuilder, ControllerMeter, ControllerMetrics};
pub use events::{EventRecorder, EventType};
pub use informer::{Change, Informer, Informers, PartialObject, Selection, Subscription};
pub use key::ObjectKey;
pub use kubewright_client as client;
pub use leader::{LeaderElection, LeaderElector};
pub use manager::Manager;
pub use queue::{QueueFull, QueueKey, QueueOptions, Work, WorkQueue};
pub use reconciler::{Action, Reconciler};
pub use tokio_util::sync::CancellationToken;
