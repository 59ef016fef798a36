//! ServiceAccounts: each namespace has one named `default`, for pods that name none.

use crate::refusal::in_ending_namespace;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::{Action, Context, Controller, ObjectKey};
use std::sync::Arc;

const NAME: &str = "default";

/// The ServiceAccount controller.
pub fn controller() -> Controller {
    Controller::for_kind::<Namespace>("serviceaccount")
        .filter(is_active)
        .watches::<ServiceAccount>(|account, _| {
            let of_namespace = || ObjectKey::new("", account.namespace().unwrap_or(""));
            (account.name() == NAME).then(of_namespace).into_iter().collect()
        })
        .concurrency(2)
        .with(|namespace: Arc<Namespace>, cx: Context| async move { ensure(&namespace, &cx).await })
}

/// Whether objects may be created in a namespace.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}

async fn ensure(namespace: &Namespace, cx: &Context) -> Result<Action, ApiError> {
    let present = cx.informers().of::<ServiceAccount>().get(namespace.name(), NAME);
    if !is_active(namespace) || present.is_some() {
        return Ok(Action::Done);
    }
    let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
    let account = ServiceAccount { metadata, ..ServiceAccount::default() };
    match cx.api::<ServiceAccount>(namespace.name()).create(&account).await {
        Err(e) if e.is_already_exists() || in_ending_namespace(&e) => Ok(Action::Done),
        other => other.map(|_| Action::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_reconcile::client::{Api, DeleteOptions};
    use kubewright_reconcile::testing::{FakeApi, converges};
    use serde_json::json;

    #[tokio::test]
    async fn each_active_namespace_has_one_and_gets_it_back() {
        let server = FakeApi::new();
        let namespaces = Api::<Namespace>::all(server.client());
        for name in ["a", "b", "c"] {
            let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
            namespaces.create(&namespace).await.expect("created");
        }
        namespaces.delete("c", &DeleteOptions::default()).await.expect("is going");
        let count = || server.count(&ServiceAccount::resource());
        converges(&server, [controller()], || count() == 2).await.expect("converges");
        let accounts = Api::<ServiceAccount>::namespaced(server.client(), "a");
        let first = accounts.get(NAME).await.expect("an account");
        accounts.delete(NAME, &DeleteOptions::default()).await.expect("deleted");
        converges(&server, [controller()], || count() == 2).await.expect("converges");
        let second = accounts.get(NAME).await.expect("an account");
        assert_ne!(first.uid(), second.uid());
    }
}
