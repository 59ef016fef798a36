//! A scheduler with upstream's plugin framework, as pure functions over values.
//!
//! It knows nodes and pods, no API server, no clock and no tasks: facts go in, decisions come out, and the caller carries them out.
//! Pods that are alike share what a cycle finds out, and only rows of the node table that changed are looked at again.
//!
//! ```
//! use kubewright_sched::{Decision, Scheduler};
//! use std::sync::Arc;
//!
//! let now = jiff::Timestamp::UNIX_EPOCH;
//! let mut scheduler = Scheduler::with_defaults(7);
//! let node = serde_json::json!({"metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}});
//! scheduler.apply_node(Arc::new(serde_json::from_value(node).unwrap()), now);
//! let pod = serde_json::json!({"metadata": {"namespace": "default", "name": "p"}, "spec": {"containers": [{"name": "c"}]}});
//! scheduler.apply_pod(Arc::new(serde_json::from_value(pod).unwrap()), now);
//! assert!(matches!(scheduler.schedule_one(now), Some(Decision::Bind { node, .. }) if node == "a"));
//! ```

mod cycle;
mod diagnosis;
mod events;
pub mod framework;
mod intern;
mod node;
pub mod plugins;
mod pod;
mod profile;
mod queue;
mod resources;
mod scheduler;
mod selection;

pub use diagnosis::{Diagnosis, NodeRefusal, Refusal};
pub use events::{ClusterEvent, Hint};
pub use framework::Plugin;
pub use intern::{Interner, Symbol};
pub use node::{NodeChange, NodeIndex, NodeTable, Placed, ResourceColumns};
pub use pod::{Effect, HostPort, PodClass, PodInfo, PodKey, Taint, Tolerance};
pub use profile::{Profile, ProfileBuilder, ProfileError};
pub use queue::{Queue, QueueOptions, QueueOrder, QueuedPod};
pub use resources::{DEFAULT_MEMORY, DEFAULT_MILLI_CPU, PodRequests, Resources};
pub use scheduler::{Decision, Scheduler};
pub use selection::{NodeDemand, NodeTerm};
