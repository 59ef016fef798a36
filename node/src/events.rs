//! Events about pods and the node, under upstream's reasons: queued, bounded, repeated ones counted.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubewright_core::{ContentType, ObjectMeta, SharedClock};
use kubewright_reconcile::client::{Api, Client};
use rustc_hash::FxHashMap;
use serde_json::json;
use std::time::Duration;
use tokio::sync::mpsc;

/// An event that tells of something ordinary.
pub(crate) const NORMAL: &str = "Normal";
/// An event that tells of something wrong.
pub(crate) const WARNING: &str = "Warning";

/// How many events wait to be written; further ones are dropped, as upstream does.
const QUEUE_MAX: usize = 512;
/// How many events are remembered, so that a repeated one is counted instead of written anew.
const KNOWN_MAX: usize = 1024;

struct Draft {
    about: ObjectReference,
    kind: &'static str,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

/// Takes events for a node.
pub(crate) struct Events {
    queue: mpsc::Sender<Draft>,
    clock: SharedClock,
    /// Simulated nodes tell of trouble only: what goes well is written thousands of times for nobody.
    warnings_only: bool,
}

/// Writes the events that were taken.
pub(crate) struct EventWriter {
    queue: mpsc::Receiver<Draft>,
    client: Client,
    node: String,
    known: FxHashMap<String, (String, i32)>,
}

/// A queue of events and its writer.
pub(crate) fn events(
    client: Client,
    node: &str,
    clock: SharedClock,
    warnings_only: bool,
) -> (Events, EventWriter) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let writer = EventWriter { queue: receiver, client, node: node.to_owned(), known: FxHashMap::default() };
    (Events { queue: sender, clock, warnings_only }, writer)
}

impl Events {
    fn put(&self, about: ObjectReference, kind: &'static str, reason: &'static str, message: String) {
        if self.warnings_only && kind == NORMAL {
            return;
        }
        let draft = Draft { about, kind, reason, message, at: self.clock.now() };
        if self.queue.try_send(draft).is_err() {
            tracing::debug!(reason, "the queue of events is full; one is dropped");
        }
    }

    /// About a pod.
    pub(crate) fn pod(&self, pod: &Pod, kind: &'static str, reason: &'static str, message: String) {
        self.put(reference(pod, None), kind, reason, message);
    }

    /// About a container of a pod.
    pub(crate) fn container(
        &self,
        pod: &Pod,
        container: &str,
        kind: &'static str,
        reason: &'static str,
        message: String,
    ) {
        self.put(reference(pod, Some(container)), kind, reason, message);
    }

    /// About the node. As upstream, the uid is the node's name.
    pub(crate) fn node(&self, node: &str, kind: &'static str, reason: &'static str, message: String) {
        let name = Some(node.to_owned());
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            uid: name.clone(),
            name,
            ..ObjectReference::default()
        };
        self.put(about, kind, reason, message);
    }
}

impl EventWriter {
    /// Writes events, for ever.
    pub(crate) async fn run(mut self) {
        while let Some(draft) = self.queue.recv().await {
            let written = tokio::time::timeout(Duration::from_secs(10), self.write(draft)).await;
            if !matches!(written, Ok(Ok(()))) {
                tracing::debug!(result = ?written, "an event was not written");
            }
        }
    }

    async fn write(&mut self, draft: Draft) -> Result<(), kubewright_core::ApiError> {
        let namespace = draft.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api = Api::<Event>::namespaced(self.client.clone(), &namespace);
        let key = format!(
            "{:?}{:?}{}{}{}",
            draft.about.uid, draft.about.field_path, draft.kind, draft.reason, draft.message
        );
        if let Some((name, count)) = self.known.get_mut(&key) {
            let patch = json!({"count": *count + 1, "lastTimestamp": Time(draft.at)});
            match api.patch(name, ContentType::StrategicMergePatch, patch).await {
                Ok(_) => {
                    *count += 1;
                    return Ok(());
                }
                // It expired: write it anew.
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            }
        }
        let event = self.event(&namespace, draft);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&event).await?;
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(key, (name, 1));
        Ok(())
    }

    fn event(&self, namespace: &str, draft: Draft) -> Event {
        let about = draft.about.name.as_deref().unwrap_or("");
        Event {
            metadata: ObjectMeta {
                // Unique enough, and ordered by time, as upstream names them.
                name: Some(format!("{about}.{:x}", draft.at.as_nanosecond() + i128::from(self.salt(&draft)))),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: draft.about,
            type_: Some(draft.kind.to_owned()),
            reason: Some(draft.reason.to_owned()),
            message: Some(draft.message),
            count: Some(1),
            first_timestamp: Some(Time(draft.at)),
            last_timestamp: Some(Time(draft.at)),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        }
    }

    /// Keeps events of one instant (a clock may stand still in a simulation) apart.
    fn salt(&self, draft: &Draft) -> u32 {
        use std::hash::{Hash, Hasher};
        let mut hasher = rustc_hash::FxHasher::default();
        (draft.reason, &draft.message, &draft.about.field_path).hash(&mut hasher);
        u32::try_from(hasher.finish() & 0xffff).unwrap_or(0)
    }
}

fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|s| s.init_containers.as_ref());
    let ephemeral = spec.and_then(|s| s.ephemeral_containers.as_ref());
    let path = container.map(|name| {
        let of_init = init.is_some_and(|i| i.iter().any(|c| c.name == name));
        let of_ephemeral = ephemeral.is_some_and(|e| e.iter().any(|c| c.name == name));
        let list = match (of_init, of_ephemeral) {
            (true, _) => "initContainers",
            (_, true) => "ephemeralContainers",
            _ => "containers",
        };
        format!("spec.{list}{{{name}}}")
    });
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: path,
    }
}
