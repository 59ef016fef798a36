//! The built-in controllers.
//!
//! Each is one constructor function that gives a [`Controller`]; they know the API only, through a client.
//!
//! ```no_run
//! use kubewright_controllers as controllers;
//! use kubewright_reconcile::{CancellationToken, Context, Manager, client::Client};
//!
//! async fn run(client: Client) -> Result<(), kubewright_core::ApiError> {
//!     let manager = Manager::new(Context::new(client)).with_all(controllers::all());
//!     manager.run(CancellationToken::new()).await
//! }
//! ```

pub mod bootstrap_tokens;
pub mod certificates;
mod claim;
pub mod deployment;
mod discovery;
pub mod disruption;
pub mod endpoint_slice;
pub mod endpoints;
mod endpoints_common;
pub mod ephemeral_volume;
pub mod garbage_collector;
pub mod namespace;
pub mod node_lifecycle;
pub mod pod_gc;
mod pods;
mod refusal;
pub mod replica_set;
pub mod resource_claim;
pub mod resource_quota;
pub mod root_ca;
mod scheduling;
pub mod service_account;
pub mod service_cidr;
pub mod taint_eviction;
pub mod volume_binder;
pub mod volume_protection;

pub use scheduling::{scheduling, scheduling_within};

use kubewright_reconcile::Controller;

/// Every controller that needs no settings, in alphabetical order. [`scheduling`] takes its scheduler, [`root_ca`] the certificate.
pub fn all() -> Vec<Controller> {
    let mut all = vec![
        deployment::controller(),
        disruption::controller(),
        endpoint_slice::controller(),
        endpoints::controller(),
        ephemeral_volume::controller(),
        garbage_collector::controller(),
        namespace::controller(),
        node_lifecycle::controller(node_lifecycle::NodeLifecycleOptions::default()),
        pod_gc::controller(pod_gc::PodGcOptions::default()),
        replica_set::controller(),
        resource_quota::controller(),
        service_account::controller(),
        service_cidr::controller(),
        taint_eviction::controller(),
    ];
    all.extend(resource_claim::controllers());
    all.extend(volume_binder::controllers());
    all.extend(volume_protection::controllers());
    all
}
