//! The HTTP codec: any service over [`kubewright_core::ApiRequest`] as a service over HTTP requests.

mod accept;
mod body;
mod cors;
mod decode;
mod encode;
mod passing;
mod path;
mod query;
mod service;
mod sources;
#[cfg(test)]
mod tests;
mod upgrade;

pub use body::Body;
pub use cors::AllowedOrigins;
pub use service::{HttpService, PeerIdentity};
pub use sources::PeerAddress;
