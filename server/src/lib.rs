//! The Kubernetes API server as a tower service.

pub mod auth;
pub mod http;
pub mod tls;
