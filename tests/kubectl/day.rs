//! The checks, in the order of a user's day. Each leaves the namespace as the next expects it.

mod cluster;
mod creating;
mod objects;
mod refusals;
mod streams;
mod workloads;

use crate::cluster::Cluster;
use crate::kubectl::{Kubectl, Outcome};

/// What a check looks at with one kubectl; the text says why it failed.
pub(crate) type Check = fn(&Kubectl, &Cluster) -> Outcome;

/// Which versions of kubectl a check runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum With {
    /// All of them.
    Each,
    /// The oldest and the newest; the others too where everything is asked for.
    Ends,
}

use With::{Each, Ends};

/// Checks by name.
pub(crate) type Checks = [(&'static str, With, Check)];

/// What stays within a namespace: several kubectls go through it at the same time.
pub(crate) const DAY: &Checks = &[
    ("version and discovery", Each, objects::discovery),
    ("explain", Ends, objects::explain),
    ("namespace", Each, objects::namespace),
    ("create, get, replace", Each, objects::config_maps),
    ("output formats", Ends, objects::output_formats),
    ("selectors and sorting", Ends, objects::selectors),
    ("patch, label, annotate", Ends, objects::patches),
    ("edit", Each, objects::edit),
    ("diff", Each, objects::diff),
    ("server-side apply", Each, objects::server_side_apply),
    ("every create", Each, creating::create),
    ("run", Ends, creating::run),
    ("custom kind", Ends, creating::custom_kind),
    ("bad manifests", Ends, refusals::manifests),
    ("bad commands", Ends, refusals::commands),
    ("oversize", Ends, refusals::oversize),
    ("apply a Deployment", Each, workloads::apply),
    ("get pods", Each, workloads::get_pods),
    ("watch", Each, streams::watch),
    ("describe", Ends, workloads::describe),
    ("describe every kind", Ends, workloads::describe_all),
    ("logs", Each, streams::logs),
    ("exec", Each, streams::exec),
    ("attach", Ends, streams::attach),
    ("cp", Each, streams::cp),
    ("port-forward", Each, streams::port_forward),
    ("expose", Ends, workloads::expose),
    ("scale", Each, workloads::scale),
    ("rollout", Ends, workloads::rollout),
    ("set image", Ends, workloads::set_image),
    ("wait", Each, workloads::wait),
    ("auth", Ends, cluster::auth),
    ("tokens", Each, cluster::tokens),
    ("raw", Ends, cluster::raw),
    ("top", Ends, cluster::top),
];

/// What others would notice: one kubectl after the other.
pub(crate) const NODES: &Checks = &[("nodes", Each, cluster::nodes)];

/// The end of the day, again at the same time.
pub(crate) const EVENING: &Checks =
    &[("delete with cascade", Ends, workloads::cascade), ("clean up", Each, cluster::clean_up)];
