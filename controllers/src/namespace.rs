//! Namespaces: when one is deleted, everything in it goes first.

use crate::discovery::{Discovered, discover};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, Pod};
use kubewright_core::{ApiError, ContentType, Options, Resource, Verb};
use kubewright_reconcile::client::{Api, DeleteOptions};
use kubewright_reconcile::{Action, Context, Controller, Reconciler};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const FINALIZER: &str = "kubernetes";
/// Resources worked on at once.
const IN_FLIGHT_MAX: usize = 16;
/// When to look again at content that takes its time (grace periods, finalizers).
const AGAIN: Duration = Duration::from_millis(500);

/// The namespace controller.
pub fn controller() -> Controller {
    Controller::for_kind::<Namespace>("namespace").filter(is_terminating).concurrency(8).with(Namespaces)
}

/// Whether a namespace is being deleted.
pub(crate) fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

struct Namespaces;

impl Reconciler<Namespace> for Namespaces {
    type Error = ApiError;

    async fn reconcile(&self, namespace: Arc<Namespace>, cx: &Context) -> Result<Action, ApiError> {
        let held = namespace.spec.as_ref().and_then(|s| s.finalizers.clone()).unwrap_or_default();
        if !is_terminating(&namespace) || !held.iter().any(|f| f == FINALIZER) {
            return Ok(Action::Done);
        }
        let found = discover(cx.client()).await;
        let left = match &found {
            Ok(discovery) => Some(delete_content(cx, namespace.name(), &discovery.found).await),
            Err(_) => None,
        };
        // What can be read goes all the same; the namespace stays for what can't.
        let failed = match found {
            Ok(mut discovery) => discovery.failed.pop().map(|(_, e)| e),
            Err(e) => Some(e),
        };
        write_conditions(cx, &namespace, failed.as_ref(), left.as_ref()).await?;
        failed.map_or(Ok(()), Err)?;
        match left {
            Some(Left { error: Some(e), .. }) => Err(e),
            Some(left) if !left.counts.is_empty() => Ok(Action::RequeueAfter(AGAIN)),
            _ => finalize(cx, &namespace, held).await,
        }
    }
}

/// What a deletion round left over.
#[derive(Debug, Default)]
struct Left {
    /// Objects by resource.
    counts: BTreeMap<String, usize>,
    /// Objects by finalizer.
    finalizers: BTreeMap<String, usize>,
    error: Option<ApiError>,
}

/// Pods go first, since what runs may lean on everything else that is there; the rest only once none of them remains.
async fn delete_content(cx: &Context, namespace: &str, resources: &[Discovered]) -> Left {
    let (pods, others): (Vec<_>, Vec<_>) =
        resources.iter().filter(|d| d.namespaced).cloned().partition(|d| d.resource == Pod::resource());
    let left = delete_each(cx, namespace, pods).await;
    if left.counts.is_empty() && left.error.is_none() {
        return delete_each(cx, namespace, others).await;
    }
    left
}

async fn delete_each(cx: &Context, namespace: &str, resources: Vec<Discovered>) -> Left {
    let calls = resources.into_iter().map(|resource| async move {
        let result = delete_all(cx, namespace, &resource).await;
        (resource, result)
    });
    let results: Vec<_> = stream::iter(calls).buffer_unordered(IN_FLIGHT_MAX).collect().await;
    let mut left = Left::default();
    for (resource, result) in results {
        match result {
            Ok(finalizers) if finalizers.is_empty() => {}
            Ok(finalizers) => {
                let name = match resource.resource.group.as_str() {
                    "" => format!("{}.", resource.resource.resource),
                    group => format!("{}.{group}", resource.resource.resource),
                };
                left.counts.insert(name, finalizers.len());
                for finalizer in finalizers.into_iter().flatten() {
                    *left.finalizers.entry(finalizer).or_default() += 1;
                }
            }
            Err(e) => left.error = Some(e),
        }
    }
    left
}

/// Deletes all objects of a resource; gives the finalizers of each that remains.
async fn delete_all(cx: &Context, namespace: &str, d: &Discovered) -> Result<Vec<Vec<String>>, ApiError> {
    let api = Api::<Value>::dynamic(cx.client().clone(), d.resource.clone(), &d.kind, Some(namespace));
    let one = Options { limit: Some(1), ..Options::default() };
    if api.list_objects(one).await?.items.is_empty() {
        return Ok(Vec::new());
    }
    let options = DeleteOptions { propagation_policy: Some("Background"), ..DeleteOptions::default() };
    match api.delete_collection(&options, Options::default()).await {
        Err(e) if e.code() == 405 => {
            for object in api.list_objects(Options::default()).await?.items {
                match api.delete(&object.header().name, &options).await {
                    Err(e) if !e.is_not_found() => return Err(e),
                    _ => {}
                }
            }
        }
        other => other?,
    }
    let remaining = api.list_objects(Options::default()).await?.items;
    remaining
        .iter()
        .map(|object| {
            let value = object.value()?;
            let all = value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            Ok(all.iter().filter_map(|f| f.as_str().map(str::to_owned)).collect())
        })
        .collect()
}

async fn finalize(cx: &Context, namespace: &Namespace, held: Vec<String>) -> Result<Action, ApiError> {
    let rest: Vec<&String> = held.iter().filter(|f| *f != FINALIZER).collect();
    let mut body = serde_json::to_value(namespace).map_err(ApiError::internal)?;
    body["spec"]["finalizers"] = json!(rest);
    let api = cx.api::<Namespace>("");
    let request = api.request(Verb::Update, Some(namespace.name())).subresource("finalize");
    match cx.client().send(request.body(ContentType::Json, body)).await {
        Err(e) if e.is_not_found() => Ok(Action::Done),
        other => other.map(|_| Action::Done),
    }
}

async fn write_conditions(
    cx: &Context,
    namespace: &Namespace,
    discovery: Option<&ApiError>,
    left: Option<&Left>,
) -> Result<(), ApiError> {
    let old = namespace.status.clone().unwrap_or_default();
    let mut status = old.clone();
    let all = status.conditions.get_or_insert_default();
    for wanted in conditions(discovery, left, cx) {
        match all.iter_mut().find(|c| c.type_ == wanted.type_) {
            Some(c) if c.status == wanted.status && c.message == wanted.message => {}
            Some(c) => *c = wanted,
            None => all.push(wanted),
        }
    }
    match cx.patch_status(namespace, &old, &status).await {
        Err(e) if e.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

fn conditions(discovery: Option<&ApiError>, left: Option<&Left>, cx: &Context) -> Vec<NamespaceCondition> {
    let told = |counts: &BTreeMap<String, usize>, what: &str| {
        let parts: Vec<String> =
            counts.iter().map(|(name, n)| format!("{name} has {n} resource instances")).collect();
        format!("{what}{}", parts.join(", "))
    };
    let held = |counts: &BTreeMap<String, usize>| {
        let parts: Vec<String> =
            counts.iter().map(|(name, n)| format!("{name} in {n} resource instances")).collect();
        format!("Some content in the namespace has finalizers remaining: {}", parts.join(", "))
    };
    let remaining = left.filter(|l| !l.counts.is_empty());
    let finalizers = left.filter(|l| !l.finalizers.is_empty());
    let failed = left.and_then(|l| l.error.as_ref());
    let condition = |kind: &str, bad: Option<(&str, String)>, good: (&str, &str)| NamespaceCondition {
        type_: kind.to_owned(),
        status: if bad.is_some() { "True" } else { "False" }.to_owned(),
        reason: Some(bad.as_ref().map_or(good.0, |b| b.0).to_owned()),
        message: Some(bad.map_or(good.1.to_owned(), |b| b.1)),
        last_transition_time: Some(cx.time()),
    };
    let some_left = "Some resources are remaining: ";
    vec![
        condition(
            "NamespaceDeletionDiscoveryFailure",
            discovery.map(|e| ("DiscoveryFailed", format!("Discovery failed for some groups: {e}"))),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        condition(
            "NamespaceDeletionContentFailure",
            failed.map(|e| ("ContentDeletionFailed", format!("Failed to delete all resource types: {e}"))),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        condition(
            "NamespaceContentRemaining",
            remaining.map(|l| ("SomeResourcesRemain", told(&l.counts, some_left))),
            ("ContentRemoved", "All content successfully removed"),
        ),
        condition(
            "NamespaceFinalizersRemaining",
            finalizers.map(|l| ("SomeFinalizersRemain", held(&l.finalizers))),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ]
}
