//! The group `apiextensions.k8s.io`.

pub mod custom_resource_definition;
mod descriptors;
mod names_accepted;
mod validation;

pub use descriptors::descriptors;
pub use names_accepted::{is_established, update_status};
