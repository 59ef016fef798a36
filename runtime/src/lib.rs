//! The Container Runtime Interface: its port as async traits, and what implements it.
//!
//! This crate knows sandboxes, containers and images in CRI's terms; it knows no pods, no API server and no volumes.

pub mod conformance;
#[cfg(feature = "cri")]
mod cri;
pub mod embedded;
mod error;
pub mod fake;
pub mod images;
pub mod logs;
pub mod port;

#[cfg(feature = "cri")]
pub use cri::{CriClient, CriTimeouts};
pub use error::{Error, Reason};
pub use port::{ContainerRuntime, ImageService};
