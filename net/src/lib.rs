//! The Container Network Interface, pod addresses and the Service proxy.
//!
//! It knows sandboxes, addresses and ports; it knows no container runtime and no API server: Services and EndpointSlices come in as values.

pub mod cni;
mod error;
mod port;
pub mod proxy;

pub use error::{Error, Reason};
pub use port::{Network, PodAddresses, PodAttachment, PortMapping};
