//! The controller loop against the fake server: passes, own writes, failures, panics, shutdown.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::client::{Api, DeleteOptions};
use kubewright_reconcile::testing::FakeApi;
use kubewright_reconcile::{Action, CancellationToken, Context, Controller, ObjectKey, Reconciler, owner};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn config_map(name: &str, replicas: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.data = Some([("replicas".to_owned(), replicas.to_owned())].into());
    map
}

/// Keeps as many Secrets as the ConfigMap says; without reading its own writes it would make too many.
struct Copies {
    gone: AtomicUsize,
}

impl Reconciler<ConfigMap> for Copies {
    type Error = ApiError;

    async fn reconcile(&self, map: Arc<ConfigMap>, cx: &Context) -> Result<Action, ApiError> {
        let want: usize = map.data.as_ref().and_then(|d| d["replicas"].parse().ok()).expect("a number");
        let all = cx.informers().of::<Secret>().list_in(map.namespace().unwrap_or(""));
        let mine: Vec<_> = all.iter().filter(|s| owner::is_controlled_by(&s.metadata, &*map)).collect();
        let secrets = cx.api::<Secret>("n");
        for surplus in mine.iter().skip(want) {
            secrets.delete(surplus.name(), &DeleteOptions::default()).await?;
        }
        for _ in mine.len()..want {
            let mut secret = Secret::default();
            secret.metadata.generate_name = Some(format!("{}-", map.name()));
            secret.metadata.owner_references = Some(vec![owner::controller_ref(&*map)]);
            secrets.create(&secret).await?;
        }
        Ok(Action::Done)
    }

    async fn gone(&self, key: &ObjectKey, _: &Context) -> Result<Action, ApiError> {
        assert_eq!(key.namespace, "n");
        self.gone.fetch_add(1, Ordering::SeqCst);
        Ok(Action::Done)
    }
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_controller_sees_its_own_writes() {
    let server = FakeApi::new();
    server.delay_watches(Duration::from_millis(20));
    let maps = Api::<ConfigMap>::namespaced(server.client(), "n");
    maps.create(&config_map("a", "3")).await.unwrap();
    let controller = Controller::for_kind::<ConfigMap>("copies")
        .owns::<Secret>()
        .with(Copies { gone: AtomicUsize::new(0) });
    let cancel = CancellationToken::new();
    let task = tokio::spawn({
        let (controller, cx, cancel) = (controller.clone(), Context::new(server.client()), cancel.clone());
        async move { controller.run(cx, cancel).await }
    });
    let count = || server.count(&Secret::resource());
    eventually("three secrets", || count() == 3).await;
    for want in ["7", "2", "5"] {
        maps.replace("a", &config_map("a", want)).await.unwrap();
        eventually("the wanted number", || count() == want.parse::<usize>().unwrap()).await;
    }
    let before = server.writes();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.writes(), before, "it stays still");
    assert_eq!(controller.metrics().errors, 0);
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn failures_and_panics_cost_only_their_key() {
    let server = FakeApi::new();
    let maps = Api::<ConfigMap>::namespaced(server.client(), "n");
    for (name, replicas) in [("bad", "many"), ("good", "1"), ("short", "1")] {
        maps.create(&config_map(name, replicas)).await.unwrap();
    }
    let controller = Controller::for_kind::<ConfigMap>("copies")
        .filter(|map| map.name() != "ignored")
        .with(Copies { gone: AtomicUsize::new(0) });
    let cancel = CancellationToken::new();
    let task = tokio::spawn({
        let (controller, cx, cancel) = (controller.clone(), Context::new(server.client()), cancel.clone());
        async move { controller.run(cx, cancel).await }
    });
    eventually("two secrets", || server.count(&Secret::resource()) >= 2).await;
    eventually("panics", || controller.metrics().panics >= 2).await;
    maps.replace("bad", &config_map("bad", "1")).await.unwrap();
    eventually("the mended one", || server.count(&Secret::resource()) >= 3).await;
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn closures_reconcile_and_requeue() {
    let server = FakeApi::new();
    let maps = Api::<ConfigMap>::namespaced(server.client(), "n");
    maps.create(&config_map("a", "1")).await.unwrap();
    let passes = Arc::new(AtomicUsize::new(0));
    let counter = passes.clone();
    let controller =
        Controller::for_kind::<ConfigMap>("ticker").with(move |_: Arc<ConfigMap>, _: Context| {
            let counter = counter.clone();
            async move {
                counter.fetch_add(1, Ordering::SeqCst);
                Ok::<_, ApiError>(Action::RequeueAfter(Duration::from_millis(1)))
            }
        });
    let cancel = CancellationToken::new();
    let task = tokio::spawn({
        let (cx, cancel) = (Context::new(server.client()), cancel.clone());
        async move { controller.run(cx, cancel).await }
    });
    eventually("five passes", || passes.load(Ordering::SeqCst) >= 5).await;
    cancel.cancel();
    task.await.unwrap();
}
