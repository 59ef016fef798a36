//! What ResourceQuotas count, shared by the admission that charges them and the controller that counts anew.
//!
//! A [`Counter`] knows one resource: which names of a quota it is counted under, how much an object uses, and which scopes hold it.

mod amounts;
mod pods;
mod scopes;

pub use amounts::{Amounts, quantity};
pub use pods::{Half, is_extended, pod_total, takes_room};
pub use scopes::ScopeTerm;

use crate::api::kit::{at, list, sub, text};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;

/// The greatest number of devices that a claim for "all" of them may get.
const ALL_DEVICES: i64 = 32;
const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
const IMPLICIT_DEVICES: &str = "requests.deviceclass.resource.kubernetes.io/";
const CLAIM_NAMES: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
const SERVICES: [&str; 4] = ["count/services", "services", "services.nodeports", "services.loadbalancers"];
/// Kinds of the core group whose count has a name without `count/` too.
const PLAIN_COUNTS: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// How one resource is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Pods: compute resources and their number.
    Pods,
    /// Services: their number, node ports and load balancers.
    Services,
    /// PersistentVolumeClaims: their number and storage, each by storage class too.
    VolumeClaims,
    /// ResourceClaims: their number and devices by class.
    DeviceClaims,
    /// Anything else: by number, under these names.
    Objects {
        /// `count/<resource>.<group>`.
        name: String,
        /// The older name, where there is one.
        plain: Option<&'static str>,
    },
}

/// How a write reaches an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch<'a> {
    /// It is new.
    Create,
    /// It changes, through a subresource or not (empty).
    Update(&'a str),
}

impl Counter {
    /// The counter of a resource; `None` for events, which are never counted.
    pub fn of(group: &str, resource: &str) -> Option<Counter> {
        Some(match (group, resource) {
            ("" | "events.k8s.io", "events") => return None,
            ("", "pods") => Counter::Pods,
            ("", "services") => Counter::Services,
            ("", "persistentvolumeclaims") => Counter::VolumeClaims,
            ("resource.k8s.io", "resourceclaims") => Counter::DeviceClaims,
            _ => Counter::Objects {
                name: count_name(group, resource),
                plain: PLAIN_COUNTS.iter().find(|n| group.is_empty() && **n == resource).copied(),
            },
        })
    }

    /// Whether such a write can change what is used.
    pub fn handles(&self, touch: Touch<'_>) -> bool {
        match (self, touch) {
            (_, Touch::Create) => true,
            (Counter::Pods, Touch::Update(subresource)) => subresource == "resize",
            (Counter::VolumeClaims, Touch::Update(subresource)) => matches!(subresource, "" | "status"),
            (Counter::Services | Counter::DeviceClaims, Touch::Update(subresource)) => subresource.is_empty(),
            (Counter::Objects { .. }, Touch::Update(_)) => false,
        }
    }

    /// Whether what a quota names is counted here.
    pub fn counts(&self, name: &str) -> bool {
        match self {
            Counter::Pods => pods::counts(name),
            Counter::Services => SERVICES.contains(&name),
            Counter::VolumeClaims => {
                let by_class =
                    |n: &str| name.strip_suffix(n).is_some_and(|rest| rest.ends_with(STORAGE_CLASS));
                name == "count/persistentvolumeclaims"
                    || CLAIM_NAMES.contains(&name)
                    || CLAIM_NAMES.iter().any(|n| by_class(n))
            }
            Counter::DeviceClaims => {
                name == "count/resourceclaims.resource.k8s.io"
                    || name.ends_with(DEVICE_CLASS)
                    || name.starts_with(IMPLICIT_DEVICES)
            }
            Counter::Objects { name: own, plain } => name == own || plain.is_some_and(|p| p == name),
        }
    }

    /// Whether an object is in all these scopes.
    pub fn in_scopes(&self, scopes: &[ScopeTerm], object: &Value) -> bool {
        match self {
            Counter::Pods => scopes.iter().all(|s| s.holds_pod(object)),
            Counter::VolumeClaims => scopes.iter().all(|s| s.holds_claim(object)),
            _ => scopes.is_empty(),
        }
    }

    /// How much an object uses, under every name that it is counted by.
    pub fn usage(&self, object: &Value, now: Timestamp) -> Amounts {
        match self {
            Counter::Pods => pods::usage(object, now),
            Counter::Services => service_usage(object),
            Counter::VolumeClaims => claim_usage(object),
            Counter::DeviceClaims => device_usage(object),
            Counter::Objects { name, plain } => {
                let mut usage = Amounts::default();
                usage.count(name.clone(), 1);
                if let Some(plain) = plain {
                    usage.count(*plain, 1);
                }
                usage
            }
        }
    }

    /// Which of the counted names an object fails to state an amount for, in upstream's words.
    pub fn unstated(&self, counted: &[&str], object: &Value) -> Option<String> {
        match self {
            Counter::Pods => pods::missing(object, counted),
            _ => None,
        }
    }
}

/// `count/deployments.apps`, `count/secrets`.
pub fn count_name(group: &str, resource: &str) -> String {
    if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") }
}

/// The resources (group and plural) that a quota with these names counts.
pub fn counted_resources<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<(String, String)> {
    let special = [
        ("", "pods", Counter::Pods),
        ("", "services", Counter::Services),
        ("", "persistentvolumeclaims", Counter::VolumeClaims),
        ("resource.k8s.io", "resourceclaims", Counter::DeviceClaims),
    ];
    let mut found = BTreeSet::new();
    for name in names {
        if let Some((group, resource, _)) = special.iter().find(|(_, _, c)| c.counts(name)) {
            found.insert(((*group).to_owned(), (*resource).to_owned()));
        } else if let Some(resource) = name.strip_prefix("count/") {
            let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
            found.insert((group.to_owned(), resource.to_owned()));
        } else if PLAIN_COUNTS.contains(&name) {
            found.insert((String::new(), name.to_owned()));
        }
    }
    found
}

fn service_usage(service: &Value) -> Amounts {
    let spec = sub(service, "spec");
    let (kind, all) = (text(spec, "type"), list(spec, "ports"));
    let balancer = kind == "LoadBalancer";
    let given = || all.iter().filter(|p| p["nodePort"].as_i64().unwrap_or(0) != 0).count();
    let ports = match kind {
        "NodePort" => all.len(),
        "LoadBalancer" if sub(spec, "allocateLoadBalancerNodePorts") == false => given(),
        "LoadBalancer" => all.len(),
        _ => 0,
    };
    let mut usage = Amounts::default();
    usage.count("count/services", 1);
    usage.count("services", 1);
    usage.count("services.loadbalancers", i64::from(balancer));
    usage.count("services.nodeports", i64::try_from(ports).unwrap_or(i64::MAX));
    usage
}

fn claim_usage(claim: &Value) -> Amounts {
    let spec = sub(claim, "spec");
    let annotation = at(claim, &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]);
    let class = annotation.as_str().unwrap_or_else(|| text(spec, "storageClassName"));
    let mut usage = Amounts::default();
    let mut put = |name: &str, amount: crate::Quantity| {
        usage.set(name, amount);
        if !class.is_empty() {
            usage.set(format!("{class}{STORAGE_CLASS}{name}"), amount);
        }
    };
    let one = crate::Quantity::new(1, crate::quantity::Format::DecimalSI);
    put("persistentvolumeclaims", one);
    let whole = |value: &Value| quantity(value).map(|q| q.rounded_up(0));
    let wanted = whole(at(spec, &["resources", "requests", "storage"]));
    let given = whole(at(claim, &["status", "allocatedResources", "storage"]));
    if let Some(wanted) = wanted {
        put("requests.storage", given.filter(|g| *g > wanted).unwrap_or(wanted));
    }
    usage.set("count/persistentvolumeclaims", one);
    usage
}

/// The devices that one request of a claim takes at most.
fn devices(request: &Value) -> i64 {
    match text(request, "allocationMode") {
        "All" => ALL_DEVICES,
        _ => request["count"].as_i64().unwrap_or(1),
    }
}

fn device_usage(claim: &Value) -> Amounts {
    let mut usage = Amounts::default();
    usage.count("count/resourceclaims.resource.k8s.io", 1);
    let mut add = |class: &str, number: i64| {
        let mut more = Amounts::default();
        more.count(format!("{class}{DEVICE_CLASS}"), number);
        usage.add(&more);
    };
    for request in list(at(claim, &["spec", "devices"]), "requests") {
        let exactly = sub(request, "exactly");
        if !exactly.is_null() {
            add(text(exactly, "deviceClassName"), devices(exactly));
            continue;
        }
        // One of the alternatives will be taken: the largest of each class is charged.
        let mut largest = std::collections::BTreeMap::new();
        for choice in list(request, "firstAvailable") {
            let number = largest.entry(text(choice, "deviceClassName")).or_insert(0);
            *number = devices(choice).max(*number);
        }
        for (class, number) in largest {
            add(class, number);
        }
    }
    usage
}

#[cfg(test)]
mod tests;
