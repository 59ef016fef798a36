//! Read your own writes: what the passes of a key wrote, and waiting until the informers show it.

use crate::ObjectKey;
use crate::informer::Follows;
use futures::future::BoxFuture;
use kubewright_client::{Client, Transport};
use kubewright_core::{
    ApiError, ApiRequest, ApiResponse, GroupVersionResource, ObjectMeta, ResponseBody, Target, Verb,
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// A write that an informer has to show before the next pass.
#[derive(Clone, Debug, PartialEq)]
enum Written {
    /// An object was written at this revision.
    At(GroupVersionResource, u64),
    /// An object was deleted for good.
    Gone(GroupVersionResource, ObjectKey, String),
}

/// The writes of one pass, or of several.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// The highest revision written for each resource.
    at: FxHashMap<GroupVersionResource, u64>,
    gone: Vec<(GroupVersionResource, ObjectKey, String)>,
}

impl Writes {
    fn note(&mut self, written: Written) {
        match written {
            Written::At(resource, revision) => {
                let highest = self.at.entry(resource).or_insert(0);
                *highest = revision.max(*highest);
            }
            Written::Gone(resource, key, uid) => self.gone.push((resource, key, uid)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at.is_empty() && self.gone.is_empty()
    }

    /// Waits until the informers among `follows` show all writes; `false` where that takes longer than `limit`. Writes to
    /// resources that nobody here follows do not count.
    pub(crate) async fn settle(&self, follows: &[Arc<dyn Follows>], limit: Duration) -> bool {
        tokio::time::timeout(limit, self.settled(follows)).await.unwrap_or(false)
    }

    async fn settled(&self, follows: &[Arc<dyn Follows>]) -> bool {
        for follow in follows {
            if let Some(revision) = self.at.get(follow.resource())
                && !follow.caught_up(*revision).await
            {
                return false;
            }
            for (resource, key, uid) in &self.gone {
                while resource == follow.resource() && follow.holds(key, uid) {
                    if !follow.caught_up(follow.revision() + 1).await {
                        return false;
                    }
                }
            }
        }
        true
    }
}

/// A transport that notes the writes passing through it.
struct Noting {
    client: Client,
    writes: Arc<Mutex<Writes>>,
}

impl Transport for Noting {
    fn send(&self, request: ApiRequest) -> BoxFuture<'static, Result<ApiResponse, ApiError>> {
        let client = self.client.clone();
        if matches!(request.verb, Verb::Get | Verb::List | Verb::Watch) || request.options.dry_run {
            return Box::pin(async move { client.send(request).await });
        }
        let (verb, target, writes) = (request.verb, request.target.clone(), self.writes.clone());
        Box::pin(async move {
            let response = client.send(request).await?;
            if let Some(written) = written(verb, target, &response.body) {
                writes.lock().note(written);
            }
            Ok(response)
        })
    }
}

/// A client over `client` and the place where its writes are noted.
pub(crate) fn noting(client: &Client) -> (Client, Arc<Mutex<Writes>>) {
    let writes = Arc::new(Mutex::new(Writes::default()));
    let noting = Noting { client: client.clone(), writes: writes.clone() };
    (Client::new(noting, client.user().clone()), writes)
}

fn written(verb: Verb, target: Target, body: &ResponseBody) -> Option<Written> {
    let Target::Resource { resource, namespace, name, .. } = target else {
        return None;
    };
    match (verb, body) {
        (Verb::Delete, ResponseBody::Object(object)) => {
            let key = ObjectKey::of_object(object);
            let header = object.header();
            Some(match lingers(object.bytes()) {
                true => Written::At(resource, object.resource_version()),
                false => Written::Gone(resource, key, header.uid.to_string()),
            })
        }
        (Verb::Delete, ResponseBody::Value(status)) => {
            let uid = status["details"]["uid"].as_str().unwrap_or("").to_owned();
            let key = ObjectKey::new(namespace.unwrap_or_default(), name?);
            // Without a uid an object of the same name, created since, would look like the one deleted.
            (!uid.is_empty()).then_some(Written::Gone(resource, key, uid))
        }
        (Verb::Create | Verb::Update | Verb::Patch, ResponseBody::Object(object)) => {
            Some(Written::At(resource, object.resource_version()))
        }
        _ => None,
    }
}

/// Whether a deleted object still exists: finalizers or a grace period hold it.
fn lingers(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Envelope {
        metadata: ObjectMeta,
    }
    serde_json::from_slice::<Envelope>(bytes).is_ok_and(|e| {
        e.metadata.deletion_timestamp.is_some()
            && (e.metadata.finalizers.is_some_and(|f| !f.is_empty())
                || e.metadata.deletion_grace_period_seconds.is_some_and(|s| s > 0))
    })
}
