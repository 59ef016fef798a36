//! TLS from the first start: a generated authority, serving and client certificates, the accept loop, and kubeconfig files.
//!
//! No process-wide rustls provider is installed: every configuration here names its own.

mod authority;
mod certificate;
mod error;
mod files;
mod front;
mod front_proxy;
mod identity;
mod kubeconfig;
mod request;
mod server;
mod stall;
#[cfg(test)]
mod tests;

pub use authority::{CertificateAuthority, KeyCertificate};
pub use certificate::ServingCertificate;
pub use error::TlsError;
pub use front::FrontProxyAuthority;
pub use front_proxy::FrontProxy;
pub use kubeconfig::{Kubeconfig, KubeconfigCredentials};
pub use request::{RequestedCertificate, certificate_ends};
pub use server::{Limits, Server};

pub(crate) use files::read_or_create;
pub(crate) use front_proxy::CLIENT_NAME;
