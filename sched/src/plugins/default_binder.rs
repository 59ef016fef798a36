//! DefaultBinder: binds through the pod's `binding` subresource.

use crate::framework::{CycleContext, Plugin, Points};
use crate::node::NodeIndex;
use kubewright_core::{ApiRequest, ContentType, GroupVersionResource, Verb};
use serde_json::json;

/// Binds every pod that no plugin before it binds.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultBinder;

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }

    fn points(&self) -> Points {
        Points::BIND
    }

    fn bind(&self, cx: CycleContext<'_>, node: NodeIndex) -> Option<ApiRequest> {
        let key = &cx.pod.key;
        let pods = GroupVersionResource::new("", "v1", "pods");
        let request = ApiRequest::resource(Verb::Create, pods, Some(&key.namespace), Some(&key.name));
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"namespace": key.namespace, "name": key.name, "uid": cx.pod.uid},
            "target": {"kind": "Node", "name": cx.nodes.name(node)},
        });
        Some(request.subresource("binding").body(ContentType::Json, binding))
    }
}
