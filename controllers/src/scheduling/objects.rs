//! The objects beyond nodes and pods that the scheduler looks at, followed as far as the API server serves them.

use kubewright_core::{GroupVersionResource, Reason, Resource, Verb};
use kubewright_reconcile::{Change, Context};
use kubewright_sched::ClusterObject;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How many changes wait for the scheduler at once.
const WAITING_MAX: usize = 1024;
/// A kind that is not served is asked for again after this.
const ABSENT_RETRY: Duration = Duration::from_secs(30);
/// How long the first decisions wait for these objects.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// Something happened to an object.
pub(super) enum Fact {
    Applied(ClusterObject),
    Deleted(ClusterObject),
    /// A kind was listed once, or is not there.
    Seen,
}

/// The followed kinds; they end when this is dropped.
pub(super) struct Objects {
    receiver: mpsc::Receiver<Fact>,
    _tasks: JoinSet<()>,
    unseen: usize,
}

impl Objects {
    /// Follows every kind that some plugin looks at.
    pub(super) fn follow(cx: &Context) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let mut tasks = JoinSet::new();
        macro_rules! kinds {
            ($($kind:ident)+) => {
                $(tasks.spawn(follow(cx.clone(), ClusterObject::$kind, sender.clone()));)+
            };
        }
        kinds!(Namespace Service ReplicationController ReplicaSet StatefulSet PodDisruptionBudget
               PersistentVolumeClaim PersistentVolume StorageClass CsiNode CsiDriver CsiStorageCapacity
               ResourceClaim DeviceClass ResourceSlice);
        Objects { receiver, unseen: tasks.len(), _tasks: tasks }
    }

    /// The facts up to the point where every kind was listed once, as far as they come in time.
    pub(super) async fn first(&mut self) -> Vec<Fact> {
        let mut facts = Vec::new();
        let all = async {
            while self.unseen > 0 {
                match self.receiver.recv().await {
                    Some(Fact::Seen) => self.unseen -= 1,
                    Some(fact) => facts.push(fact),
                    None => return,
                }
            }
        };
        let in_time = tokio::time::timeout(SYNC_TIMEOUT, all).await.is_ok();
        if !in_time {
            tracing::warn!(kinds = self.unseen, "scheduling begins before these kinds were listed");
        }
        facts
    }

    /// The next fact; pending for ever once there can't be one.
    ///
    /// # Cancel safety
    /// No fact is lost.
    pub(super) async fn next(&mut self) -> Fact {
        match self.receiver.recv().await {
            Some(fact) => fact,
            None => std::future::pending().await,
        }
    }

    /// The next fact, if there is one already.
    pub(super) fn try_next(&mut self) -> Option<Fact> {
        self.receiver.try_recv().ok()
    }
}

async fn follow<K: Resource>(cx: Context, wrap: fn(Arc<K>) -> ClusterObject, sender: mpsc::Sender<Fact>) {
    let mut told = false;
    while !is_served::<K>(&cx).await {
        if !std::mem::replace(&mut told, true) && sender.send(Fact::Seen).await.is_err() {
            return;
        }
        tokio::time::sleep(ABSENT_RETRY).await;
    }
    let informer = cx.informers().of::<K>();
    let mut changes = informer.subscribe();
    informer.synced().await;
    while let Some(change) = changes.try_next() {
        if sender.send(fact(change, wrap)).await.is_err() {
            return;
        }
    }
    if !told && sender.send(Fact::Seen).await.is_err() {
        return;
    }
    while let Some(change) = changes.next().await {
        if sender.send(fact(change, wrap)).await.is_err() {
            return;
        }
    }
}

fn fact<K>(change: Change<K>, wrap: fn(Arc<K>) -> ClusterObject) -> Fact {
    match change {
        Change::Applied { object, .. } => Fact::Applied(wrap(object)),
        Change::Deleted(object) => Fact::Deleted(wrap(object)),
    }
}

/// Whether the API server knows the kind. Failures of other sorts are the informer's to retry.
async fn is_served<K: Resource>(cx: &Context) -> bool {
    let resource: GroupVersionResource = K::resource();
    let mut request = kubewright_core::ApiRequest::resource(Verb::List, resource, None, None);
    request.options.limit = Some(1);
    match cx.client().send(request).await {
        Ok(_) => true,
        Err(e) => !matches!(e.reason(), Reason::NotFound | Reason::MethodNotAllowed),
    }
}
