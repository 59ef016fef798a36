//! An SDK for building container orchestrators: take the crates that you want, and compose a control plane of your own, in process.
//!
//! [`ControlPlane`] puts the pieces together; each piece is also a crate that stands alone, re-exported here. Nothing here is more than
//! composition: what the facade does, a host can do by hand with the same public parts.
//!
//! ```
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use kubewright::{ControlPlane, bundles, client::Api, parts, store::MemoryStore};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let plane = ControlPlane::builder()
//!     .with(parts::store(MemoryStore::new()))
//!     .with(bundles::kinds())
//!     .build()?
//!     .start()
//!     .await?;
//! let maps = Api::<ConfigMap>::namespaced(plane.client().clone(), "default");
//! maps.create(&serde_json::from_value(serde_json::json!({"metadata": {"name": "a"}}))?).await?;
//! assert_eq!(maps.list(Default::default()).await?.items.len(), 1);
//! plane.shutdown().await?;
//! # Ok(())
//! # })
//! # }
//! ```

pub use kubewright_client as client;
pub use kubewright_controllers as controllers;
pub use kubewright_core as core;
pub use kubewright_net as net;
pub use kubewright_node as node;
pub use kubewright_reconcile as reconcile;
pub use kubewright_runtime as runtime;
pub use kubewright_sched as sched;
pub use kubewright_server as server;
pub use kubewright_storage as storage;
pub use kubewright_store as store;

pub mod bundles;
mod error;
mod https;
pub mod nodes;
pub mod parts;
mod plane;
mod running;
mod service_proxy;

pub use error::{BuildError, BuildErrors, StartError};
pub use https::Https;
pub use parts::Part;
pub use plane::{Builder, ControlPlane, PlaneContext};
pub use running::RunningPlane;
