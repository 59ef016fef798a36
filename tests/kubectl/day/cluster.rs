//! Who may do what, the nodes, and the end of the day.

use super::workloads::pod;
use crate::cluster::Cluster;
use crate::kubectl::{Kubectl, Outcome, has};

pub(super) fn auth(k: &Kubectl, _: &Cluster) -> Outcome {
    has(&k.ok(&["auth", "can-i", "create", "pods"])?, "yes")?;
    let nobody = k.run(&["auth", "can-i", "create", "pods", "--as", "nobody"]);
    has(&nobody.stdout, "no")?;
    k.shows(&["auth", "can-i", "--list"], &["Resources", "*.*"])?;
    // Before 1.28 it asks in versions of the API that Kubernetes has dropped since.
    if k.minor > 27 {
        k.shows(&["auth", "whoami"], &["Username"])?;
    }
    k.fails(
        &["get", "pods", "--as", "nobody"],
        "pods is forbidden: User \"nobody\" cannot list resource \"pods\" in API group \"\" in the namespace",
    )?;
    k.ok(&["create", "rolebinding", "looks", "--clusterrole=view", "--user=looker"])?;
    k.until(&["get", "pods", "--as", "looker"], "web-")?;
    k.fails(&["delete", "cm", "one", "--as", "looker"], "forbidden")
}

pub(super) fn tokens(k: &Kubectl, _: &Cluster) -> Outcome {
    k.ok(&["create", "serviceaccount", "robot"])?;
    let token = k.ok(&["create", "token", "robot", "--duration=1h"])?;
    if token.trim().split('.').count() != 3 {
        return Err(format!("no JWT: {token}"));
    }
    k.shows(&["get", "sa"], &["robot"])
}

pub(super) fn raw(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(&["get", "--raw", "/healthz"], &["ok"])?;
    k.shows(&["get", "--raw", "/readyz?verbose"], &["readyz check passed"])?;
    k.shows(&["get", "--raw", "/version"], &["\"minor\""])?;
    k.shows(&["get", "--raw", "/api/v1/namespaces/default"], &["\"kind\":\"Namespace\""])
}

pub(super) fn top(k: &Kubectl, _: &Cluster) -> Outcome {
    k.fails(&["top", "pods"], "Metrics API not available")
}

pub(super) fn nodes(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(&["get", "nodes"], &["STATUS", "ROLES", "AGE", "VERSION", "Ready", "v1.36"])?;
    let name = k.ok(&["get", &pod(k)?, "-o", "jsonpath={.spec.nodeName}"])?;
    k.ok(&["cordon", &name])?;
    k.shows(&["get", "nodes"], &["Ready,SchedulingDisabled"])?;
    k.ok(&["taint", "nodes", &name, "k=v:NoSchedule"])?;
    k.ok(&["taint", "nodes", &name, "k-"])?;
    k.ok(&["create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=1"])?;
    k.until(&["get", "pdb", "web", "-o", "jsonpath={.status.conditions[0].reason}"], "InsufficientPods")?;
    k.fails(
        &["drain", &name, "--ignore-daemonsets", "--pod-selector=app=web", "--timeout=2s"],
        "Cannot evict pod as it would violate the pod's disruption budget.",
    )?;
    k.ok(&["delete", "pdb", "web"])?;
    let drained =
        k.ok(&["drain", &name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"])?;
    has(&drained, "drained")?;
    k.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let moved = k.ok(&["get", &pod(k)?, "-o", "jsonpath={.spec.nodeName}"])?;
    k.ok(&["uncordon", &name])?;
    if moved == name { Err(format!("the pod is still on {name}")) } else { Ok(()) }
}

pub(super) fn clean_up(k: &Kubectl, _: &Cluster) -> Outcome {
    has(&k.ok(&["delete", "cm", "one", "two"])?, "deleted")?;
    k.fails(&["delete", "cm", "one"], "not found")?;
    k.ok(&["delete", "cm", "one", "--ignore-not-found"])?;
    k.ok(&["delete", "cm", "--all"])?;
    has(&k.ok(&["delete", "namespace", &k.namespace, "--timeout=60s"])?, "deleted")?;
    k.fails(&["get", "ns", &k.namespace], "not found")
}
