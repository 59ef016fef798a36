//! A typed client of the Kubernetes API, in process or over HTTPS.
//!
//! It knows requests and responses, no server: a service of the same process and a socket are two transports behind one trait,
//! so nothing in process bypasses what a remote client passes through.
//!
//! ```
//! use k8s_openapi::api::core::v1::Pod;
//! use kubewright_client::{Api, Client};
//!
//! async fn names(client: Client) -> Result<Vec<String>, kubewright_core::ApiError> {
//!     let pods = Api::<Pod>::namespaced(client, "default").list(Default::default()).await?;
//!     Ok(pods.items.iter().filter_map(|pod| pod.metadata.name.clone()).collect())
//! }
//! ```

mod api;
mod client;
mod https;
mod transport;

pub use api::{Api, DeleteOptions, Event, List};
pub use client::{Client, system_user};
pub use https::{Config, ConfigError, Credentials, HttpsTransport, JsonClient};
pub use transport::Transport;
