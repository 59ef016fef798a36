//! Stock clients, unmodified: Helm 3 and 4, the Python and JavaScript clients on the example cluster, kube-rs on a plane in process.
//!
//! The flows of the first three are scripts beside this file, in the clients' own languages; `install.py` brings what they need. Each part
//! stays in namespaces of its own, so they run at the same time on one cluster.

#[allow(dead_code, reason = "only kubectl's own test ends it by hand")]
#[path = "../kubectl/cluster.rs"]
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod kube_rs;
mod scripts;

use cluster::Cluster;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// One cluster for all tests that run at the same time; the last ends it.
fn shared_cluster() -> Option<Arc<Cluster>> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    if !Cluster::has_shell() {
        println!("skipped: stock clients because busybox, the shell of the pods, is not installed");
        return None;
    }
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = shared.upgrade().unwrap_or_else(|| Arc::new(Cluster::start()));
    *shared = Arc::downgrade(&cluster);
    Some(cluster)
}
