//! Binds claims to volumes: each claim gets the smallest volume that serves it, each volume says whose it is, and what becomes of it
//! afterwards follows its reclaim policy.
//!
//! Two controllers share the work, one looks from the claims and one from the volumes. A binding is written in upstream's order (the
//! volume's reference, the volume's phase, the claim's volume, the claim's status), so that every step can be taken up by the next pass.

mod claims;
mod matching;
mod objects;
#[cfg(test)]
mod tests;
mod volumes;
mod writes;

use kubewright_reconcile::Controller;

/// The controllers that bind claims and look after volumes.
pub fn controllers() -> [Controller; 2] {
    [claims::controller(), volumes::controller()]
}
