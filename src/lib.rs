//! An SDK for building container orchestrators: take the crates that you want, and compose a control plane of your own, in process.
//!
//! [`ControlPlane`] puts the pieces together; each piece is also a crate that stands alone, re-exported here. Nothing here is more than
//! composition: what the facade does, a host can do by hand with the same public parts.
//!
//! Every piece is a feature, all on by default but for stores other than redb, CRI and encryption. Without default features there are `core` and `store`;
//! `--no-default-features --features server` is a bare API server that can be composed.
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

#[cfg(feature = "client")]
pub use kubewright_client as client;
#[cfg(feature = "controllers")]
pub use kubewright_controllers as controllers;
pub use kubewright_core as core;
#[cfg(feature = "net")]
pub use kubewright_net as net;
#[cfg(feature = "node")]
pub use kubewright_node as node;
#[cfg(feature = "reconcile")]
pub use kubewright_reconcile as reconcile;
#[cfg(feature = "runtime")]
pub use kubewright_runtime as runtime;
#[cfg(feature = "sched")]
pub use kubewright_sched as sched;
#[cfg(feature = "server")]
pub use kubewright_server as server;
#[cfg(feature = "storage")]
pub use kubewright_storage as storage;
pub use kubewright_store as store;

#[cfg(feature = "server")]
pub mod bundles;
#[cfg(feature = "server")]
mod checks;
#[cfg(feature = "server")]
mod error;
#[cfg(feature = "server")]
mod https;
#[cfg(all(feature = "server", feature = "node"))]
pub mod nodes;
#[cfg(feature = "server")]
pub mod parts;
#[cfg(feature = "server")]
mod plane;
#[cfg(feature = "server")]
mod running;
#[cfg(all(feature = "server", feature = "node"))]
mod service_proxy;
#[cfg(all(feature = "server", feature = "controllers"))]
mod signer;
#[cfg(feature = "server")]
mod stage;

#[cfg(feature = "server")]
pub use {
    error::{BuildError, BuildErrors, StartError},
    https::Https,
    parts::Part,
    plane::{Builder, ControlPlane, PlaneContext},
    running::RunningPlane,
};
