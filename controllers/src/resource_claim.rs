//! Claims of devices: those of a pod's templates are made, and a claim that nobody uses any more gives its devices back.
//!
//! Two controllers share the work, one looks from the pods and one from the claims.

use crate::pods;
use crate::refusal::in_ending_namespace;
use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate};
use kubewright_core::{ApiError, ContentType, ObjectMeta, Resource};
use kubewright_reconcile::client::DeleteOptions;
use kubewright_reconcile::{Action, Context, Controller, EventType, Informer, ObjectKey, owner};
use serde_json::{Value, json};
use std::sync::Arc;

/// On claims: which of the pod's claims it was made for.
const POD_CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Names leave room for a hyphen and five random characters in 63.
const BASE_BYTES_MAX: usize = 57;
/// How many pods may share a claim.
const RESERVED_MAX: usize = 256;
/// Pods by the template that they still need a claim of, `namespace/name`.
const TEMPLATES: &str = "resource-claim.template";

/// The controllers of claims.
pub fn controllers() -> [Controller; 2] {
    let of_pods = Controller::for_kind::<Pod>("resourceclaim-pods")
        .reports_as("resource_claim")
        .filter(|pod: &Pod| pod_claims(pod).next().is_some())
        .watches::<ResourceClaim>(|claim, _| owner::controller_key::<Pod, _>(claim).into_iter().collect())
        .watches::<ResourceClaimTemplate>(|template, cx| {
            let waiting = indexed(cx).by_index(TEMPLATES, &place(template));
            waiting.iter().map(|p| ObjectKey::of(&**p)).collect()
        })
        .with(|pod: Arc<Pod>, cx: Context| async move { sync_pod(&pod, &cx).await });
    let of_claims = Controller::for_kind::<ResourceClaim>("resourceclaim")
        .reports_as("resource_claim")
        .watches::<Pod>(|pod, _| claim_keys(pod))
        .with(|claim: Arc<ResourceClaim>, cx: Context| async move { sync_claim(&claim, &cx).await });
    [of_pods, of_claims]
}

fn pod_claims(pod: &Pod) -> impl Iterator<Item = &PodResourceClaim> {
    pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten())
}

fn place<K: Resource>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or(""), object.name())
}

fn indexed(cx: &Context) -> Informer<Pod> {
    let informer = cx.informers().of::<Pod>();
    informer.add_index(TEMPLATES, |pod: &Pod| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let lacking = pod_claims(pod).filter(|c| made_name(pod, c).is_none());
        let named = lacking.filter_map(|c| c.resource_claim_template_name.as_ref());
        named.map(|name| format!("{namespace}/{name}").into()).collect()
    });
    informer
}

/// What the pod's status says of the claim that was made: nothing yet, that none is needed, or its name.
fn made_name<'a>(pod: &'a Pod, claim: &PodResourceClaim) -> Option<Option<&'a str>> {
    let statuses = pod.status.as_ref()?.resource_claim_statuses.as_ref()?;
    let found = statuses.iter().find(|s| s.name == claim.name)?;
    Some(found.resource_claim_name.as_deref())
}

/// The names of the pod's claims, as far as they are known.
fn claim_names(pod: &Pod) -> impl Iterator<Item = &str> {
    pod_claims(pod).filter_map(|c| c.resource_claim_name.as_deref().or_else(|| made_name(pod, c).flatten()))
}

fn claim_keys(pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    claim_names(pod).map(|name| ObjectKey::new(namespace, name)).collect()
}

/// Whether a pod will not run any more.
fn is_done(pod: &Pod) -> bool {
    pods::is_terminal(pod) || (pods::is_terminating(pod) && pods::node_name(pod).is_empty())
}

async fn sync_pod(pod: &Pod, cx: &Context) -> Result<Action, ApiError> {
    if pods::is_terminating(pod) || pods::is_terminal(pod) {
        return Ok(Action::Done);
    }
    let mut made = Vec::new();
    for wanted in pod_claims(pod) {
        match ensure(pod, wanted, cx).await {
            Ok(None) => {}
            Ok(Some(name)) => made.push(json!({"name": wanted.name, "resourceClaimName": name})),
            Err(e) if in_ending_namespace(&e) => return Ok(Action::Done),
            Err(e) => {
                let note = format!("PodResourceClaim {}: {e}", wanted.name);
                let (kind, reason) = (EventType::Warning, "FailedResourceClaimCreation");
                cx.events().event(pod, kind, reason, "Creating", &note);
                return Err(e);
            }
        }
    }
    if !made.is_empty() {
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"resourceClaimStatuses": made}});
        let api = cx.api::<Pod>(pod.namespace().unwrap_or(""));
        api.patch_subresource(pod.name(), "status", ContentType::StrategicMergePatch, patch).await?;
    }
    if !pods::node_name(pod).is_empty() {
        reserve_all(pod, cx).await?;
    }
    Ok(Action::Done)
}

/// Makes the claim of a template where it is lacking; gives its name where the pod does not say it yet.
async fn ensure(pod: &Pod, wanted: &PodResourceClaim, cx: &Context) -> Result<Option<String>, ApiError> {
    let Some(template) = &wanted.resource_claim_template_name else { return Ok(None) };
    let namespace = pod.namespace().unwrap_or("");
    let known = cx.informers().of::<ResourceClaim>();
    match made_name(pod, wanted) {
        Some(None) => return Ok(None),
        Some(Some(name)) => {
            let ours = |c: &Arc<ResourceClaim>| owner::is_controlled_by(&c.metadata, pod);
            if known.get(namespace, name).is_some_and(|c| ours(&c)) {
                return Ok(None);
            }
        }
        None => {}
    }
    let for_this = |c: &&Arc<ResourceClaim>| {
        c.metadata.annotations.as_ref().and_then(|a| a.get(POD_CLAIM_NAME)) == Some(&wanted.name)
    };
    let owned = crate::claim::children_of(&known, pod.uid());
    if let Some(claim) = owned.iter().find(for_this) {
        return Ok(Some(claim.name().to_owned()));
    }
    let template = match cx.informers().of::<ResourceClaimTemplate>().get(namespace, template) {
        Some(found) => found,
        None => cx.api::<ResourceClaimTemplate>(namespace).get(template).await?,
    };
    let claim = cx.api::<ResourceClaim>(namespace).create(&claim(pod, wanted, &template)).await?;
    Ok(Some(claim.name().to_owned()))
}

fn claim(pod: &Pod, wanted: &PodResourceClaim, template: &ResourceClaimTemplate) -> ResourceClaim {
    let meta = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM_NAME.to_owned(), wanted.name.clone());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(base(pod.name(), &wanted.name)),
            owner_references: Some(vec![owner::controller_ref(pod)]),
            annotations: Some(annotations),
            labels: meta.labels,
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// The name before its random part; long ones are cut in proportion.
fn base(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= BASE_BYTES_MAX {
        return whole;
    }
    let cut = |name: &str| name[..name.len() * BASE_BYTES_MAX / whole.len()].to_owned();
    format!("{}-{}", cut(pod), cut(claim))
}

/// A pod that was bound by somebody else than the scheduler uses its claims all the same.
async fn reserve_all(pod: &Pod, cx: &Context) -> Result<(), ApiError> {
    let namespace = pod.namespace().unwrap_or("");
    for name in claim_names(pod) {
        let Some(claim) = cx.informers().of::<ResourceClaim>().get(namespace, name) else { continue };
        let Some(status) = claim.status.as_ref().filter(|s| s.allocation.is_some()) else { continue };
        let users = status.reserved_for.as_deref().unwrap_or_default();
        if users.len() >= RESERVED_MAX || users.iter().any(|u| u.uid == pod.uid()) {
            continue;
        }
        let consumer = json!({"resource": "pods", "name": pod.name(), "uid": pod.uid()});
        let meta = json!({"uid": claim.uid(), "resourceVersion": claim.metadata.resource_version});
        let patch = json!({"metadata": meta, "status": {"reservedFor": [consumer]}});
        let api = cx.api::<ResourceClaim>(namespace);
        api.patch_subresource(name, "status", ContentType::StrategicMergePatch, patch).await?;
    }
    Ok(())
}

async fn sync_claim(claim: &ResourceClaim, cx: &Context) -> Result<Action, ApiError> {
    let users = claim.status.iter().flat_map(|s| s.reserved_for.iter().flatten());
    let (mut valid, mut gone) = (Vec::new(), 0);
    for user in users {
        match is_valid(claim, user, cx).await? {
            true => valid.push(user.clone()),
            false => gone += 1,
        }
    }
    let protected = claim.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    let going = claim.metadata.deletion_timestamp.is_some();
    if gone > 0 || (protected && going && valid.is_empty()) {
        return settle(claim, &valid, protected, cx).await.map(|()| Action::Done);
    }
    if !going && is_left_over(claim, cx) {
        let options = DeleteOptions { uid: Some(claim.uid().to_owned()), ..DeleteOptions::default() };
        let api = cx.api::<ResourceClaim>(claim.namespace().unwrap_or(""));
        match api.delete(claim.name(), &options).await {
            Err(e) if !e.is_not_found() => return Err(e),
            _ => {}
        }
    }
    Ok(Action::Done)
}

/// Whether a user is still there; the server is asked before one is given up that the informer does not know.
async fn is_valid(
    claim: &ResourceClaim,
    user: &ResourceClaimConsumerReference,
    cx: &Context,
) -> Result<bool, ApiError> {
    if user.resource != "pods" || user.api_group.as_deref().is_some_and(|g| !g.is_empty()) {
        // Others look after their own users.
        return Ok(true);
    }
    let namespace = claim.namespace().unwrap_or("");
    let pod = match cx.informers().of::<Pod>().get(namespace, &user.name) {
        Some(pod) => Some(pod),
        None => cx.api::<Pod>(namespace).get_opt(&user.name).await?,
    };
    Ok(pod.is_some_and(|p| p.uid() == user.uid && !is_done(&p)))
}

/// Takes those off that use the claim no longer; with the last one the devices are given back and the claim may go.
async fn settle(
    claim: &ResourceClaim,
    valid: &[ResourceClaimConsumerReference],
    protected: bool,
    cx: &Context,
) -> Result<(), ApiError> {
    let api = cx.api::<ResourceClaim>(claim.namespace().unwrap_or(""));
    let frees = valid.is_empty() && protected;
    let mut status = json!({"reservedFor": if valid.is_empty() { Value::Null } else { json!(valid) }});
    if frees {
        status["allocation"] = Value::Null;
    }
    let meta = json!({"uid": claim.uid(), "resourceVersion": claim.metadata.resource_version});
    let patch = json!({"metadata": meta, "status": status});
    let claim = api.patch_subresource(claim.name(), "status", ContentType::MergePatch, patch).await?;
    if frees {
        cx.remove_finalizer(&*claim, FINALIZER).await?;
    }
    Ok(())
}

/// Whether the claim was made for a pod that has ended.
fn is_left_over(claim: &ResourceClaim, cx: &Context) -> bool {
    let made = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(POD_CLAIM_NAME));
    let key = owner::controller_key::<Pod, _>(claim).filter(|_| made);
    let pod = key.and_then(|key| cx.informers().of::<Pod>().get_key(&key));
    pod.is_some_and(|p| owner::is_controlled_by(&claim.metadata, &*p) && is_done(&p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_core::SystemClock;
    use kubewright_reconcile::client::Api;
    use kubewright_reconcile::testing::{FakeApi, converges};

    struct Cluster {
        server: FakeApi,
        pods: Api<Pod>,
        claims: Api<ResourceClaim>,
    }

    impl Cluster {
        fn new() -> Self {
            let server = FakeApi::with_clock(Arc::new(SystemClock));
            let client = server.client();
            Cluster {
                pods: Api::namespaced(client.clone(), "n"),
                claims: Api::namespaced(client, "n"),
                server,
            }
        }

        async fn template(&self) {
            let template = json!({"metadata": {"name": "t"}, "spec": {"metadata": {"labels": {"a": "b"}},
                "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}}});
            let api = Api::<ResourceClaimTemplate>::namespaced(self.server.client(), "n");
            api.create(&serde_json::from_value(template).expect("a template")).await.expect("created");
        }

        async fn pod(&self, name: &str, claim: Value, node: &str) -> Arc<Pod> {
            let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [], "resourceClaims": [claim]}});
            self.pods.create(&serde_json::from_value(pod).expect("a pod")).await.expect("created")
        }

        async fn settle(&self) {
            converges(&self.server, controllers(), || true).await.expect("converges");
        }

        /// As the scheduler leaves a claim.
        async fn reserve(&self, claim: &str, pod: &Pod) {
            let first = json!({"metadata": {"finalizers": [FINALIZER]}});
            self.claims.patch(claim, ContentType::MergePatch, first).await.expect("patched");
            let user = json!([{"resource": "pods", "name": pod.name(), "uid": pod.uid()}]);
            let status = json!({"status": {"allocation": {"devices": {"results": []}}, "reservedFor": user}});
            let patched =
                self.claims.patch_subresource(claim, "status", ContentType::MergePatch, status).await;
            patched.expect("patched");
        }

        async fn only_claim(&self) -> Arc<ResourceClaim> {
            let mut all = self.claims.list(Default::default()).await.expect("a list").items;
            assert_eq!(all.len(), 1);
            all.remove(0)
        }
    }

    #[tokio::test]
    async fn a_template_becomes_a_claim_that_the_pod_names() {
        let c = Cluster::new();
        c.pod("p", json!({"name": "gpu", "resourceClaimTemplateName": "t"}), "").await;
        c.settle().await;
        assert!(c.claims.list(Default::default()).await.expect("a list").items.is_empty());
        c.template().await;
        c.settle().await;
        let claim = c.only_claim().await;
        assert!(claim.name().starts_with("p-gpu-"), "{}", claim.name());
        assert_eq!(claim.metadata.annotations.as_ref().expect("annotations")[POD_CLAIM_NAME], "gpu");
        assert_eq!(claim.metadata.labels.as_ref().expect("labels")["a"], "b");
        let pod = c.pods.get("p").await.expect("a pod");
        assert_eq!(claim_names(&pod).collect::<Vec<_>>(), [claim.name()]);
    }

    #[tokio::test]
    async fn a_claim_gives_its_devices_back_with_its_last_user() {
        let c = Cluster::new();
        let shared = json!({"metadata": {"name": "shared"}, "spec": {"devices": {"requests": []}}});
        c.claims.create(&serde_json::from_value(shared).expect("a claim")).await.expect("created");
        let pod = c.pod("p", json!({"name": "x", "resourceClaimName": "shared"}), "a").await;
        c.reserve("shared", &pod).await;
        c.settle().await;
        let status = c.claims.get("shared").await.expect("a claim").status.clone().expect("a status");
        assert_eq!(status.reserved_for.map(|r| r.len()), Some(1), "it is in use");
        let ended = json!({"status": {"phase": "Succeeded"}});
        c.pods.patch_subresource("p", "status", ContentType::MergePatch, ended).await.expect("patched");
        c.settle().await;
        let claim = c.claims.get("shared").await.expect("a claim");
        let status = claim.status.clone().unwrap_or_default();
        assert!(status.allocation.is_none() && status.reserved_for.is_none(), "{status:?}");
        assert_eq!(claim.metadata.finalizers.as_deref().unwrap_or_default(), [""; 0]);
    }

    #[tokio::test]
    async fn what_was_made_for_a_pod_goes_with_it() {
        let c = Cluster::new();
        c.template().await;
        let pod = c.pod("p", json!({"name": "gpu", "resourceClaimTemplateName": "t"}), "a").await;
        c.settle().await;
        let name = c.only_claim().await.name().to_owned();
        c.reserve(&name, &pod).await;
        let ended = json!({"status": {"phase": "Failed"}});
        c.pods.patch_subresource("p", "status", ContentType::MergePatch, ended).await.expect("patched");
        c.settle().await;
        assert!(c.claims.list(Default::default()).await.expect("a list").items.is_empty());
    }

    #[test]
    fn long_names_leave_room_for_their_random_part() {
        assert_eq!(base("p", "c"), "p-c-");
        let long = base(&"p".repeat(63), &"c".repeat(63));
        assert!(long.len() <= BASE_BYTES_MAX && long.contains("p-c"), "{long}");
    }
}
