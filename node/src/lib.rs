//! The node agent: what the kubelet does.
//!
//! An agent registers its node, runs the pods that are bound to it through the ports of container runtime, network and volumes,
//! and tells the API how they are. It knows no scheduler, no controller and no particular runtime.
//!
//! Many agents may live in one process: they share a [`NodeHub`], whose one watch of pods feeds them all.
//!
//! A pass over a pod reads what the object says and what the runtime has, decides ([`actions`]), does it, and computes the status
//! ([`status`]); the deciding parts are pure functions.

pub mod actions;
mod admission;
mod agent;
mod api;
mod backoff;
mod builder;
mod cri;
mod dirty;
mod driver;
mod env;
mod ephemeral;
mod events;
mod expand;
mod gc;
mod heartbeat;
mod hooks;
mod hub;
mod images;
pub mod names;
mod observe;
pub mod observed;
pub mod policy;
pub mod probe;
mod register;
mod resources;
mod settings;
mod source;
mod start;
pub mod status;
mod statuses;
mod sync;
mod terminate;
#[cfg(test)]
mod testing;
mod worker;

pub use agent::NodeAgent;
pub use builder::{BuildError, NodeAgentBuilder};
pub use hub::NodeHub;
