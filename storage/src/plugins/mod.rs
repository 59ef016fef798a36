//! The kinds of volumes, one file each.

mod config_map;
mod csi;
mod downward_api;
mod empty_dir;
mod host_path;
mod keys;
mod persistent_claim;
mod projected;
mod secret;

use crate::{CsiMounter, VolumePlugin};
use std::sync::Arc;

pub use config_map::ConfigMapPlugin;
pub use csi::CsiPlugin;
pub use downward_api::DownwardApiPlugin;
pub use empty_dir::EmptyDirPlugin;
pub use host_path::HostPathPlugin;
pub use persistent_claim::PersistentClaimPlugin;
pub use projected::ProjectedPlugin;
pub use secret::SecretPlugin;

/// Every plugin, without CSI.
pub fn all() -> Vec<Arc<dyn VolumePlugin>> {
    with_csi(None)
}

/// Every plugin; volumes of CSI drivers go through `mounter`, and are refused without one.
pub fn with_csi(mounter: Option<Arc<dyn CsiMounter>>) -> Vec<Arc<dyn VolumePlugin>> {
    vec![
        Arc::new(ConfigMapPlugin),
        Arc::new(CsiPlugin::new(mounter.clone())),
        Arc::new(DownwardApiPlugin),
        Arc::new(EmptyDirPlugin),
        Arc::new(HostPathPlugin),
        Arc::new(PersistentClaimPlugin::new(mounter)),
        Arc::new(ProjectedPlugin),
        Arc::new(SecretPlugin),
    ]
}
