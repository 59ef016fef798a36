//! Bundles: functions that add several parts at once.

use crate::parts::{self, Part};
use crate::plane::{Builder, PlaneContext};
use kubewright_core::api::{self, BuiltinOptions};
use kubewright_sched::Profile;

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
pub fn controllers() -> impl Part {
    |builder: &mut Builder| {
        for controller in kubewright_controllers::all() {
            controller.add(builder);
        }
        // Pods find the authority's certificate in a ConfigMap of their namespace.
        let root_ca =
            |cx: &PlaneContext| cx.ca_pem.as_deref().map(kubewright_controllers::root_ca::controller);
        parts::controller("root-ca-certificate-publisher", root_ca).add(builder);
    }
}

/// The default scheduler.
pub fn scheduler() -> impl Part {
    parts::scheduler(|| {
        let profile = Profile::defaults("default-scheduler").build();
        vec![profile.expect("the default profile is complete")]
    })
}

/// All of Kubernetes that there is: kinds, controllers and the scheduler.
pub fn kubernetes() -> impl Part {
    (kinds(), controllers(), scheduler())
}
