//! Bundles: functions that add several parts at once.

use crate::parts::{self, Part};
use crate::plane::Builder;
#[cfg(feature = "controllers")]
use crate::plane::PlaneContext;
#[cfg(feature = "controllers")]
use crate::signer::PlaneSigner;
use kubewright_core::api::{self, BuiltinOptions};

/// Every built-in kind.
pub fn kinds() -> impl Part {
    |builder: &mut Builder| {
        // The embedded network gives pods loopback addresses.
        let options = BuiltinOptions { allow_loopback_endpoints: true };
        for kind in api::builtin(&options) {
            parts::descriptor(kind).add(builder);
        }
    }
}

/// The built-in controllers, without the scheduler.
#[cfg(feature = "controllers")]
pub fn controllers() -> impl Part {
    |builder: &mut Builder| {
        for controller in kubewright_controllers::all() {
            controller.add(builder);
        }
        // Pods find the authority's certificate in a ConfigMap of their namespace.
        let root_ca =
            |cx: &PlaneContext| cx.ca_pem.as_deref().map(kubewright_controllers::root_ca::controller);
        parts::controller("root-ca-certificate-publisher", root_ca).add(builder);
        certificates(builder);
    }
}

/// Bootstrap tokens, by which new nodes join: they let in, those whose time is over go, and `kube-public/cluster-info` is signed with the others.
#[cfg(feature = "controllers")]
pub fn bootstrap_tokens() -> impl Part {
    use kubewright_controllers::bootstrap_tokens::{cleaner, signer};
    (parts::access(|access| Ok(access.bootstrap_tokens())), cleaner(), signer())
}

/// What becomes of requests for certificates; only in a plane that has an authority.
#[cfg(feature = "controllers")]
fn certificates(builder: &mut Builder) {
    use kubewright_controllers::certificates::{approving, cleaning, signing};
    parts::controller("csrapproving", |cx| PlaneSigner::of(cx).map(approving)).add(builder);
    parts::controller("csrcleaner", |cx| PlaneSigner::of(cx).map(cleaning)).add(builder);
    parts::controller("csrsigning", |cx| PlaneSigner::of(cx).map(signing)).add(builder);
}

/// The default scheduler.
#[cfg(feature = "controllers")]
pub fn scheduler() -> impl Part {
    parts::scheduler(|| vec![kubewright_sched::Profile::defaults("default-scheduler")])
}

/// All of Kubernetes that there is: kinds, controllers and the scheduler.
#[cfg(feature = "controllers")]
pub fn kubernetes() -> impl Part {
    (kinds(), controllers(), scheduler())
}
