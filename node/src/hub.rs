//! What all the agents of one process share: informers, and the way of each pod to its node.
//!
//! One watch of pods feeds any number of nodes: an event costs one look-up by node name, however many nodes there are.

use crate::source::ApiSource;
use k8s_openapi::api::core::v1::{Pod, Service};
use kubewright_core::SharedClock;
use kubewright_reconcile::client::Client;
use kubewright_reconcile::{Change, Informer, Informers};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::sync::{Arc, Weak};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const BY_NODE: &str = "spec.nodeName";
const BATCH_MAX: usize = 1024;

/// What a node hears about one of its pods: the newest state, or that it is gone.
#[derive(Clone, Debug)]
pub(crate) enum PodNews {
    Present(Arc<Pod>),
    Gone(Arc<Pod>),
}

/// The unread news of one node, at most one item a pod.
#[derive(Default)]
pub(crate) struct NodeMailbox {
    news: Mutex<FxHashMap<SmolStr, PodNews>>,
    notify: Notify,
}

impl NodeMailbox {
    fn put(&self, news: PodNews) {
        let (PodNews::Present(pod) | PodNews::Gone(pod)) = &news;
        let uid = SmolStr::new(pod.metadata.uid.as_deref().unwrap_or(""));
        self.news.lock().insert(uid, news);
        self.notify.notify_one();
    }

    /// All unread news.
    pub(crate) fn take(&self) -> Vec<PodNews> {
        self.news.lock().drain().map(|(_, n)| n).collect()
    }

    /// Waits for news.
    pub(crate) async fn wait(&self) {
        self.notify.notified().await;
    }
}

type Routes = Arc<Mutex<FxHashMap<SmolStr, Weak<NodeMailbox>>>>;

/// Informers and routes for the agents of one process. Dropping it ends its task.
pub struct NodeHub {
    informers: Informers,
    pods: Informer<Pod>,
    services: Informer<Service>,
    source: Arc<ApiSource>,
    routes: Routes,
    router: JoinHandle<()>,
}

impl NodeHub {
    /// A hub over these informers.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(informers: &Informers, clock: SharedClock) -> Arc<Self> {
        let pods = informers.of::<Pod>();
        pods.add_index(BY_NODE, |pod: &Pod| node_of(pod).map(SmolStr::new).into_iter().collect());
        let routes = Routes::default();
        let router = tokio::spawn(route(pods.clone(), routes.clone()));
        Arc::new(NodeHub {
            services: informers.of::<Service>(),
            source: Arc::new(ApiSource::new(informers.clone(), clock)),
            informers: informers.clone(),
            pods,
            routes,
            router,
        })
    }

    /// The client that the informers read with.
    pub fn client(&self) -> &Client {
        self.informers.client()
    }

    /// The informers.
    pub fn informers(&self) -> &Informers {
        &self.informers
    }

    pub(crate) fn source(&self) -> &Arc<ApiSource> {
        &self.source
    }

    /// Opens a node's mailbox and puts the pods in it that the node has already.
    pub(crate) async fn open(&self, node: &str) -> Arc<NodeMailbox> {
        let mailbox = Arc::new(NodeMailbox::default());
        self.routes.lock().insert(SmolStr::new(node), Arc::downgrade(&mailbox));
        self.pods.synced().await;
        self.services.synced().await;
        for pod in self.pods.by_index(BY_NODE, node) {
            mailbox.put(PodNews::Present(pod));
        }
        mailbox
    }

    /// The services whose variables pods of this namespace get.
    pub(crate) fn services(&self, namespace: &str) -> Vec<Arc<Service>> {
        let mut all = self.services.list_in(namespace);
        if namespace != "default" {
            all.extend(self.services.get("default", "kubernetes"));
        }
        all
    }
}

impl Drop for NodeHub {
    fn drop(&mut self) {
        self.router.abort();
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

async fn route(pods: Informer<Pod>, routes: Routes) {
    let mut changes = pods.subscribe();
    loop {
        let batch = changes.batch(BATCH_MAX).await;
        if batch.is_empty() {
            return;
        }
        let routes = routes.lock();
        for change in batch {
            let news = match change {
                Change::Applied { object, .. } => PodNews::Present(object),
                Change::Deleted(object) => PodNews::Gone(object),
            };
            let (PodNews::Present(pod) | PodNews::Gone(pod)) = &news;
            if let Some(mailbox) = node_of(pod).and_then(|n| routes.get(n)).and_then(Weak::upgrade) {
                mailbox.put(news);
            }
        }
    }
}
