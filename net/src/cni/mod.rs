//! The runtime's side of the Container Network Interface: network configurations, plugin binaries, and the results that are kept.
//!
//! Follows the CNI specification 1.1 (and configurations back to 0.3.0): a list of plugins is run in order for ADD and CHECK, in reverse
//! for DEL, each seeing the result of the one before.

mod config;
mod exec;
mod network;
mod result;

pub use config::{NetworkConfig, load_default};
pub use exec::PluginPaths;
pub use network::{CniNetwork, CniOptions};
pub use result::{CniResult, IpConfig};
