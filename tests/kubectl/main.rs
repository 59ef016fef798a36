//! A stock kubectl, in every version that is installed, against the example cluster as a program of its own.
//!
//! The whole of a user's day: apply, get, describe, edit, scale, roll out, log, exec, copy, forward, drain, delete.

mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod day;
mod kubectl;

use cluster::Cluster;
use kubectl::Kubectl;

#[test]
fn kubectl_drives_the_cluster() {
    if std::env::var_os("KUBEWRIGHT_KUBECTL").is_none() {
        println!("skipped: kubectl on the example cluster because KUBEWRIGHT_KUBECTL is not set");
        return;
    }
    let versions = kubectl::installed();
    if versions.is_empty() {
        println!("skipped: kubectl because no version from 1.27 on is installed");
        return;
    }
    if !Cluster::has_shell() {
        println!("skipped: kubectl because busybox, the shell of the pods, is not installed");
        return;
    }
    let cluster = Cluster::start();
    let mut failures = Vec::new();
    let mut passed = 0;
    for (version, binary) in versions {
        let kubectl =
            Kubectl::new(&binary, cluster.kubeconfig(), &format!("kubectl-{}", version.replace('.', "-")));
        for (name, check) in day::CHECKS {
            let start = std::time::Instant::now();
            match check(&kubectl, &cluster) {
                Ok(()) => {
                    passed += 1;
                    println!("kubectl {version} {name}: ok ({:.1} s)", start.elapsed().as_secs_f32());
                }
                Err(why) => {
                    println!("kubectl {version} {name}: FAILED: {why}");
                    failures.push(format!("kubectl {version} {name}: {why}"));
                }
            }
        }
    }
    println!("{passed} checks passed, {} failed", failures.len());
    if !failures.is_empty() {
        println!("the cluster's log:\n{}", cluster.log_tail());
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
