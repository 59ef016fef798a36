//! The flow schemas and priority levels that every cluster begins with: the mandatory ones, which stay as they are, and the
//! suggested ones.

use serde_json::{Value, json};

/// The level without a limit, and the schema that leads there.
pub(super) const EXEMPT: &str = "exempt";
/// The level and the schema of what no other schema takes.
pub(super) const CATCH_ALL: &str = "catch-all";
/// Says whether an object follows the server's own ideas.
pub(super) const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

pub(super) fn is_mandatory(name: &str) -> bool {
    matches!(name, EXEMPT | CATCH_ALL)
}

/// Name and spec of each level.
pub(super) fn levels() -> Vec<(&'static str, Value)> {
    let queue = |shares: i32, lendable: i32, queues: i32, hand: i32| {
        json!({"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "limitResponse": {"type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}}}})
    };
    vec![
        (EXEMPT, json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}})),
        (
            CATCH_ALL,
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0,
                "limitResponse": {"type": "Reject"}}}),
        ),
        ("system", queue(30, 33, 64, 6)),
        ("node-high", queue(40, 25, 64, 6)),
        ("leader-election", queue(10, 0, 16, 4)),
        ("workload-high", queue(40, 50, 128, 6)),
        ("workload-low", queue(100, 90, 128, 6)),
        ("global-default", queue(20, 50, 128, 6)),
    ]
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"name": name, "namespace": "kube-system"}})
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], namespaces: &[&str], cluster: bool) -> Value {
    let mut rule =
        json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": namespaces});
    if cluster {
        rule["clusterScope"] = json!(true);
    }
    rule
}

/// Everything that these subjects do.
fn all_of(subjects: &[Value]) -> Value {
    json!([{"subjects": subjects,
        "resourceRules": [resources(&["*"], "*", &["*"], &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}])
}

fn schema(level: &str, precedence: i32, distinguisher: Option<&str>, rules: &Value) -> Value {
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
        "rules": rules});
    if let Some(by) = distinguisher {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    spec
}

/// Name and spec of each schema.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let everybody = [group("system:unauthenticated"), group("system:authenticated")];
    let (by_user, by_namespace) = (Some("ByUser"), Some("ByNamespace"));
    let probes = json!([{"subjects": everybody, "nonResourceRules":
        [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}]);
    let (manager, scheduler) = ("system:kube-controller-manager", "system:kube-scheduler");
    vec![
        (EXEMPT, schema(EXEMPT, 1, None, &all_of(&[group("system:masters")]))),
        ("probes", schema(EXEMPT, 2, None, &probes)),
        ("system-leader-election", schema("leader-election", 100, by_user, &system_elections())),
        ("endpoint-controller", schema("workload-high", 150, by_user, &endpoints())),
        ("workload-leader-election", schema("leader-election", 200, by_user, &workload_elections())),
        ("system-node-high", schema("node-high", 400, by_user, &node_status())),
        ("system-nodes", schema("system", 500, by_user, &all_of(&[group("system:nodes")]))),
        ("kube-controller-manager", schema("workload-high", 800, by_namespace, &all_of(&[user(manager)]))),
        ("kube-scheduler", schema("workload-high", 800, by_namespace, &all_of(&[user(scheduler)]))),
        (
            "kube-system-service-accounts",
            schema("workload-high", 900, by_namespace, &all_of(&[account("*")])),
        ),
        (
            "service-accounts",
            schema("workload-low", 9000, by_user, &all_of(&[group("system:serviceaccounts")])),
        ),
        ("global-default", schema("global-default", 9900, by_user, &all_of(&everybody))),
        (CATCH_ALL, schema(CATCH_ALL, 10_000, by_user, &all_of(&everybody))),
    ]
}

const ELECTS: [&str; 3] = ["get", "create", "update"];

fn system_elections() -> Value {
    let subjects = [user("system:kube-controller-manager"), user("system:kube-scheduler"), account("*")];
    let leases = resources(&ELECTS, "coordination.k8s.io", &["leases"], &["*"], false);
    json!([{"subjects": subjects, "resourceRules": [leases]}])
}

fn workload_elections() -> Value {
    let leases = resources(&ELECTS, "coordination.k8s.io", &["leases"], &["*"], false);
    json!([{"subjects": [account("*")], "resourceRules": [leases]}])
}

fn endpoints() -> Value {
    let subjects = [
        user("system:kube-controller-manager"),
        account("endpoint-controller"),
        account("endpointslicemirroring-controller"),
    ];
    let endpoints = resources(&ELECTS, "", &["endpoints"], &["*"], false);
    json!([{"subjects": subjects, "resourceRules": [endpoints]}])
}

fn node_status() -> Value {
    let nodes = resources(&["*"], "", &["nodes", "nodes/status"], &["*"], true);
    let leases = resources(&["*"], "coordination.k8s.io", &["leases"], &["*"], false);
    json!([{"subjects": [group("system:nodes")], "resourceRules": [nodes, leases]}])
}
