//! Pods keep others away from their node only, not from a whole zone.

use crate::admission::json::{at, list, text};
use crate::admission::{Admission, AdmissionRequest, Operation, forbidden};
use futures::future::BoxFuture;
use kubewright_core::ApiError;
use serde_json::Value;

const HOSTNAME: &str = "kubernetes.io/hostname";

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitPodHardAntiAffinityTopology;

impl Admission for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn mutates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && request.resource.group.is_empty()
            && request.resource.resource == "pods"
            && request.subresource.is_none()
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let wrong = object.and_then(|pod| {
            let terms = list(
                at(pod, &["spec", "affinity", "podAntiAffinity"]),
                "requiredDuringSchedulingIgnoredDuringExecution",
            );
            let key = terms.iter().map(|term| text(term, "topologyKey")).find(|key| *key != HOSTNAME)?;
            Some((pod, key))
        });
        let answer = match wrong {
            Some((pod, key)) => Err(forbidden(request, pod, &told(key))),
            None => Ok(()),
        };
        Box::pin(std::future::ready(answer))
    }
}

fn told(key: &str) -> String {
    format!(
        "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOSTNAME} is allowed"
    )
}
