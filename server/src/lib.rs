//! The Kubernetes API server as a tower service.
//!
//! It answers [`kubewright_core::ApiRequest`]s for every kind of its registry on one path: decode, default, admit, validate, commit;
//! reads and watches come from a cache of encoded objects. It knows no socket and no user database: HTTP, authentication and
//! authorization are layers around it.
//!
//! ```
//! use kubewright_server::ApiServer;
//! use kubewright_store::MemoryStore;
//! use std::sync::Arc;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let server = ApiServer::builder(Arc::new(MemoryStore::new())).build().await?;
//! server.shutdown().await;
//! # Ok::<(), kubewright_core::ApiError>(())
//! # }).unwrap();
//! ```

pub mod admission;
mod aggregation;
mod allocate;
pub mod audit;
pub mod auth;
mod bootstrap;
mod builder;
mod cache;
mod continuation;
mod conversion;
mod counts;
mod crd;
mod encode;
mod encryption;
mod errors;
pub mod flow;
mod handlers;
pub mod http;
mod janitor;
mod keys;
mod kinds;
mod meter;
mod outbound;
mod paths;
mod pipeline;
mod pod_refs;
pub mod ports;
mod present;
mod protobuf;
mod relay;
mod revision;
mod selection;
mod server;
mod subresources;
pub mod tls;
mod watch;

pub use allocate::api_service_address;
pub use builder::{ApiServerBuilder, DEFAULT_SERVICE_CIDR};
pub use encryption::{
    EncryptionConfigurationError, EncryptionProvider, EncryptionRule, EncryptionSecret, encryption_rules,
};
pub use meter::{MeterLayer, Metered};
pub use ports::{
    MetricSource, NodeConnections, PublishedKeys, TokenIssuer, VirtualDescriptor, VirtualResource,
};
pub use server::{ApiServer, Reader};
