//! Things that the tests of this crate share.

use crate::names;
use crate::observed::Observed;
use futures::future::{BoxFuture, ready};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kubewright_runtime::port::{
    Container, ContainerMetadata, ContainerState, Labels, NamespaceOptions, PodSandbox, PodSandboxMetadata,
    PodSandboxState,
};
use kubewright_storage::{Error, TokenOrder, VolumeSource};
use serde_json::{Value, json};
use std::sync::Arc;

/// Pod `p` in namespace `n` with this spec.
pub(crate) fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
        .expect("a pod")
}

/// An instance `id-<name>` of a container in sandbox `sb`.
pub(crate) fn instance(name: &str, state: &str, exit_code: i32) -> Container {
    let state = match state {
        "running" => ContainerState::Running,
        "exited" => ContainerState::Exited,
        "created" => ContainerState::Created,
        _ => ContainerState::Unknown,
    };
    Container {
        id: format!("id-{name}"),
        sandbox_id: "sb".to_owned(),
        metadata: ContainerMetadata { name: name.to_owned(), attempt: 0 },
        state,
        created_at: 1_000_000_000,
        started_at: 2_000_000_000,
        finished_at: if state == ContainerState::Exited { 3_000_000_000 } else { 0 },
        exit_code,
        image: "img".to_owned(),
        image_ref: "img@sha256:1".to_owned(),
        reason: String::new(),
        message: String::new(),
        labels: [(names::POD_UID.to_owned(), "u".to_owned())].into(),
        annotations: Labels::new(),
        log_path: String::new(),
    }
}

/// A ready sandbox `sb` with these containers.
pub(crate) fn observed(containers: &[Container]) -> Observed {
    let sandbox = PodSandbox {
        id: "sb".to_owned(),
        metadata: PodSandboxMetadata::default(),
        state: PodSandboxState::Ready,
        created_at: 1,
        ips: vec!["10.0.0.9".to_owned()],
        labels: Labels::new(),
        annotations: Labels::new(),
        namespaces: NamespaceOptions::default(),
        runtime_handler: String::new(),
    };
    Observed { sandboxes: vec![sandbox], containers: containers.to_vec(), ips: vec!["10.0.0.9".to_owned()] }
}

/// Objects for volumes and environments.
#[derive(Default)]
pub(crate) struct Objects {
    config_maps: Vec<Arc<ConfigMap>>,
    secrets: Vec<Arc<Secret>>,
}

impl Objects {
    pub(crate) fn from_json(all: &[Value]) -> Self {
        let mut objects = Objects::default();
        for value in all {
            if value["kind"] == "Secret" {
                objects.secrets.push(Arc::new(serde_json::from_value(value.clone()).expect("a Secret")));
            } else {
                objects
                    .config_maps
                    .push(Arc::new(serde_json::from_value(value.clone()).expect("a ConfigMap")));
            }
        }
        objects
    }
}

impl VolumeSource for Objects {
    fn config_map(&self, ns: &str, name: &str) -> BoxFuture<'_, Result<Option<Arc<ConfigMap>>, Error>> {
        let is = |o: &&Arc<ConfigMap>| {
            o.metadata.name.as_deref() == Some(name) && o.metadata.namespace.as_deref() == Some(ns)
        };
        Box::pin(ready(Ok(self.config_maps.iter().find(is).cloned())))
    }

    fn secret(&self, ns: &str, name: &str) -> BoxFuture<'_, Result<Option<Arc<Secret>>, Error>> {
        let is = |o: &&Arc<Secret>| {
            o.metadata.name.as_deref() == Some(name) && o.metadata.namespace.as_deref() == Some(ns)
        };
        Box::pin(ready(Ok(self.secrets.iter().find(is).cloned())))
    }

    fn claim(&self, _: &str, _: &str) -> BoxFuture<'_, Result<Option<Arc<PersistentVolumeClaim>>, Error>> {
        Box::pin(ready(Ok(None)))
    }

    fn persistent_volume(&self, _: &str) -> BoxFuture<'_, Result<Option<Arc<PersistentVolume>>, Error>> {
        Box::pin(ready(Ok(None)))
    }

    fn token(&self, order: TokenOrder) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(ready(Ok(format!("token of {}", order.service_account))))
    }
}
