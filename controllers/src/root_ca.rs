//! Root certificates: each namespace has a ConfigMap with the certificate that pods verify the API server by.

use crate::refusal::in_ending_namespace;
use crate::service_account::is_active;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::{Action, Context, Controller, ObjectKey};
use std::collections::BTreeMap;
use std::sync::Arc;

const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const ABOUT: &str = "The certificate authority by which clients inside the cluster verify the API server under its internal names.";

/// The controller that publishes `ca_pem`, the PEM text of the API server's certificate authority.
pub fn controller(ca_pem: impl Into<String>) -> Controller {
    let ca: Arc<str> = ca_pem.into().into();
    Controller::for_kind::<Namespace>("root-ca-certificate-publisher")
        .filter(is_active)
        .watches::<ConfigMap>(|map, _| {
            let of_namespace = || ObjectKey::new("", map.namespace().unwrap_or(""));
            (map.name() == NAME).then(of_namespace).into_iter().collect()
        })
        .concurrency(2)
        .with(move |namespace: Arc<Namespace>, cx: Context| {
            let ca = ca.clone();
            async move { publish(&namespace, &ca, &cx).await }
        })
}

async fn publish(namespace: &Namespace, ca: &str, cx: &Context) -> Result<Action, ApiError> {
    if !is_active(namespace) {
        return Ok(Action::Done);
    }
    let data = BTreeMap::from([(KEY.to_owned(), ca.to_owned())]);
    let api = cx.api::<ConfigMap>(namespace.name());
    let result = match cx.informers().of::<ConfigMap>().get(namespace.name(), NAME) {
        Some(present) if present.data.as_ref() == Some(&data) => return Ok(Action::Done),
        Some(present) => {
            let map = ConfigMap { data: Some(data), binary_data: None, ..ConfigMap::clone(&present) };
            api.replace(NAME, &map).await
        }
        None => {
            let metadata = ObjectMeta {
                name: Some(NAME.to_owned()),
                annotations: Some(BTreeMap::from([(DESCRIPTION.to_owned(), ABOUT.to_owned())])),
                ..ObjectMeta::default()
            };
            api.create(&ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }).await
        }
    };
    match result {
        Err(e) if in_ending_namespace(&e) => Ok(Action::Done),
        other => other.map(|_| Action::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_core::ContentType;
    use kubewright_reconcile::client::Api;
    use kubewright_reconcile::testing::{FakeApi, converges};
    use serde_json::json;

    #[tokio::test]
    async fn each_namespace_has_the_certificate_and_gets_it_back() {
        let server = FakeApi::new();
        let namespace = serde_json::from_value(json!({"metadata": {"name": "a"}})).expect("a namespace");
        Api::<Namespace>::all(server.client()).create(&namespace).await.expect("created");
        let count = || server.count(&ConfigMap::resource());
        let run =
            || async { converges(&server, [controller("PEM")], || count() == 1).await.expect("converges") };
        run().await;
        let maps = Api::<ConfigMap>::namespaced(server.client(), "a");
        let spoil = json!({"data": {"ca.crt": "other", "more": "1"}});
        maps.patch(NAME, ContentType::MergePatch, spoil).await.expect("patched");
        run().await;
        let map = maps.get(NAME).await.expect("a map");
        assert_eq!(map.data, Some(BTreeMap::from([(KEY.to_owned(), "PEM".to_owned())])));
    }
}
