//! Tries out, in a process of its own, what this machine allows.

use super::{StageResult, identity, mounts};
use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What is possible here for this user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probe {
    /// The user may make namespaces without a user namespace.
    pub(crate) root: bool,
    /// The user may make a user namespace.
    pub(crate) user_namespace: bool,
    /// Namespaces of network, process ids and so on work, in one of both ways.
    pub(crate) namespaces: bool,
    /// overlayfs works on the state directory.
    pub(crate) overlay: bool,
}

/// Prints the findings as JSON.
pub(super) fn main(dir: &Path) -> StageResult<()> {
    let mut found = Probe { root: nix::unistd::geteuid().is_root(), ..Probe::default() };
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID;
    if found.root && nix::sched::unshare(all).is_ok() {
        found.namespaces = true;
    } else {
        found.root = false;
        found.user_namespace = identity::enter_new_user_namespace().is_ok();
        found.namespaces = found.user_namespace && nix::sched::unshare(all).is_ok();
    }
    if found.namespaces {
        found.overlay = mounts::try_overlay(dir, found.user_namespace).is_ok();
    }
    println!("{}", serde_json::to_string(&found).map_err(|e| e.to_string())?);
    Ok(())
}
