//! What belongs to a node: its pods, and what these use.
//!
//! The pods come out of the object cache by the index of their node; what each refers to is worked out once for every version of a pod
//! and kept as long as the pod is there.

use crate::auth::objects::ObjectReader;
use crate::pod_refs::{PodRefs, volume_secrets};
use kubewright_core::{ApiObject, GroupVersionResource, meta};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::Value;
use smol_str::SmolStr;
use std::sync::Arc;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// What a node may be related to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    Secret,
    ConfigMap,
    Claim,
    Volume,
    ResourceClaim,
    Attachment,
    ServiceAccount,
    Slice,
    Pod,
}

/// A pod of a node.
struct Related {
    version: u64,
    namespace: SmolStr,
    refs: PodRefs,
}

type View = Arc<FxHashMap<SmolStr, Arc<Related>>>;

/// The graph, as far as it was asked for.
pub(super) struct Graph {
    reader: Arc<dyn ObjectReader>,
    /// The pods of each node that asked, by their uid.
    nodes: Mutex<FxHashMap<String, View>>,
}

fn core(resource: &'static str) -> GroupVersionResource {
    GroupVersionResource::new("", "v1", resource)
}

impl Graph {
    pub(super) fn new(reader: Arc<dyn ObjectReader>) -> Self {
        Graph { reader, nodes: Mutex::default() }
    }

    /// Whether the node has to do with an object.
    pub(super) fn relates(&self, node: &str, thing: Thing, namespace: &str, name: &str) -> bool {
        let view = self.view(node);
        let any = |wanted: &dyn Fn(&PodRefs) -> bool| {
            view.values().any(|pod| pod.namespace == namespace && wanted(&pod.refs))
        };
        match thing {
            Thing::Secret => {
                any(&|r| r.secrets.contains(name)) || self.secret_of_volume(&view, namespace, name)
            }
            Thing::ConfigMap => any(&|r| r.config_maps.contains(name)),
            Thing::Claim => any(&|r| r.claims.contains(name)),
            Thing::ResourceClaim => any(&|r| r.resource_claims.contains(name)),
            Thing::ServiceAccount => any(&|r| r.service_account == name),
            Thing::Volume => {
                let Some(volume) = self.read(&core("persistentvolumes"), "", name) else { return false };
                let of = |field: &str| volume["spec"]["claimRef"][field].as_str().unwrap_or("");
                let (namespace, claim) = (of("namespace"), of("name"));
                view.values().any(|pod| pod.namespace == namespace && pod.refs.claims.contains(claim))
            }
            Thing::Attachment => {
                let resource = GroupVersionResource::new("storage.k8s.io", "v1", "volumeattachments");
                self.read(&resource, "", name).is_some_and(|a| a["spec"]["nodeName"] == node)
            }
            Thing::Slice => {
                let resource = GroupVersionResource::new("resource.k8s.io", "v1", "resourceslices");
                self.read(&resource, "", name).is_some_and(|s| s["spec"]["nodeName"] == node)
            }
            Thing::Pod => {
                self.read(&core("pods"), namespace, name).is_some_and(|p| p["spec"]["nodeName"] == node)
            }
        }
    }

    /// Whether a volume that is bound to a claim of one of these pods needs a secret, which may be of any namespace.
    fn secret_of_volume(&self, view: &View, namespace: &str, name: &str) -> bool {
        let wanted = (namespace.to_owned(), name.to_owned());
        view.values().any(|pod| {
            pod.refs.claims.iter().any(|claim_name| {
                let claim = self.read(&core("persistentvolumeclaims"), &pod.namespace, claim_name);
                let bound = claim.as_ref().and_then(|c| c["spec"]["volumeName"].as_str()).unwrap_or("");
                if bound.is_empty() {
                    return false;
                }
                let Some(volume) = self.read(&core("persistentvolumes"), "", bound) else { return false };
                let reference = &volume["spec"]["claimRef"];
                let mine = reference["namespace"] == pod.namespace.as_str()
                    && reference["name"] == claim_name.as_str();
                mine && volume_secrets(&volume).contains(&wanted)
            })
        })
    }

    fn read(&self, resource: &GroupVersionResource, namespace: &str, name: &str) -> Option<Value> {
        self.reader.get(resource, namespace, name).ok().flatten()?.value().ok()
    }

    /// The pods of a node as they are now.
    fn view(&self, node: &str) -> View {
        let pods = self.reader.pods_on(node).unwrap_or_default();
        let known = self.nodes.lock().get(node).cloned().unwrap_or_default();
        let is_known = |pod: &Arc<ApiObject>| {
            known.get(&pod.header().uid).is_some_and(|k| k.version == pod.resource_version())
        };
        if pods.len() == known.len() && pods.iter().all(is_known) {
            return known;
        }
        let mut view = FxHashMap::default();
        for pod in &pods {
            let kept = known.get(&pod.header().uid).filter(|k| k.version == pod.resource_version());
            let related = match kept {
                Some(kept) => kept.clone(),
                None => Arc::new(Related::of(pod)),
            };
            view.insert(pod.header().uid.clone(), related);
        }
        let view = Arc::new(view);
        let mut nodes = self.nodes.lock();
        if view.is_empty() {
            nodes.remove(node);
        } else {
            nodes.insert(node.to_owned(), view.clone());
        }
        view
    }
}

impl Related {
    fn of(pod: &Arc<ApiObject>) -> Self {
        let value = pod.value().unwrap_or_default();
        // A node makes mirror pods itself: they must not open anything to it.
        let mirror = meta::annotations(&value).is_some_and(|a| a.contains_key(MIRROR));
        let refs = if mirror { PodRefs::default() } else { PodRefs::of(&value) };
        Related { version: pod.resource_version(), namespace: pod.header().namespace.clone(), refs }
    }
}
