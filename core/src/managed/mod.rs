//! Field management: who set which field of an object, and server-side apply on top of it.
//!
//! Follows the rules of structured merge (KEP-555): every write notes the fields that it set; an apply merges its object into the live
//! one, removes what its manager applied before and no longer does, and conflicts where it would change a field of another manager.

mod apply;
mod configuration;
mod element;
mod manager;
mod merge;
mod set;
#[cfg(test)]
mod tests;
mod track;
mod walk;

pub use apply::apply;
pub use configuration::merge_configuration;
pub use manager::{Manager, ManagerOperation};
pub use set::FieldSet;
pub use track::track;

use crate::Schema;
use std::sync::LazyLock;

/// The annotation in which `kubectl apply` keeps what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A write, as far as field management is concerned.
#[derive(Clone, Debug)]
pub struct FieldWrite<'a> {
    /// The kind's schema.
    pub schema: &'a Schema,
    /// The version of the request, `apps/v1`.
    pub api_version: &'a str,
    /// The subresource written through; empty for the object itself.
    pub subresource: &'a str,
    /// The field manager's name.
    pub manager: &'a str,
    /// The time of the request, RFC 3339 in seconds.
    pub now: &'a str,
    /// What this write can't set: the status for the object itself, all but the status for that subresource.
    pub ignored: &'a FieldSet,
}

/// The fields that nobody owns: they belong to the server.
static UNOWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of(&[
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.clusterName",
        "metadata.generation",
        "metadata.managedFields",
        "metadata.resourceVersion",
    ])
});
