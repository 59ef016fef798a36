//! Kinds and plugins that Kubernetes once had and dropped: off unless a host adds the kind and the plugin.

mod pod_preset;
mod pod_security_policy;

pub use pod_preset::{PodPreset, PodPresetAdmission, PodPresetSpec};
pub use pod_security_policy::{
    AllowedDriver, AllowedHostPath, HostPortRange, IdRange, IdStrategy, PodSecurityPolicy,
    PodSecurityPolicyAdmission, PodSecurityPolicySpec, RuntimeClassStrategy, SeLinuxStrategy,
};
