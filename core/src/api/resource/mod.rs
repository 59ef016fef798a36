//! The group `resource.k8s.io`.

mod claims;
mod configuration;
pub mod device_class;
mod devices;
pub mod resource_claim;
pub mod resource_claim_template;
pub mod resource_slice;
