//! Volumes and the Container Storage Interface.
//!
//! This crate turns the volumes of a pod into directories of the node, and keeps those that follow an API object up to
//! date. It knows no containers and no API server: objects and tokens come in through [`VolumeSource`].
//!
//! A kind of volume is one file: an implementation of [`VolumePlugin`], given to `VolumeManagerBuilder::with`.
//!
//! ```
//! use kubewright_storage::{VolumeManager, plugins};
//!
//! let names: Vec<&str> = plugins::all().iter().map(|p| p.name()).collect();
//! assert!(names.contains(&"kubernetes.io/empty-dir"));
//! # let _ = VolumeManager::builder("/tmp/never-used");
//! ```

mod atomic;
pub mod csi;
mod error;
pub mod fields;
mod files;
mod manager;
pub mod plugins;
mod port;
mod subpath;

pub use atomic::{AtomicWriter, FileProjection, Payload};
pub use error::{Error, Reason};
pub use manager::{SimulatedVolumes, VolumeManager, VolumeManagerBuilder};
pub use port::{
    CsiMounter, CsiVolume, MountRequest, Mounted, NodeFacts, PodVolumes, TokenOrder, VolumePlugin,
    VolumeSource, Volumes,
};
pub use subpath::resolve as resolve_subpath;
