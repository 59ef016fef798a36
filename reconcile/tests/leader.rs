//! Leader election and the manager: one leads, the next follows at once when the Lease is handed back, and a thief ends a term.

use k8s_openapi::api::coordination::v1::Lease;
use kubewright_reconcile::client::Api;
use kubewright_reconcile::testing::FakeApi;
use kubewright_reconcile::{CancellationToken, Context, Controller, LeaderElection, Manager};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// What controllers of all candidates note.
#[derive(Clone, Default)]
struct Terms {
    leading: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
}

impl Terms {
    fn controller(&self) -> Controller {
        let terms = self.clone();
        Controller::from_fn("leads", move |cx: Context| {
            let terms = terms.clone();
            async move {
                terms.begun.fetch_add(1, Ordering::SeqCst);
                let now = terms.leading.fetch_add(1, Ordering::SeqCst) + 1;
                terms.most.fetch_max(now, Ordering::SeqCst);
                cx.cancel().cancelled().await;
                terms.leading.fetch_sub(1, Ordering::SeqCst);
            }
        })
    }

    async fn begun(&self, count: usize) {
        for _ in 0..2000 {
            if self.begun.load(Ordering::SeqCst) >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never: {count} terms");
    }
}

fn election(identity: &str) -> LeaderElection {
    LeaderElection {
        lease_duration: Duration::from_secs(2),
        renew_deadline: Duration::from_secs(1),
        retry_period: Duration::from_millis(50),
        ..LeaderElection::new("n", "leader", identity)
    }
}

fn candidate(api: &FakeApi, terms: &Terms, identity: &str) -> (CancellationToken, JoinHandle<()>) {
    let cancel = CancellationToken::new();
    let manager = Manager::new(Context::new(api.client())).with(terms.controller()).elect(election(identity));
    let token = cancel.clone();
    (cancel, tokio::spawn(async move { manager.run(token).await.unwrap() }))
}

#[tokio::test]
async fn one_leads_and_the_next_follows() {
    let (api, terms) = (FakeApi::new(), Terms::default());
    let (stop_a, a) = candidate(&api, &terms, "a");
    terms.begun(1).await;
    let (stop_b, b) = candidate(&api, &terms, "b");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(terms.begun.load(Ordering::SeqCst), 1, "a holds the Lease");
    let leases = Api::<Lease>::namespaced(api.client(), "n");
    let spec = leases.get("leader").await.unwrap().spec.clone().unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("a"), Some(2)));

    stop_a.cancel();
    a.await.unwrap();
    terms.begun(2).await;
    let spec = leases.get("leader").await.unwrap().spec.clone().unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(1)));
    stop_b.cancel();
    b.await.unwrap();
    assert_eq!(terms.most.load(Ordering::SeqCst), 1, "never two at once");
    assert_eq!(terms.leading.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_lost_lease_ends_the_term() {
    let (api, terms) = (FakeApi::new(), Terms::default());
    let (stop, running) = candidate(&api, &terms, "a");
    terms.begun(1).await;
    let leases = Api::<Lease>::namespaced(api.client(), "n");
    // A thief takes the Lease; the holder may renew in between, so it takes some tries.
    for _ in 0..100 {
        let mut lease = (*leases.get("leader").await.unwrap()).clone();
        lease.spec.as_mut().unwrap().holder_identity = Some("thief".to_owned());
        if leases.replace("leader", &lease).await.is_ok() {
            break;
        }
    }
    for _ in 0..400 {
        if terms.leading.load(Ordering::SeqCst) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(terms.leading.load(Ordering::SeqCst), 0, "the term ended");
    // The thief never renews: after the duration of its Lease the first one leads again.
    terms.begun(2).await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn names_are_unique() {
    let (api, terms) = (FakeApi::new(), Terms::default());
    let manager = Manager::new(Context::new(api.client())).with_all([terms.controller(), terms.controller()]);
    let refused = manager.run(CancellationToken::new()).await.unwrap_err();
    assert!(refused.message().contains("several controllers are named leads"), "{refused}");
}
