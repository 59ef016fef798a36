//! Leader election by a Lease, with client-go's times and rules.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kubewright_client::{Api, Client};
use kubewright_core::{ApiError, Entropy, SharedClock};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How an election goes.
#[derive(Clone, Debug)]
pub struct LeaderElection {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Who this candidate is; unique among them.
    pub identity: String,
    /// How long others wait after the holder's last renewal; 15 s.
    pub lease_duration: Duration,
    /// How long the holder may fail to renew before it gives up; 10 s.
    pub renew_deadline: Duration,
    /// Between tries; 2 s.
    pub retry_period: Duration,
}

impl LeaderElection {
    /// With client-go's times.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        LeaderElection {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// A candidate.
pub struct LeaderElector {
    options: LeaderElection,
    api: Api<Lease>,
    clock: SharedClock,
    entropy: Arc<Entropy>,
    /// The record last seen and when, by the local monotonic clock: others' clocks are not trusted.
    seen: Option<(LeaseSpec, Instant)>,
}

impl fmt::Debug for LeaderElector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaderElector({} of {})", self.options.identity, self.options.name)
    }
}

impl LeaderElector {
    /// A candidate over a client.
    pub fn new(client: Client, clock: SharedClock, entropy: Arc<Entropy>, options: LeaderElection) -> Self {
        let api = Api::namespaced(client, &options.namespace);
        LeaderElector { options, api, clock, entropy, seen: None }
    }

    /// Leads again and again until cancelled: each time this candidate becomes the leader, `lead` is called with a token that is
    /// cancelled when leadership is lost, and awaited before the next candidacy. The Lease is released at the end.
    ///
    /// # Cancel safety
    /// Dropping it does not release the Lease: the others wait for its end. Cancel the token instead.
    pub async fn run<F, Fut>(mut self, cancel: CancellationToken, mut lead: F)
    where
        F: FnMut(CancellationToken) -> Fut,
        Fut: Future<Output = ()>,
    {
        while !cancel.is_cancelled() {
            if cancel.run_until_cancelled(self.acquire()).await.is_none() {
                return;
            }
            tracing::info!(lease = self.options.name, identity = self.options.identity, "leads");
            let term = cancel.child_token();
            let leading = lead(term.clone());
            tokio::pin!(leading);
            tokio::select! {
                () = &mut leading => {}
                () = self.hold() => tracing::warn!(lease = self.options.name, "leadership was lost"),
                () = cancel.cancelled() => {}
            }
            term.cancel();
            leading.await;
            self.release().await;
        }
    }

    async fn acquire(&mut self) {
        loop {
            match self.try_lead().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(e) => tracing::debug!(error = %e, "the candidacy failed"),
            }
            let period = self.options.retry_period;
            let tenths = u32::try_from(self.entropy.next_u64() % 12).unwrap_or(0);
            tokio::time::sleep(period + period / 10 * tenths).await;
        }
    }

    /// Renews until that fails for too long.
    async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.options.retry_period).await;
            let deadline = renewed + self.options.renew_deadline;
            match tokio::time::timeout_at(deadline, self.try_lead()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(_)) if Instant::now() < deadline => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    async fn try_lead(&mut self) -> Result<bool, ApiError> {
        let now = MicroTime(self.clock.now());
        let Some(lease) = self.api.get_opt(&self.options.name).await? else {
            let mut lease = Lease { spec: Some(self.record(now.clone(), now, 0)), ..Lease::default() };
            lease.metadata.name = Some(self.options.name.clone());
            return match self.api.create(&lease).await {
                Ok(lease) => {
                    self.observe(lease.spec.clone().unwrap_or_default());
                    Ok(true)
                }
                Err(e) if e.is_already_exists() => Ok(false),
                Err(e) => Err(e),
            };
        };
        let present = lease.spec.clone().unwrap_or_default();
        let seen_at = self.observe(present.clone());
        let holder = present.holder_identity.as_deref().unwrap_or("");
        let mine = holder == self.options.identity;
        let seconds = u64::try_from(present.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        if !holder.is_empty() && !mine && seen_at.elapsed() < Duration::from_secs(seconds) {
            return Ok(false);
        }
        let transitions = present.lease_transitions.unwrap_or(0);
        let record = match (mine, present.acquire_time) {
            (true, Some(since)) => self.record(since, now, transitions),
            _ => self.record(now.clone(), now, transitions.saturating_add(1)),
        };
        self.write(&lease, record).await
    }

    async fn write(&mut self, lease: &Lease, record: LeaseSpec) -> Result<bool, ApiError> {
        let mut lease = lease.clone();
        lease.spec = Some(record);
        match self.api.replace(&self.options.name, &lease).await {
            Ok(lease) => {
                self.observe(lease.spec.clone().unwrap_or_default());
                Ok(true)
            }
            // Someone else was faster; the holder tries again, a candidate waits.
            Err(e) if e.is_conflict() => Err(e),
            Err(e) => Err(e),
        }
    }

    /// Remembers the record; gives the local time at which it was first seen like this.
    fn observe(&mut self, record: LeaseSpec) -> Instant {
        match &self.seen {
            Some((seen, at)) if *seen == record => *at,
            _ => {
                let now = Instant::now();
                self.seen = Some((record, now));
                now
            }
        }
    }

    fn record(&self, acquired: MicroTime, renewed: MicroTime, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.options.identity.clone()),
            // Others read whole seconds, and none would mean no lease at all.
            lease_duration_seconds: i32::try_from(self.options.lease_duration.as_secs().max(1)).ok(),
            acquire_time: Some(acquired),
            renew_time: Some(renewed),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Hands the Lease back if it is still ours, so that the next leader need not wait.
    async fn release(&mut self) {
        let limit = self.options.retry_period;
        let release = async {
            let Some(lease) = self.api.get_opt(&self.options.name).await? else {
                return Ok(false);
            };
            let present = lease.spec.clone().unwrap_or_default();
            if present.holder_identity.as_deref() != Some(&self.options.identity) {
                return Ok(false);
            }
            let now = MicroTime(self.clock.now());
            let mut record = self.record(now.clone(), now, present.lease_transitions.unwrap_or(0));
            record.holder_identity = None;
            record.lease_duration_seconds = Some(1);
            self.write(&lease, record).await
        };
        if let Err(e) = tokio::time::timeout(limit, release).await.unwrap_or(Ok(false)) {
            tracing::debug!(error = %e, "the lease was not released");
        }
    }
}
