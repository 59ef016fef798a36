//! Informers against the fake server: what they hold, what they tell, and how they recover.

use k8s_openapi::api::core::v1::ConfigMap;
use kubewright_core::{ApiError, ApiRequest, Representation, Resource, Verb};
use kubewright_reconcile::client::{Api, DeleteOptions};
use kubewright_reconcile::testing::FakeApi;
use kubewright_reconcile::{Change, Informers, Selection, Subscription};
use std::sync::Arc;
use std::time::Duration;

fn config_map(name: &str, value: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.metadata.labels = Some([("team".to_owned(), value.to_owned())].into());
    map.data = Some([("k".to_owned(), value.to_owned())].into());
    map
}

async fn write(api: &Api<ConfigMap>, name: &str, value: &str) -> u64 {
    let object = match api.get_opt(name).await.unwrap() {
        None => api.create(&config_map(name, value)).await.unwrap(),
        Some(_) => api.replace(name, &config_map(name, value)).await.unwrap(),
    };
    object.metadata.resource_version.as_ref().unwrap().parse().unwrap()
}

fn text(change: Option<Change<ConfigMap>>) -> String {
    let value = |m: &Arc<ConfigMap>| format!("{}={}", m.name(), m.data.as_ref().unwrap()["k"]);
    match change {
        Some(Change::Applied { object, old: None }) => format!("+{}", value(&object)),
        Some(Change::Applied { object, old: Some(old) }) => format!("{}>{}", value(&old), value(&object)),
        Some(Change::Deleted(object)) => format!("-{}", value(&object)),
        None => "end".to_owned(),
    }
}

async fn check(changes: &mut Subscription<ConfigMap>, want: &[&str]) {
    for want in want {
        let change = tokio::time::timeout(Duration::from_secs(20), changes.next()).await;
        assert_eq!(text(change.unwrap_or_else(|_| panic!("waited for {want}"))), *want);
    }
    assert!(changes.try_next().is_none());
}

#[tokio::test]
async fn the_first_objects_are_streamed_where_the_server_can() {
    let server = FakeApi::new();
    let api = Api::<ConfigMap>::namespaced(server.client(), "n");
    for n in 0..1000 {
        write(&api, &format!("m{n}"), "1").await;
    }
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let spy = |refuses: bool| {
        let (inner, seen) = (server.client(), seen.clone());
        let service = tower::service_fn(move |request: ApiRequest| {
            let streams = request.options.send_initial_events == Some(true);
            seen.lock().push((request.verb, streams, request.representation));
            let inner = inner.clone();
            async move {
                match streams && refuses {
                    true => {
                        Err(ApiError::new(kubewright_core::Reason::Invalid, "sendInitialEvents is forbidden"))
                    }
                    false => inner.send(request).await,
                }
            }
        });
        kubewright_reconcile::client::Client::new(service, Default::default())
    };
    let check = async |client, metadata: bool, want: &[(Verb, bool)]| {
        seen.lock().clear();
        let informers = Informers::new(client).streaming();
        let (len, revision) = if metadata {
            let informer = informers.metadata(ConfigMap::resource());
            assert!(informer.synced().await);
            (informer.len(), informer.revision())
        } else {
            let informer = informers.of::<ConfigMap>();
            assert!(informer.synced().await);
            let revision = write(&api, "m0", "2").await;
            assert!(informer.caught_up(revision).await);
            assert_eq!(informer.get("n", "m0").unwrap().data.as_ref().unwrap()["k"], "2");
            (informer.len(), informer.revision())
        };
        assert!(len == 1000 && revision > 0);
        informers.shutdown().await;
        let asked: Vec<_> = seen.lock().iter().map(|(verb, streams, _)| (*verb, *streams)).collect();
        assert_eq!(asked[..want.len()], *want);
        let partial = seen.lock().iter().all(|(.., r)| *r == Representation::PartialObjectMetadata);
        assert_eq!(partial, metadata);
    };
    check(spy(false), false, &[(Verb::Watch, true)]).await;
    check(spy(false), true, &[(Verb::Watch, true)]).await;
    check(spy(true), false, &[(Verb::Watch, true), (Verb::List, false), (Verb::Watch, false)]).await;
}

#[tokio::test]
async fn a_subscriber_sees_merged_steps_and_no_gap() {
    let server = FakeApi::new();
    let api = Api::<ConfigMap>::namespaced(server.client(), "n");
    write(&api, "a", "1").await;
    let informer = Informers::new(server.client()).of::<ConfigMap>();
    assert!(informer.synced().await);
    let mut slow = informer.subscribe();
    check(&mut slow, &["+a=1"]).await;
    write(&api, "a", "2").await;
    write(&api, "b", "1").await;
    write(&api, "unseen", "1").await;
    api.delete("unseen", &DeleteOptions::default()).await.unwrap();
    let revision = write(&api, "a", "3").await;
    assert!(informer.caught_up(revision).await);
    check(&mut slow, &["a=1>a=3", "+b=1"]).await;
    api.delete("b", &DeleteOptions::default()).await.unwrap();
    let revision = write(&api, "b", "9").await;
    assert!(informer.caught_up(revision).await);
    check(&mut slow, &["-b=1", "+b=9"]).await;
}

#[tokio::test]
async fn indexes_follow_each_change() {
    let server = FakeApi::new();
    let api = Api::<ConfigMap>::namespaced(server.client(), "n");
    write(&api, "a", "red").await;
    let informer = Informers::new(server.client()).of::<ConfigMap>();
    informer.synced().await;
    informer.add_index("team", |m| m.data.iter().flat_map(|d| d.values()).map(Into::into).collect());
    let names = |value: &str| -> Vec<String> {
        informer.by_index("team", value).iter().map(|m| m.name().to_owned()).collect()
    };
    assert_eq!(names("red"), ["a"]);
    write(&api, "b", "red").await;
    let revision = write(&api, "a", "blue").await;
    informer.caught_up(revision).await;
    assert_eq!((names("red"), names("blue")), (vec!["b".to_owned()], vec!["a".to_owned()]));
    assert_eq!((informer.list().len(), informer.list_in("n").len(), informer.list_in("m").len()), (2, 2, 0));
    assert!(informer.by_index("no such index", "red").is_empty());
}

#[tokio::test]
async fn it_recovers_from_lost_history_and_errors() {
    let server = FakeApi::new();
    let api = Api::<ConfigMap>::namespaced(server.client(), "n");
    write(&api, "a", "1").await;
    write(&api, "b", "1").await;
    server.fail_with([ApiError::unavailable("not yet"), ApiError::internal("oh")]);
    let informer = Informers::new(server.client()).of::<ConfigMap>();
    assert!(informer.synced().await);
    let mut changes = informer.subscribe();
    check(&mut changes, &["+a=1", "+b=1"]).await;
    // The events of these two are lost with the history: the watch ends with 410 and a list tells.
    server.delay_watches(Duration::from_millis(50));
    let revision = write(&api, "a", "2").await;
    tokio::task::yield_now().await;
    api.delete("b", &DeleteOptions::default()).await.unwrap();
    server.compact();
    informer.caught_up(revision + 1).await;
    check(&mut changes, &["a=1>a=2", "-b=1"]).await;
}

#[tokio::test]
async fn selections_are_shared_by_equality_and_end_with_their_owner() {
    let server = FakeApi::new();
    let api = Api::<ConfigMap>::namespaced(server.client(), "n");
    write(&api, "a", "red").await;
    write(&api, "b", "blue").await;
    let informers = Informers::new(server.client());
    let red = Selection { label_selector: Some("team=red".to_owned()), ..Selection::default() };
    let informer = informers.select::<ConfigMap>(red.clone());
    informer.synced().await;
    assert_eq!(informer.list().len(), 1);
    let before = server.requests();
    assert_eq!(informers.select::<ConfigMap>(red).list().len(), 1);
    assert_eq!(server.requests(), before, "an equal selection shares the informer");
    let mut changes = informer.subscribe();
    check(&mut changes, &["+a=red"]).await;
    let revision = write(&api, "a", "blue").await;
    informer.caught_up(revision).await;
    check(&mut changes, &["-a=blue"]).await;
    informers.shutdown().await;
    assert_eq!(text(changes.next().await), "end");
    assert!(!informer.caught_up(1_000_000).await);
}
