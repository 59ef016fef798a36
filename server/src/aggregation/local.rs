//! The APIServices of what this server itself answers for: made at the start and as definitions come, taken away as they go.

use super::resource;
use crate::crd::internal;
use crate::encode;
use crate::handlers::delete;
use crate::keys::ResourceId;
use crate::paths::is_upstreams_group;
use crate::server::Shared;
use kubewright_core::meta::{self, CreateContext};
use kubewright_core::resource::WriteContext;
use kubewright_core::{ApiError, ApiRequest, ContentType, KindDescriptor, Verb};
use kubewright_store::{Commit, Compare, Op};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// How many objects one commit makes.
const COMMIT_OBJECTS_MAX: usize = 50;

/// Upstream's priorities of its groups and their versions.
fn priorities(group: &str, version: &str) -> (i64, i64) {
    let of_group = match group {
        "" => return (18_000, 1),
        "apps" => 17_800,
        "events.k8s.io" => 17_750,
        "authentication.k8s.io" => 17_700,
        "authorization.k8s.io" => 17_600,
        "autoscaling" if version == "v2" => return (17_500, 30),
        "autoscaling" => 17_500,
        "batch" => 17_400,
        "certificates.k8s.io" => 17_300,
        "networking.k8s.io" => 17_200,
        "policy" => 17_100,
        "rbac.authorization.k8s.io" => 17_000,
        "storage.k8s.io" => 16_800,
        "apiextensions.k8s.io" | "admissionregistration.k8s.io" => 16_700,
        "scheduling.k8s.io" => 16_600,
        "coordination.k8s.io" => 16_500,
        "node.k8s.io" => 16_300,
        "discovery.k8s.io" => 16_200,
        "flowcontrol.apiserver.k8s.io" => return (16_100, 21),
        "resource.k8s.io" => 15_900,
        _ => return (1_000, 100),
    };
    (of_group, 15)
}

/// The versions that this server answers for, with whether they come from a definition.
fn served(server: &Shared) -> BTreeMap<(String, String), bool> {
    let kinds = server.kinds.load();
    let mut all = BTreeMap::new();
    let own = kinds.registry.iter().map(|k| (&k.group, &k.version, !server.kinds.is_builtin(&k.resource())));
    let computed = server.virtuals.keys().map(|r| (&r.group, &r.version, false));
    for (group, version, custom) in own.chain(computed) {
        // The aggregator's own group has none upstream.
        if group != super::GROUP {
            *all.entry((group.to_string(), version.to_string())).or_insert(custom) &= custom;
        }
    }
    all
}

/// Makes the objects that are missing, all in one commit, and takes those away whose definition is gone.
///
/// # Errors
/// Where the store can't be written.
pub(crate) async fn ensure(server: &Arc<Shared>) -> Result<(), ApiError> {
    let Some(kind) = server.kinds.get(&resource()).map(|k| k.descriptor.clone()) else { return Ok(()) };
    let served = served(server);
    let mut commit = Commit { compares: Vec::new(), ops: Vec::new() };
    for ((group, version), custom) in &served {
        let name = format!("{version}.{group}");
        if server.reader.get(&resource(), "", &name)?.is_some() {
            continue;
        }
        let object = object(server, &kind, (group, version), *custom)?;
        let key = ResourceId::of(&kind).key("", &name);
        commit.compares.push(Compare { key: key.clone(), mod_revision: 0 });
        commit.ops.push(Op::Put { key, value: encode::stored(&object)? });
        if commit.ops.len() == COMMIT_OBJECTS_MAX {
            let full = std::mem::replace(&mut commit, Commit { compares: Vec::new(), ops: Vec::new() });
            write(server, full).await?;
        }
    }
    if !commit.ops.is_empty() {
        write(server, commit).await?;
    }
    withdraw(server, &served).await
}

/// Another server of the same plane may be faster; what is missing then is found missing the next time.
async fn write(server: &Shared, commit: Commit) -> Result<(), ApiError> {
    server.store.commit(commit).await.map(drop).map_err(|e| crate::errors::store(&e))
}

fn object(
    server: &Shared,
    kind: &KindDescriptor,
    (group, version): (&str, &str),
    custom: bool,
) -> Result<Value, ApiError> {
    let (of_group, of_version) = priorities(group, version);
    let managed = if custom { "true" } else { "onstart" };
    let mut object = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {AUTOMANAGED: managed}},
        "spec": {"version": version, "groupPriorityMinimum": of_group, "versionPriority": of_version}});
    if !group.is_empty() {
        object["spec"]["group"] = json!(group);
    }
    let now = server.clock.now();
    kind.strategy.prepare_for_create(&mut object, WriteContext::new(None, now));
    let cx = CreateContext { namespace: None, now, entropy: &server.entropy, generation: kind.generation };
    meta::prepare_create(&mut object, &cx)?;
    Ok(object)
}

async fn withdraw(server: &Arc<Shared>, served: &BTreeMap<(String, String), bool>) -> Result<(), ApiError> {
    for object in server.reader.list(&resource(), "")? {
        if object.header().labels.get(AUTOMANAGED).is_none_or(|m| m != "true") {
            continue;
        }
        let value = object.value()?;
        let text = |field: &str| value["spec"][field].as_str().unwrap_or("").to_owned();
        let (group, version) = (text("group"), text("version"));
        let remote = value["spec"].get("service").is_some_and(|s| !s.is_null());
        if remote || is_upstreams_group(&group) || served.contains_key(&(group, version)) {
            continue;
        }
        let request = ApiRequest::resource(Verb::Delete, resource(), None, Some(&object.header().name));
        match delete::delete(internal(server, request.body(ContentType::Json, Value::Null))?).await {
            Err(e) if !e.is_not_found() => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
