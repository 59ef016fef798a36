//! The Container Network Interface, pod addresses and the Service proxy.

mod error;
mod port;

pub use error::{Error, Reason};
pub use port::{Network, PodAddresses, PodAttachment, PortMapping};
