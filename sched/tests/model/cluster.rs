//! Random clusters: a few nodes, labels, taints and pods, with everything that placement looks at, drawn from small sets so that
//! things meet.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A node comes or changes.
    Node(Value),
    /// The n-th node goes.
    RemoveNode(usize),
    /// A pod is to be placed.
    Pod(Value),
    /// The n-th placed pod goes.
    RemovePod(usize),
}

/// The volumes: a name, and the zones that reach it; none means all nodes.
pub(crate) const VOLUMES: [(&str, &[&str]); 3] = [("v0", &["z0"]), ("v1", &["z1", "z2"]), ("v2", &[])];

/// The one service: pods of namespace `a` with this colour are its.
pub(crate) const SERVED: (&str, &str) = ("a", "red");

/// A cluster's history.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) namespaces: Vec<Value>,
    pub(crate) steps: Vec<Step>,
}

const NAMES: [&str; 7] = ["n0", "n1", "n2", "n3", "n4", "n5", "n6"];
const ZONES: [&str; 3] = ["z0", "z1", "z2"];
const COLOURS: [&str; 3] = ["red", "blue", "green"];
const KEYS: [&str; 3] = ["kubernetes.io/hostname", "topology.kubernetes.io/zone", "rack"];

fn node() -> impl Strategy<Value = Value> {
    let labels = (
        option::weighted(0.85, select(ZONES.to_vec())),
        option::weighted(0.7, select(vec!["r0", "r1"])),
        any::<bool>(),
    );
    let taint = (select(vec!["k0", "k1"]), select(vec!["NoSchedule", "PreferNoSchedule", "NoExecute"]));
    let size = (1..5i64, 1..9i64, 1..7i64);
    let images = vec((select(vec!["a:1", "b:1"]), 1..2000i64), 0..2);
    (select(NAMES.to_vec()), labels, vec(taint, 0..2), size, images, prop::bool::weighted(0.05)).prop_map(
        |(name, (zone, rack, host), taints, (cpu, memory, pods), images, cordoned)| {
            let mut labels = serde_json::Map::new();
            let mut set = |key: &str, value: Option<&str>| {
                if let Some(value) = value {
                    labels.insert(key.to_owned(), json!(value));
                }
            };
            set("topology.kubernetes.io/zone", zone);
            set("rack", rack);
            set("kubernetes.io/hostname", host.then_some(name));
            let taints: Vec<Value> =
                taints.iter().map(|(k, e)| json!({"key": k, "value": "v", "effect": e})).collect();
            let images: Vec<Value> = images
                .iter()
                .map(|(name, mb)| json!({"names": [name], "sizeBytes": mb * 1024 * 1024}))
                .collect();
            json!({
                "metadata": {"name": name, "labels": labels},
                "spec": {"taints": taints, "unschedulable": cordoned},
                "status": {
                    "allocatable": {
                        "cpu": cpu.to_string(), "memory": format!("{memory}Gi"), "pods": pods.to_string(),
                        "ephemeral-storage": "10Gi", "example.com/gpu": "2"
                    },
                    "images": images,
                },
            })
        },
    )
}

fn selector() -> impl Strategy<Value = Value> {
    let colour = || select(COLOURS.to_vec());
    prop_oneof![
        6 => colour().prop_map(|c| json!({"matchLabels": {"colour": c}})),
        1 => Just(json!({})),
        1 => Just(Value::Null),
        1 => vec(colour(), 1..3).prop_map(|c| json!({"matchExpressions": [{"key": "colour", "operator": "NotIn", "values": c}]})),
        1 => Just(json!({"matchExpressions": [{"key": "colour", "operator": "Exists"}]})),
    ]
}

fn term() -> impl Strategy<Value = Value> {
    let namespaces = prop_oneof![
        4 => Just(json!({})),
        1 => Just(json!({"namespaces": ["a", "b"]})),
        1 => Just(json!({"namespaceSelector": {"matchLabels": {"team": "x"}}})),
        1 => Just(json!({"namespaceSelector": {}})),
    ];
    (select(KEYS.to_vec()), selector(), namespaces).prop_map(|(key, selector, namespaces)| {
        let mut term = json!({"topologyKey": key, "labelSelector": selector});
        for (k, v) in namespaces.as_object().into_iter().flatten() {
            term[k] = v.clone();
        }
        term
    })
}

fn terms(most: usize) -> impl Strategy<Value = Value> {
    let weighted = (1..100i64, term()).prop_map(|(w, t)| json!({"weight": w, "podAffinityTerm": t}));
    let list = move |few: f64| option::weighted(few, vec(term(), 1..=most));
    (list(0.3), option::weighted(0.4, vec(weighted, 1..=2))).prop_map(|(required, preferred)| {
        json!({
            "requiredDuringSchedulingIgnoredDuringExecution": required.unwrap_or_default(),
            "preferredDuringSchedulingIgnoredDuringExecution": preferred.unwrap_or_default(),
        })
    })
}

fn node_affinity() -> impl Strategy<Value = Value> {
    let expression = (select(vec!["In", "NotIn", "Exists", "DoesNotExist"]), vec(select(ZONES.to_vec()), 1..3)).prop_map(
        |(operator, values)| {
            let values = if operator.ends_with("In") { values } else { Vec::new() };
            json!({"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": operator, "values": values}]})
        },
    );
    let preferred = (1..50i64, expression.clone()).prop_map(|(w, t)| json!({"weight": w, "preference": t}));
    (option::weighted(0.4, expression), vec(preferred, 0..2)).prop_map(|(required, preferred)| {
        let mut affinity = json!({"preferredDuringSchedulingIgnoredDuringExecution": preferred});
        if let Some(term) = required {
            affinity["requiredDuringSchedulingIgnoredDuringExecution"] = json!({"nodeSelectorTerms": [term]});
        }
        affinity
    })
}

fn constraint() -> impl Strategy<Value = Value> {
    let policy = || option::of(select(vec!["Honor", "Ignore"]));
    (
        select(KEYS.to_vec()),
        1..3i64,
        any::<bool>(),
        selector(),
        option::weighted(0.3, 1..4i64),
        policy(),
        policy(),
        any::<bool>(),
    )
        .prop_map(|(key, skew, hard, selector, domains, affinity, taints, keys)| {
            json!({
                "topologyKey": key,
                "maxSkew": skew,
                "whenUnsatisfiable": if hard { "DoNotSchedule" } else { "ScheduleAnyway" },
                "labelSelector": selector,
                "minDomains": domains.filter(|_| hard),
                "nodeAffinityPolicy": affinity,
                "nodeTaintsPolicy": taints,
                "matchLabelKeys": if keys && !selector.is_null() { json!(["revision"]) } else { Value::Null },
            })
        })
}

fn pod() -> impl Strategy<Value = Value> {
    let labels = (option::weighted(0.9, select(COLOURS.to_vec())), select(vec!["1", "2"]));
    let requests = (option::of(1..15i64), option::of(1..20i64), prop::bool::weighted(0.1));
    let toleration = select(vec![
        json!({"key": "k0", "operator": "Exists"}),
        json!({"key": "k1", "operator": "Equal", "value": "v", "effect": "NoSchedule"}),
        json!({"operator": "Exists", "effect": "NoExecute"}),
        json!({"operator": "Exists"}),
    ]);
    let affinity = (
        option::weighted(0.3, node_affinity()),
        option::weighted(0.35, terms(2)),
        option::weighted(0.35, terms(2)),
    );
    (
        select(vec!["a", "b"]),
        labels,
        requests,
        vec(toleration, 0..3),
        affinity,
        option::weighted(0.35, vec(constraint(), 1..3)),
        (
            select(vec!["a", "b:1", "c"]),
            option::weighted(0.1, 80..82i64),
            option::weighted(0.15, select(VOLUMES.map(|(name, _)| name).to_vec())),
            select(vec![0, 0, 0, 5, 9]),
        ),
    )
        .prop_map(|(namespace, (colour, revision), (cpu, memory, gpu), tolerations, affinity, spread, (image, port, claim, priority))| {
            let mut requests = serde_json::Map::new();
            cpu.map(|n| requests.insert("cpu".to_owned(), json!(format!("{}m", n * 100))));
            memory.map(|n| requests.insert("memory".to_owned(), json!(format!("{}Mi", n * 100))));
            gpu.then(|| requests.insert("example.com/gpu".to_owned(), json!("1")));
            let ports: Vec<Value> = port.iter().map(|p| json!({"containerPort": p, "hostPort": p, "protocol": "TCP"})).collect();
            let volumes: Vec<Value> = claim
                .iter()
                .map(|c| json!({"name": "v", "persistentVolumeClaim": {"claimName": c}}))
                .collect();
            let (node, near, far) = affinity;
            let mut labels = json!({"revision": revision});
            if let Some(colour) = colour {
                labels["colour"] = json!(colour);
            }
            json!({
                "metadata": {"namespace": namespace, "labels": labels},
                "spec": {
                    "containers": [{"name": "c", "image": image, "ports": ports, "resources": {"requests": requests}}],
                    "tolerations": tolerations,
                    "affinity": {"nodeAffinity": node, "podAffinity": near, "podAntiAffinity": far},
                    "topologySpreadConstraints": spread.unwrap_or_default(),
                    "volumes": volumes,
                    "priority": priority,
                },
            })
        })
}

/// One of many nodes; some share a host name.
fn plain_node(n: usize) -> Value {
    let host = format!("m{}", n - n % 2);
    json!({
        "metadata": {"name": format!("m{n}"), "labels": {
            "kubernetes.io/hostname": host, "topology.kubernetes.io/zone": ZONES[n % 3], "rack": format!("r{}", n / 20)}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "3"}},
    })
}

/// A history of a small cluster, with `further` nodes besides. Few pod templates, so that pods of one class come again after the cluster changed.
pub(crate) fn case(further: usize) -> impl Strategy<Value = Case> {
    let templates = vec(pod(), 1..5);
    let steps = vec((0..12u8, 0..64usize, node()), 1..40);
    (any::<u64>(), vec(node(), 1..7), templates, steps).prop_map(move |(seed, nodes, templates, steps)| {
        let mut history: Vec<Step> = nodes.into_iter().map(Step::Node).collect();
        history.extend((0..further).map(|n| Step::Node(plain_node(n))));
        for (what, n, node) in steps {
            history.push(match what {
                0 => Step::Node(node),
                1 if n % 3 == 0 => Step::RemoveNode(n % 7),
                1 | 2 => Step::RemovePod(n),
                _ => Step::Pod(templates[n % templates.len()].clone()),
            });
        }
        let namespaces = vec![
            json!({"metadata": {"name": "a", "labels": {"team": "x"}}}),
            json!({"metadata": {"name": "b", "labels": {"team": "y"}}}),
        ];
        Case { seed, namespaces, steps: history }
    })
}
