//! ServiceCIDRs: ready once they are seen, and there until no address of theirs is given out that no other range covers.

use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR, ServiceCIDRStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::{Action, Context, Controller, ObjectKey};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// How often a range that is going is looked at, for addresses that were given out at the last moment.
const AGAIN: Duration = Duration::from_secs(10);

/// The ServiceCIDR controller.
pub fn controller() -> Controller {
    Controller::for_kind::<ServiceCIDR>("service-cidr-controller")
        .watches::<IPAddress>(|_, cx| {
            let going = |range: &Arc<ServiceCIDR>| range.metadata.deletion_timestamp.is_some();
            let ranges = cx.informers().of::<ServiceCIDR>().list();
            ranges.iter().filter(|range| going(range)).map(|range| ObjectKey::of(&**range)).collect()
        })
        .concurrency(1)
        .with(async move |range: Arc<ServiceCIDR>, cx: Context| settle(&range, &cx).await)
}

async fn settle(range: &ServiceCIDR, cx: &Context) -> Result<Action, ApiError> {
    let held = range.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    let result = match (range.metadata.deletion_timestamp.is_some(), held) {
        (true, false) => return Ok(Action::Done),
        (true, true) if is_used(range, cx) => {
            let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            tell(range, "False", "Terminating", why, cx).await.map(|()| Action::RequeueAfter(AGAIN))
        }
        (true, true) => finalize(range, false, cx).await,
        (false, false) => finalize(range, true, cx).await,
        (false, true) => {
            tell(range, "True", "", "Kubernetes Service CIDR is ready", cx).await.map(|()| Action::Done)
        }
    };
    match result {
        Err(e) if e.is_not_found() => Ok(Action::Done),
        other => other,
    }
}

async fn finalize(range: &ServiceCIDR, holds: bool, cx: &Context) -> Result<Action, ApiError> {
    let mut finalizers = range.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|f| f != FINALIZER);
    if holds {
        finalizers.push(FINALIZER.to_owned());
    }
    let version = &range.metadata.resource_version;
    let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
    cx.merge(range, patch).await.map(|_| Action::Done)
}

async fn tell(
    range: &ServiceCIDR,
    status: &str,
    reason: &str,
    message: &str,
    cx: &Context,
) -> Result<(), ApiError> {
    let old = range.status.clone().unwrap_or_default();
    let conditions = old.conditions.as_deref().unwrap_or_default();
    if conditions.iter().any(|c| c.type_ == "Ready" && c.status == status) {
        return Ok(());
    }
    let mut conditions = conditions.to_vec();
    conditions.retain(|c| c.type_ != "Ready");
    conditions.push(Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: cx.time(),
        observed_generation: None,
    });
    let new = ServiceCIDRStatus { conditions: Some(conditions) };
    cx.patch_status(range, &old, &new).await.map(drop)
}

fn cidrs(range: &ServiceCIDR) -> Vec<(IpAddr, u32)> {
    let all = range.spec.iter().flat_map(|s| s.cidrs.iter().flatten());
    all.filter_map(|cidr| {
        let (address, bits) = cidr.split_once('/')?;
        Some((address.parse().ok()?, bits.parse().ok()?))
    })
    .collect()
}

fn covers(cidrs: &[(IpAddr, u32)], address: IpAddr) -> bool {
    cidrs.iter().any(|(network, bits)| match (network, address) {
        (IpAddr::V4(n), IpAddr::V4(a)) => {
            let shift = 32_u32.saturating_sub(*bits);
            u32::from(*n).checked_shr(shift) == u32::from(a).checked_shr(shift)
        }
        (IpAddr::V6(n), IpAddr::V6(a)) => {
            let shift = 128_u32.saturating_sub(*bits);
            u128::from(*n).checked_shr(shift) == u128::from(a).checked_shr(shift)
        }
        _ => false,
    })
}

/// Whether an address of the range is given out that no other range covers.
fn is_used(range: &ServiceCIDR, cx: &Context) -> bool {
    let own = cidrs(range);
    let others: Vec<_> = cx
        .informers()
        .of::<ServiceCIDR>()
        .list()
        .iter()
        .filter(|other| other.name() != range.name() && other.metadata.deletion_timestamp.is_none())
        .flat_map(|other| cidrs(other))
        .collect();
    let addresses = cx.informers().of::<IPAddress>().list();
    let mut parsed = addresses.iter().filter_map(|address| address.name().parse::<IpAddr>().ok());
    parsed.any(|address| covers(&own, address) && !covers(&others, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_reconcile::client::{Api, DeleteOptions};
    use kubewright_reconcile::testing::{FakeApi, converges};
    use serde_json::Value;

    fn typed<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).expect("an object")
    }

    #[tokio::test]
    async fn a_range_is_ready_and_goes_when_it_is_empty() {
        let server = FakeApi::new();
        let ranges = Api::<ServiceCIDR>::all(server.client());
        let addresses = Api::<IPAddress>::all(server.client());
        for (name, cidr) in [("a", "10.0.0.0/24"), ("b", "10.0.1.0/24")] {
            let range = json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}});
            ranges.create(&typed(range)).await.expect("created");
        }
        let address = json!({"metadata": {"name": "10.0.0.7"}, "spec": {"parentRef": {"resource": "services", "name": "s"}}});
        addresses.create(&typed(address)).await.expect("created");
        let ready = async |name: &str| {
            let range = ranges.get(name).await.expect("the range");
            let status = range.status.clone().unwrap_or_default();
            status.conditions.unwrap_or_default().iter().map(|c| c.status.clone()).collect::<Vec<_>>()
        };
        converges(&server, [controller()], || true).await.expect("convergence");
        assert_eq!((ready("a").await, ready("b").await), (vec!["True".to_owned()], vec!["True".to_owned()]));
        for name in ["a", "b"] {
            ranges.delete(name, &DeleteOptions::default()).await.expect("deleted");
        }
        let count = || server.count(&ServiceCIDR::resource());
        converges(&server, [controller()], || count() == 1).await.expect("convergence");
        assert_eq!(ready("a").await, ["False"]);
        addresses.delete("10.0.0.7", &DeleteOptions::default()).await.expect("deleted");
        converges(&server, [controller()], || count() == 0).await.expect("convergence");
    }
}
