//! Nothing is written that takes more than the namespace's quotas allow; what is written is charged to them.
//!
//! Writes of one namespace are judged together: whoever comes first judges for all who wait, and spends for them in one write of each
//! quota, compared with the state that was judged on. A write that fails afterwards stays charged until the controller of quotas counts
//! anew, as upstream has it. Namespaces without quotas cost one look into the cache.

mod check;

use super::{Admission, AdmissionRequest, Operation};
use crate::server::Reader;
use check::{Charge, Quota};
use futures::future::BoxFuture;
use kubewright_core::quota::{Counter, Touch};
use kubewright_core::{ApiError, GroupVersionResource, SharedClock};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use tokio::sync::oneshot;

/// How often a quota that others write at the same time is read anew.
const TRIES: usize = 20;

/// Upstream's plugin of this name.
pub struct ResourceQuota {
    clock: SharedClock,
    namespaces: Mutex<FxHashMap<String, Arc<Queue>>>,
}

impl ResourceQuota {
    /// With a clock, for a pod whose grace is over is charged nothing.
    pub fn new(clock: SharedClock) -> Self {
        ResourceQuota { clock, namespaces: Mutex::default() }
    }
}

impl fmt::Debug for ResourceQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResourceQuota")
    }
}

/// The writes of one namespace that wait to be judged.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Vec<Waiter>>,
    /// Held by whoever judges.
    turn: tokio::sync::Mutex<()>,
}

struct Waiter {
    charge: Arc<Charge>,
    answer: oneshot::Sender<Result<(), ApiError>>,
}

fn quotas() -> GroupVersionResource {
    GroupVersionResource::new("", "v1", "resourcequotas")
}

impl Admission for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn mutates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && !request.namespace.is_empty()
            && touch(request).is_some()
            && request.reader.has_any(&quotas(), request.namespace)
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            match object.and_then(|object| self.charge(request, object)) {
                Some(charge) => self.judge(request, charge).await,
                None => Ok(()),
            }
        })
    }
}

/// How the request touches what is counted; only a few subresources do.
fn touch<'a>(request: &'a AdmissionRequest<'a>) -> Option<Touch<'a>> {
    match (request.operation, request.subresource) {
        (Operation::Create, None) => Some(Touch::Create),
        (Operation::Update, None) => Some(Touch::Update("")),
        (Operation::Update, Some(sub @ ("resize" | "status"))) => Some(Touch::Update(sub)),
        _ => None,
    }
}

impl ResourceQuota {
    fn charge(&self, request: &AdmissionRequest<'_>, object: &Value) -> Option<Charge> {
        let (group, plural) = (request.resource.group.as_str(), request.resource.resource.as_str());
        let (counter, touch) = (Counter::of(group, plural)?, touch(request)?);
        if !counter.handles(touch) {
            return None;
        }
        // The content of what is counted by number does not matter.
        let content = |value: &Value| match counter {
            Counter::Objects { .. } => Value::Null,
            _ => value.clone(),
        };
        Some(Charge {
            group: group.to_owned(),
            plural: plural.to_owned(),
            name: super::told_name(request, object).to_owned(),
            object: content(object),
            old: request.old.map(content),
            of_status: request.subresource == Some("status"),
            dry_run: request.dry_run,
            now: self.clock.now(),
            counter,
        })
    }

    async fn judge(&self, request: &AdmissionRequest<'_>, charge: Charge) -> Result<(), ApiError> {
        let charge = Arc::new(charge);
        let queue = self.namespaces.lock().entry(request.namespace.to_owned()).or_default().clone();
        let result = loop {
            let (answer, mut answered) = oneshot::channel();
            queue.waiting.lock().push(Waiter { charge: charge.clone(), answer });
            let turn = queue.turn.lock().await;
            if let Ok(result) = answered.try_recv() {
                break result;
            }
            let batch = std::mem::take(&mut *queue.waiting.lock());
            settle(request.reader, request.namespace, batch).await;
            drop(turn);
            if let Ok(result) = answered.try_recv() {
                break result;
            }
            // Whoever had taken this along was given up before it answered.
        };
        drop(queue);
        let mut namespaces = self.namespaces.lock();
        if namespaces.get(request.namespace).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            namespaces.remove(request.namespace);
        }
        result
    }
}

/// Judges a batch of writes and answers each.
async fn settle(reader: &Reader, namespace: &str, mut waiters: Vec<Waiter>) {
    // Those whose write lost against another writer; all quotas at first.
    let mut again: Option<Vec<String>> = None;
    for attempt in 0..TRIES {
        let before = match current(reader, namespace, attempt > 0, again.as_deref()).await {
            Ok(quotas) => quotas,
            Err(e) => return waiters.into_iter().for_each(|w| answer(w, Err(e.clone()))),
        };
        let mut running = before.clone();
        let mut spenders = Vec::new();
        for waiter in waiters {
            match waiter.charge.against(&running) {
                Err(e) => answer(waiter, Err(e)),
                Ok(None) => answer(waiter, Ok(())),
                Ok(Some(_)) if waiter.charge.dry_run => answer(waiter, Ok(())),
                Ok(Some(after)) => {
                    running = after;
                    spenders.push(waiter);
                }
            }
        }
        waiters = spenders;
        if waiters.is_empty() {
            return;
        }
        let lost = match write(reader, &before, &running).await {
            Ok(lost) => lost,
            Err(e) => return waiters.into_iter().for_each(|w| answer(w, Err(e.clone()))),
        };
        if lost.is_empty() {
            return waiters.into_iter().for_each(|w| answer(w, Ok(())));
        }
        again = Some(lost);
    }
    let name = again.and_then(|lost| lost.first().cloned()).unwrap_or_default();
    waiters.into_iter().for_each(|w| answer(w, Err(ApiError::stale("", "resourcequotas", &name))));
}

fn answer(waiter: Waiter, result: Result<(), ApiError>) {
    // One who is gone hears nothing; what was spent for it is counted anew by the controller.
    let _ = waiter.answer.send(result);
}

async fn current(
    reader: &Reader,
    namespace: &str,
    newest: bool,
    only: Option<&[String]>,
) -> Result<Vec<Quota>, ApiError> {
    if newest {
        reader.consistent().await?;
    }
    let mut quotas = reader
        .list(&quotas(), namespace)?
        .iter()
        .map(|object| Quota::read(object))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(only) = only {
        quotas.retain(|quota| only.contains(&quota.name));
    }
    Ok(quotas)
}

/// Writes what changed; gives the names of those that another write was faster at.
async fn write(reader: &Reader, before: &[Quota], after: &[Quota]) -> Result<Vec<String>, ApiError> {
    let mut lost = Vec::new();
    for (old, new) in before.iter().zip(after).filter(|(old, new)| old.used != new.used) {
        let mut object = Value::clone(&old.object);
        object["status"]["used"] = new.used.to_value();
        if reader.replace(&quotas(), &object, old.revision).await?.is_none() {
            lost.push(old.name.clone());
        }
    }
    Ok(lost)
}
