//! Signs of life: the node's Lease every ten seconds, its status every five minutes or when something changed.

use crate::agent::Inner;
use crate::register;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kubewright_core::{ApiError, ObjectMeta};
use kubewright_reconcile::client::Api;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const NAMESPACE: &str = "kube-node-lease";
/// How long a lease is good for, and how often it is renewed.
const LEASE_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);
/// How often the status is written although nothing changed.
const STATUS: Duration = Duration::from_secs(300);
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(7);
const CALL: Duration = Duration::from_secs(10);

/// Renews lease and status, for ever.
pub(crate) async fn run(a: &Arc<Inner>) {
    let mut lease: Option<Arc<Lease>> = None;
    let mut node_uid: Option<String> = None;
    let mut said = Vec::new();
    let mut status_at = Instant::now();
    let mut retry = RETRY_MIN;
    loop {
        if node_uid.is_none() {
            let node = Api::<Node>::all(a.client.clone()).get_opt(&a.name).await;
            node_uid = node.ok().flatten().and_then(|n| n.metadata.uid.clone());
        }
        let renewed = tokio::time::timeout(CALL, renew(a, lease.take(), node_uid.as_deref())).await;
        match renewed.unwrap_or_else(|_| Err(ApiError::unavailable("no answer"))) {
            Ok(new) => {
                lease = Some(new);
                retry = RETRY_MIN;
            }
            Err(e) => {
                tracing::debug!(node = a.name, error = %e, "the lease is renewed again soon");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
                continue;
            }
        }
        let conditions = register::conditions(a).await;
        if conditions != said || status_at.elapsed() >= STATUS {
            match tokio::time::timeout(CALL, refresh(a)).await {
                Ok(Ok(())) => {
                    said = conditions;
                    status_at = Instant::now();
                }
                Ok(Err(e)) => {
                    tracing::debug!(node = a.name, error = %e, "the node's status is written again soon")
                }
                Err(_) => tracing::debug!(node = a.name, "no answer to the node's status"),
            }
        }
        // A little apart from each other, so that the nodes of a process do not all write in one instant.
        let jitter = Duration::from_millis(a.entropy.next_u64() % 400);
        tokio::time::sleep(RENEW + jitter).await;
    }
}

/// Writes the status; a node that somebody deleted is made anew.
async fn refresh(a: &Arc<Inner>) -> Result<(), ApiError> {
    match Api::<Node>::all(a.client.clone()).get_opt(&a.name).await? {
        Some(node) => register::update(a, &node).await,
        None => {
            register::register(a).await;
            Ok(())
        }
    }
}

async fn renew(a: &Inner, known: Option<Arc<Lease>>, node_uid: Option<&str>) -> Result<Arc<Lease>, ApiError> {
    let api = Api::<Lease>::namespaced(a.client.clone(), NAMESPACE);
    let current = match known {
        Some(lease) => Some(lease),
        None => api.get_opt(&a.name).await?,
    };
    let owner = node_uid.map(|uid| {
        vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: a.name.clone(),
            uid: uid.to_owned(),
            ..OwnerReference::default()
        }]
    });
    let spec = LeaseSpec {
        holder_identity: Some(a.name.clone()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(a.clock.now())),
        ..LeaseSpec::default()
    };
    match current {
        Some(lease) => {
            let mut new = (*lease).clone();
            new.spec = Some(spec);
            if owner.is_some() {
                new.metadata.owner_references = owner;
            }
            api.replace(&a.name, &new).await
        }
        None => {
            let metadata = ObjectMeta {
                name: Some(a.name.clone()),
                namespace: Some(NAMESPACE.to_owned()),
                owner_references: owner,
                ..ObjectMeta::default()
            };
            api.create(&Lease { metadata, spec: Some(spec) }).await
        }
    }
}
