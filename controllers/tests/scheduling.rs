//! The scheduler as a controller against the fake server: pods are bound where their terms say, victims make room, and the API is told why not.

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kubewright_controllers::{scheduling, scheduling_within};
use kubewright_core::SystemClock;
use kubewright_reconcile::client::Api;
use kubewright_reconcile::testing::{FakeApi, converges};
use kubewright_reconcile::{CancellationToken, Context};
use kubewright_sched::framework::{CycleContext, Locality, Plugin, Points, Verdict};
use kubewright_sched::{NodeIndex, Profile, QueueOptions, Scheduler};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

struct Cluster {
    server: FakeApi,
    pods: Api<Pod>,
}

impl Cluster {
    /// Two nodes of 4 CPUs in two zones.
    async fn new() -> Self {
        let server = FakeApi::with_clock(Arc::new(SystemClock));
        let client = server.client();
        let namespaces = Api::<Namespace>::all(client.clone());
        namespaces
            .create(
                &serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"team": "x"}}})).unwrap(),
            )
            .await
            .unwrap();
        for (name, zone) in [("a", "z1"), ("b", "z2")] {
            let node = json!({
                "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": name}},
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
            });
            Api::<Node>::all(client.clone()).create(&serde_json::from_value(node).unwrap()).await.unwrap();
        }
        Cluster { pods: Api::namespaced(client, "n"), server }
    }

    async fn add(&self, name: &str, cpu: &str, labels: Value, spec: Value) {
        let mut pod = json!({
            "metadata": {"namespace": "n", "name": name, "labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]},
        });
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        self.pods.create(&serde_json::from_value(pod).unwrap()).await.unwrap();
    }

    async fn settle(&self) {
        converges(&self.server, [scheduling(|| Scheduler::with_defaults(1))], || true).await.unwrap();
    }

    async fn pod(&self, name: &str) -> Option<Pod> {
        self.pods.get(name).await.ok().map(|p| (*p).clone())
    }

    async fn node_of(&self, name: &str) -> Option<String> {
        self.pod(name).await?.spec?.node_name
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_bound_where_their_terms_say() {
    let c = Cluster::new().await;
    let term = json!([{"topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": {"app": "x"}},
        "namespaceSelector": {"matchLabels": {"team": "x"}}}]);
    let anti =
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
    c.add("one", "1", json!({"app": "x"}), anti.clone()).await;
    c.add("two", "1", json!({"app": "x"}), anti.clone()).await;
    c.add("three", "1", json!({"app": "x"}), anti).await;
    c.settle().await;
    let mut on = Vec::new();
    for name in ["one", "two", "three"] {
        on.extend(c.node_of(name).await);
    }
    on.sort();
    assert_eq!(on, ["a", "b"], "a zone takes one of them, the third waits");
    let mut said = Vec::new();
    for name in ["one", "two", "three"] {
        let status = c.pod(name).await.unwrap().status.unwrap_or_default();
        said.extend(status.conditions.into_iter().flatten().filter_map(|c| c.message));
    }
    assert!(said.iter().any(|m| m.contains("2 node(s) didn't match pod anti-affinity rules")), "{said:?}");
    let events = Api::<Event>::namespaced(c.server.client(), "n").list(Default::default()).await.unwrap();
    let reasons: Vec<_> = events.items.iter().filter_map(|e| e.reason.clone()).collect();
    assert_eq!(reasons.iter().filter(|r| *r == "Scheduled").count(), 2, "{reasons:?}");
    assert!(reasons.iter().any(|r| r == "FailedScheduling"), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_made_for_an_urgent_pod() {
    let c = Cluster::new().await;
    let budget = json!({
        "metadata": {"namespace": "n", "name": "kept"},
        "spec": {"selector": {"matchLabels": {"app": "kept"}}},
        "status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1},
    });
    let budgets = Api::<PodDisruptionBudget>::namespaced(c.server.client(), "n");
    budgets.create(&serde_json::from_value(budget).unwrap()).await.unwrap();
    c.add("kept", "4", json!({"app": "kept"}), json!({"nodeName": "a"})).await;
    c.add("other", "4", json!({}), json!({"nodeName": "b"})).await;
    c.add("urgent", "2", json!({}), json!({"priority": 100})).await;
    let until = std::time::Duration::from_secs(20);
    let bound = async {
        loop {
            c.settle().await;
            if c.node_of("urgent").await.is_some() {
                return;
            }
        }
    };
    tokio::time::timeout(until, bound).await.expect("it is bound in time");
    assert_eq!(c.node_of("urgent").await.as_deref(), Some("b"));
    assert!(c.pod("other").await.is_none_or(|p| p.metadata.deletion_timestamp.is_some()));
    assert!(c.pod("kept").await.is_some(), "its budget spares it");
}

/// Does not come back for a pod of this name until the sender is gone.
struct Hangs(Arc<Mutex<mpsc::Receiver<()>>>);

impl Plugin for Hangs {
    fn name(&self) -> &'static str {
        "Hangs"
    }
    fn points(&self) -> Points {
        Points::FILTER
    }
    fn locality(&self) -> Locality {
        Locality::Cluster
    }
    fn filter(&self, cx: CycleContext<'_>, _: NodeIndex) -> Verdict {
        if cx.pod.key.name == "hangs" {
            let _ = self.0.lock().unwrap().recv();
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_holds_its_pod_and_no_other() {
    let c = Cluster::new().await;
    let (release, blocked) = mpsc::channel();
    let blocked = Arc::new(Mutex::new(blocked));
    // The urgent one is tried first.
    c.add("hangs", "1", json!({}), json!({"priority": 10})).await;
    c.add("other", "1", json!({}), json!({})).await;
    let make = move || {
        let profile = Profile::defaults("default-scheduler").plugin(Hangs(blocked.clone())).build().unwrap();
        Scheduler::new(vec![profile], QueueOptions::default(), 1).unwrap()
    };
    let seen = async {
        while c.node_of("other").await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let controller = scheduling_within(Duration::from_secs(4), make);
    let cancel = CancellationToken::new();
    let (cx, until) = (Context::new(c.server.client()), cancel.clone());
    let running = tokio::spawn(async move { controller.run(cx, until).await });
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("the other pod is bound");
    let status = c.pod("hangs").await.unwrap().status.unwrap_or_default();
    let said = status.conditions.into_iter().flatten().find(|c| c.type_ == "PodScheduled").unwrap();
    assert_eq!(said.reason.as_deref(), Some("SchedulerError"));
    let text = said.message.unwrap_or_default();
    assert!(text.contains("a plugin did not come back within 4 s"), "{text}");
    drop(release);
    cancel.cancel();
    running.await.unwrap();
    assert_eq!(c.node_of("hangs").await, None, "what comes back too late decides nothing");
}
