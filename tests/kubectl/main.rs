//! A stock kubectl, in every version that is installed, against the example cluster as a program of its own.
//!
//! The whole of a user's day: apply, get, describe, edit, scale, roll out, log, exec, copy, forward, drain, delete. The oldest and the newest
//! version go through all of it, those between through a part; `KUBEWRIGHT_KUBECTL=all` makes all of them go through all, and
//! `KUBECTL_VERSIONS=1.30,1.31` picks versions.

mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod day;
mod kubectl;

use cluster::Cluster;
use day::{Checks, With};
use kubectl::Kubectl;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How many kubectls are at work at the same time.
const AT_ONCE: usize = 3;

/// One version's way through the day.
struct Walk {
    version: String,
    kubectl: Kubectl,
    whole: bool,
}

impl Walk {
    /// Runs the checks in their order; gives how many passed, and why others did not.
    fn go(&self, checks: &Checks, cluster: &Cluster) -> (usize, Vec<String>) {
        let (mut passed, mut failures) = (0, Vec::new());
        for (name, _, check) in checks.iter().filter(|(_, with, _)| self.whole || *with == With::Each) {
            let (start, version) = (Instant::now(), &self.version);
            match check(&self.kubectl, cluster) {
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
        (passed, failures)
    }
}

#[test]
fn kubectl_drives_the_cluster() {
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
    let all = std::env::var("KUBEWRIGHT_KUBECTL").is_ok_and(|v| v == "all");
    let last = versions.len() - 1;
    let walk = |(at, (version, binary)): (usize, (String, PathBuf))| {
        let kubectl = Kubectl::new(&version, &binary, cluster.kubeconfig());
        Walk { version, kubectl, whole: all || at == 0 || at == last }
    };
    let mut walks: Vec<Walk> = versions.into_iter().enumerate().map(walk).collect();
    // The long ones first, so that the last to end is a short one.
    walks.sort_by_key(|walk| !walk.whole);
    let mut results = side_by_side(&walks, day::DAY, &cluster);
    results.extend(walks.iter().map(|walk| walk.go(day::NODES, &cluster)));
    results.extend(side_by_side(&walks, day::EVENING, &cluster));
    let passed: usize = results.iter().map(|(passed, _)| passed).sum();
    let failures: Vec<String> = results.into_iter().flat_map(|(_, failures)| failures).collect();
    println!("{passed} checks passed, {} failed", failures.len());
    if failures.is_empty() {
        let left = cluster.end();
        assert!(left.is_empty(), "the cluster left behind:\n{}", left.join("\n"));
        return;
    }
    println!("the cluster's log:\n{}", cluster.log_tail());
    panic!("\n{}", failures.join("\n"));
}

/// Lets a few versions go through the checks at a time.
fn side_by_side(walks: &[Walk], checks: &Checks, cluster: &Cluster) -> Vec<(usize, Vec<String>)> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(walks.len()) {
            scope.spawn(|| {
                while let Some(walk) = walks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = walk.go(checks, cluster);
                    results.lock().expect("no thread panicked with it").push(result);
                }
            });
        }
    });
    results.into_inner().expect("no thread panicked with it")
}
