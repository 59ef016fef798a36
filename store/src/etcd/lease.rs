//! Keys that etcd deletes by itself: one lease for all that are written within a while, as a lease for each would cost more than its key.

use super::Call;
use super::endpoints::Endpoints;
use super::wire::{self, lease_client::LeaseClient};
use crate::{Commit, Error, Op, Reason};
use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A lease takes new keys for so long, so that a key may live longer by as much; a twentieth of short times.
const SHARED_FOR: Duration = Duration::from_secs(60);

/// A lease takes so many keys: etcd deletes them in one go.
const KEYS_MAX: u32 = 1000;

/// Which keys have a time to live.
#[derive(Default)]
pub(super) struct Leases {
    rules: ArcSwap<Vec<Arc<Rule>>>,
}

struct Rule {
    prefix: Bytes,
    after: Duration,
    current: Mutex<Option<Current>>,
}

/// The lease that takes keys now.
struct Current {
    id: i64,
    until: Instant,
    keys: u32,
}

impl Rule {
    fn shared_for(&self) -> Duration {
        SHARED_FOR.min(self.after / 20)
    }

    /// The present lease, where it takes one more key.
    fn take(&self) -> Option<i64> {
        let mut current = self.current.lock();
        let lease = current.as_mut().filter(|c| c.keys < KEYS_MAX && Instant::now() < c.until)?;
        lease.keys += 1;
        Some(lease.id)
    }
}

impl Leases {
    /// Keys with this prefix live so long after their last write.
    pub(super) fn add(&self, prefix: Bytes, after: Duration) {
        let mut rules = Vec::clone(&self.rules.load());
        rules.retain(|rule| rule.prefix != prefix);
        if !after.is_zero() {
            rules.push(Arc::new(Rule { prefix, after, current: Mutex::new(None) }));
        }
        self.rules.store(Arc::new(rules));
    }

    /// The lease of each op of a commit, 0 for none; nothing at all where none has one.
    ///
    /// # Errors
    /// Where the cluster grants none.
    pub(super) async fn of(&self, endpoints: &Endpoints, commit: &Commit) -> Result<Vec<i64>, Error> {
        let rules = self.rules.load_full();
        let rule = |op: &Op| match op {
            Op::Put { key, .. } => rules.iter().find(|rule| key.starts_with(&rule.prefix)),
            Op::Delete { .. } => None,
        };
        if rules.is_empty() || !commit.ops.iter().any(|op| rule(op).is_some()) {
            return Ok(Vec::new());
        }
        let mut leases = Vec::with_capacity(commit.ops.len());
        for op in &commit.ops {
            leases.push(match rule(op) {
                None => 0,
                Some(rule) => match rule.take() {
                    Some(lease) => lease,
                    None => grant(endpoints, rule).await?,
                },
            });
        }
        Ok(leases)
    }

    /// The next commit gets new leases: the cluster does not know these.
    pub(super) fn forget(&self, leases: &[i64]) {
        for rule in self.rules.load().iter() {
            let mut current = rule.current.lock();
            if current.as_ref().is_some_and(|c| leases.contains(&c.id)) {
                *current = None;
            }
        }
    }
}

/// Whether a commit failed because its lease is over.
pub(super) fn lease_is_gone(error: &Error) -> bool {
    error.to_string().contains("requested lease not found")
}

async fn grant(endpoints: &Endpoints, rule: &Rule) -> Result<i64, Error> {
    let shared_for = rule.shared_for();
    let whole = rule.after + shared_for;
    let seconds = whole.as_secs() + u64::from(whole.subsec_nanos() > 0);
    let ttl = i64::try_from(seconds)
        .map_err(|_| Error::new(Reason::Invalid, "the time to live is too long for etcd"))?;
    // One that is granted twice and never used ends by itself.
    let ask = |call: Call| async move {
        let mut client = LeaseClient::new(call.channel());
        client.lease_grant(call.request(wire::LeaseGrantRequest { ttl, id: 0 })).await
    };
    let answer = endpoints.read(ask).await?;
    *rule.current.lock() = Some(Current { id: answer.id, until: Instant::now() + shared_for, keys: 1 });
    Ok(answer.id)
}
