//! The quality of service class of a pod.

use k8s_openapi::api::core::v1::PodSpec;
use kubewright_storage::fields::nanos;

/// `Guaranteed` (every container has equal requests and limits of CPU and memory), `BestEffort` (none has any), else `Burstable`.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let (mut any, mut all) = (false, true);
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let resources = container.resources.clone().unwrap_or_default();
        let (requests, limits) =
            (resources.requests.unwrap_or_default(), resources.limits.unwrap_or_default());
        for name in ["cpu", "memory"] {
            let value = |m: &std::collections::BTreeMap<
                _,
                k8s_openapi::apimachinery::pkg::api::resource::Quantity,
            >| { m.get(name).and_then(|q| nanos(&q.0)).filter(|v| *v > 0) };
            let (request, limit) = (value(&requests), value(&limits));
            any |= request.is_some() || limit.is_some();
            all &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
