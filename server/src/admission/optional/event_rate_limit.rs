//! Events come no faster than the limits say: those of all, of a namespace, of a user, or about one thing.

use crate::admission::json::{sub, text};
use crate::admission::{Admission, AdmissionRequest, Operation};
use futures::future::BoxFuture;
use jiff::Timestamp;
use kubewright_core::{ApiError, SharedClock};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::Value;
use std::fmt;

/// The most keys that one limit keeps account of; those that were quiet longest are forgotten.
const KEYS_MAX: usize = 4096;

/// What a limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventLimitKind {
    /// All events.
    Server,
    /// Those of a namespace.
    Namespace,
    /// Those of a user.
    User,
    /// Those of one source about one object.
    SourceAndObject,
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimit {
    /// What is counted together.
    pub kind: EventLimitKind,
    /// How many a second go on and on.
    pub qps: u32,
    /// How many may come at once.
    pub burst: u32,
}

/// Tokens of one key, in millionths, and when they were counted.
pub(super) struct Bucket {
    tokens: u64,
    at: Timestamp,
}

/// Upstream's plugin of this name.
pub struct EventRateLimit {
    clock: SharedClock,
    limits: Vec<(EventLimit, Mutex<FxHashMap<String, Bucket>>)>,
}

impl EventRateLimit {
    /// With these limits, all of which must let an event pass.
    pub fn new(clock: SharedClock, limits: Vec<EventLimit>) -> Self {
        EventRateLimit { clock, limits: limits.into_iter().map(|l| (l, Mutex::default())).collect() }
    }
}

impl fmt::Debug for EventRateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventRateLimit({} limits)", self.limits.len())
    }
}

impl EventLimit {
    fn key(&self, request: &AdmissionRequest<'_>, event: &Value) -> String {
        match self.kind {
            EventLimitKind::Server => String::new(),
            EventLimitKind::Namespace => request.namespace.to_owned(),
            EventLimitKind::User => request.user.username.clone().unwrap_or_default(),
            EventLimitKind::SourceAndObject => {
                let (source, about) = (sub(event, "source"), sub(event, "involvedObject"));
                let about = if about.is_null() { sub(event, "regarding") } else { about };
                let of = |owner, fields: &[&str]| {
                    fields.iter().map(|f| text(owner, f).to_owned()).collect::<Vec<_>>().join("_")
                };
                let object = of(about, &["kind", "namespace", "name", "uid", "apiVersion"]);
                format!("{}_{object}", of(source, &["component", "host"]))
            }
        }
    }

    fn name(&self) -> &'static str {
        match self.kind {
            EventLimitKind::Server => "Server",
            EventLimitKind::Namespace => "Namespace",
            EventLimitKind::User => "User",
            EventLimitKind::SourceAndObject => "SourceAndObject",
        }
    }

    /// Takes a token; false where none is left.
    pub(super) fn take(&self, buckets: &mut FxHashMap<String, Bucket>, key: &str, now: Timestamp) -> bool {
        const ONE: u64 = 1_000_000;
        let full = u64::from(self.burst) * ONE;
        if buckets.len() >= KEYS_MAX && !buckets.contains_key(key) {
            let oldest = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| key.clone());
            oldest.and_then(|key| buckets.remove(&key));
        }
        let bucket = buckets.entry(key.to_owned()).or_insert(Bucket { tokens: full, at: now });
        let passed = u64::try_from(now.duration_since(bucket.at).as_micros()).unwrap_or(0);
        bucket.tokens = full.min(bucket.tokens.saturating_add(passed.saturating_mul(u64::from(self.qps))));
        bucket.at = now;
        let left = bucket.tokens.checked_sub(ONE);
        bucket.tokens = left.unwrap_or(bucket.tokens);
        left.is_some()
    }
}

impl Admission for EventRateLimit {
    fn name(&self) -> &'static str {
        "EventRateLimit"
    }

    fn mutates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        request.resource.resource == "events"
            && matches!(request.resource.group.as_str(), "" | "events.k8s.io")
            && matches!(request.operation, Operation::Create | Operation::Update)
            && !request.dry_run
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let (now, event) = (self.clock.now(), object.unwrap_or(&Value::Null));
        let mut refused = Vec::new();
        for (limit, buckets) in &self.limits {
            let key = limit.key(request, event);
            if !limit.take(&mut buckets.lock(), &key, now) {
                refused.push(format!("limit reached on type {} for key {key}", limit.name()));
            }
        }
        let done =
            if refused.is_empty() { Ok(()) } else { Err(ApiError::too_many_requests(refused.join("; "), 0)) };
        Box::pin(std::future::ready(done))
    }
}
