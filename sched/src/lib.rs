//! A scheduler with upstream's plugin framework, as pure functions over values.
//!
//! It knows nodes and pods, no API server, no clock and no tasks: facts go in, decisions come out, and the caller carries them out.
//! Pods that are alike to every plugin form a class and share what a cycle finds out. Each change of the node table is logged, so that a
//! class looks again only at the rows that changed since it was last asked. Nodes that filters and scores can't tell apart stand in one
//! cell, and inside a cell they are ordered by what they score on their own: the best node is found without walking all of them.
//! Each try leaves a compact account of itself ([`Scheduler::attempts`]).
//!
//! A plugin is one file with a [`Plugin`]; its [`framework::Locality`] says what its verdicts depend on, and with it what they cost.
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

mod advice;
mod binding;
mod cells;
mod class;
mod class_cache;
mod cluster;
mod columns;
pub mod config;
mod cycle;
pub mod devices;
mod diagnosis;
mod events;
mod explain;
pub mod extender;
pub mod framework;
mod intern;
mod labels;
mod masked;
mod node;
mod objects;
pub mod plugins;
mod pod;
mod profile;
mod queue;
mod resources;
mod scheduler;
mod selection;
mod steady;
mod terms;
pub mod trace;
mod volumes;

pub use advice::Advice;
pub use class::{Owner, PodClass};
pub use cluster::ClusterObject;
pub use columns::ResourceColumns;
pub use config::{ConfigError, Configuration, ExtenderConfig, Registry};
pub use diagnosis::{Considered, Diagnosis, NodeRefusal, Refusal};
pub use events::{ClusterEvent, Hint};
pub use explain::{Attempt, Attempts, Scored};
pub use extender::Consultation;
pub use framework::Plugin;
pub use intern::{Interner, Symbol};
pub use labels::{Labels, Selector};
pub use node::{Group, NodeChange, NodeIndex, NodeTable, Placed};
pub use objects::{Budget, Objects, Watched};
pub use pod::{Effect, HostPort, PodInfo, PodKey, Taint, Tolerance};
pub use profile::{Profile, ProfileBuilder, ProfileError};
pub use queue::{Queue, QueueOptions, QueueOrder, QueuedPod};
pub use resources::{DEFAULT_MEMORY, DEFAULT_MILLI_CPU, PodRequests, Resources};
pub use scheduler::{Decision, Scheduler, Trying};
pub use selection::{NodeDemand, NodeTerm, TextTerm};
pub use steady::SteadyTime;
pub use terms::{AffinityTerm, AffinityTerms, SpreadConstraint};
pub use trace::{Trace, what_if};
pub use volumes::{Disk, PodVolume, VolumeObjects};
