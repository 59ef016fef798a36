//! Watches by both of kube's strategies, of metadata alone, of one object; a reflector; events.

use super::*;
use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};

pub(super) async fn check(client: &Client, space: &str) {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), space);
    plain(&maps).await;
    for config in [watcher::Config::default().page_size(1), watcher::Config::default().streaming_lists()] {
        follows(&maps, config.labels("set=followed")).await;
    }
    metadata_alone(client, &maps).await;
    one_object(&maps).await;
    reflects(&maps).await;
    records(client, &maps, space).await;
}

fn labelled(name: &str, set: &str) -> ConfigMap {
    let mut map = map(name, &[("n", "1")]);
    map.labels_mut().insert("set".into(), set.into());
    map
}

/// A bare watch from a version on, with the server's end of it; and one from a version that never was.
async fn plain(maps: &Api<ConfigMap>) {
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    maps.create(&PostParams::default(), &labelled("plain", "plain")).await.unwrap();
    maps.delete("plain", &DeleteParams::default()).await.unwrap();
    let params = WatchParams::default().labels("set=plain").timeout(1);
    let events: Vec<_> = within(maps.watch(&params, &start).await.unwrap().try_collect()).await.unwrap();
    let seen: Vec<&str> = events.iter().filter_map(told).collect();
    assert_eq!(seen, ["added", "deleted"], "{events:?}");
    let params = WatchParams::default().initial_events().labels("set=none").timeout(5);
    let stream = maps.watch(&params, "0").await.unwrap();
    pin_mut!(stream);
    let first = within(stream.next()).await.unwrap().unwrap();
    let WatchEvent::Bookmark(mark) = first else { panic!("no mark: {first:?}") };
    assert_eq!(mark.metadata.annotations["k8s.io/initial-events-end"], "true");
}

fn told(event: &WatchEvent<ConfigMap>) -> Option<&'static str> {
    match event {
        WatchEvent::Added(_) => Some("added"),
        WatchEvent::Modified(_) => Some("modified"),
        WatchEvent::Deleted(_) => Some("deleted"),
        WatchEvent::Bookmark(_) => None,
        WatchEvent::Error(_) => Some("error"),
    }
}

/// What is there, then what comes.
async fn follows(maps: &Api<ConfigMap>, config: watcher::Config) {
    for name in ["f-1", "f-2"] {
        maps.create(&PostParams::default(), &labelled(name, "followed")).await.unwrap();
    }
    let stream = watcher(maps.clone(), config);
    pin_mut!(stream);
    let mut seen = Vec::new();
    while !seen.iter().any(|s| s == "done") {
        seen.push(text(&within(stream.try_next()).await.unwrap().unwrap()));
    }
    assert_eq!(seen, ["init", "there f-1", "there f-2", "done"]);
    let patch = Patch::Merge(json!({"data": {"n": "2"}}));
    maps.patch("f-1", &PatchParams::default(), &patch).await.unwrap();
    maps.delete("f-2", &DeleteParams::default()).await.unwrap();
    maps.delete("f-1", &DeleteParams::default()).await.unwrap();
    for wanted in ["now f-1", "gone f-2", "gone f-1"] {
        assert_eq!(text(&within(stream.try_next()).await.unwrap().unwrap()), wanted);
    }
}

fn text<K: ResourceExt>(event: &watcher::Event<K>) -> String {
    match event {
        watcher::Event::Init => "init".to_owned(),
        watcher::Event::InitApply(o) => format!("there {}", o.name_any()),
        watcher::Event::InitDone => "done".to_owned(),
        watcher::Event::Apply(o) => format!("now {}", o.name_any()),
        watcher::Event::Delete(o) => format!("gone {}", o.name_any()),
    }
}

async fn metadata_alone(client: &Client, maps: &Api<ConfigMap>) {
    maps.create(&PostParams::default(), &labelled("m", "metadata")).await.unwrap();
    let space = maps.namespace().expect("namespaced");
    let partial = Api::<PartialObjectMeta<ConfigMap>>::namespaced(client.clone(), space);
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let stream = watcher(partial.clone(), config.labels("set=metadata")).applied_objects();
        pin_mut!(stream);
        let partial = within(stream.try_next()).await.unwrap().unwrap();
        assert_eq!((partial.name_any().as_str(), partial.labels()["set"].as_str()), ("m", "metadata"));
    }
}

async fn one_object(maps: &Api<ConfigMap>) {
    let stream = kube::runtime::watcher::watch_object(maps.clone(), "single");
    pin_mut!(stream);
    assert!(within(stream.try_next()).await.unwrap().unwrap().is_none(), "not there yet");
    maps.create(&PostParams::default(), &map("single", &[])).await.unwrap();
    assert!(within(stream.try_next()).await.unwrap().unwrap().is_some());
    maps.delete("single", &DeleteParams::default()).await.unwrap();
    assert!(within(stream.try_next()).await.unwrap().unwrap().is_none(), "gone");
}

async fn reflects(maps: &Api<ConfigMap>) {
    maps.create(&PostParams::default(), &labelled("r", "reflected")).await.unwrap();
    let (store, writer) = reflector::store::<ConfigMap>();
    let config = watcher::Config::default().labels("set=reflected").streaming_lists();
    let stream = watcher(maps.clone(), config).default_backoff().reflect(writer).touched_objects();
    let run = tokio::spawn(stream.for_each(|_| std::future::ready(())));
    within(store.wait_until_ready()).await.unwrap();
    let reference = ObjectRef::from_obj(&maps.get("r").await.unwrap());
    assert_eq!(store.get(&reference).unwrap().data, map("", &[("n", "1")]).data);
    maps.patch("r", &PatchParams::default(), &Patch::Merge(json!({"data": {"n": "2"}}))).await.unwrap();
    let changed = async {
        while store.get(&reference).is_none_or(|m| m.data != map("", &[("n", "2")]).data) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(changed).await;
    run.abort();
}

/// The recorder counts an event that repeats, in a series.
async fn records(client: &Client, maps: &Api<ConfigMap>, space: &str) {
    let about: ObjectReference = maps.get("m").await.unwrap().object_ref(&());
    let reporter = Reporter { controller: "kube-rs".into(), instance: Some("test".into()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let event = Event {
        type_: EventType::Normal,
        reason: "Seen".into(),
        note: Some("it was seen".into()),
        action: "Look".into(),
        secondary: None,
    };
    recorder.publish(&event, &about).await.unwrap();
    recorder.publish(&event, &about).await.unwrap();
    let events = Api::<k8s_openapi::api::events::v1::Event>::namespaced(client.clone(), space);
    let found = events.list(&ListParams::default().fields("reason=Seen")).await.unwrap().items;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].series.as_ref().map(|s| s.count), Some(2));
    let core = Api::<k8s_openapi::api::core::v1::Event>::namespaced(client.clone(), space);
    let same = core.list(&ListParams::default().fields("involvedObject.name=m")).await.unwrap().items;
    assert_eq!(same[0].message.as_deref(), Some("it was seen"));
}
