//! The store on etcd: a client of its v3 API, for planes that share a replicated store.

mod convert;
mod endpoints;
mod errors;
mod lease;
mod watch;
#[rustfmt::skip]
#[path = "gen/etcdserverpb.rs"]
#[allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/etcd.proto, which says what the fields are"
)]
mod wire;

use crate::{
    Capabilities, Commit, CommitOutcome, Error, KeyRange, KeyValue, Limits, RangeRequest, RangeResponse,
    Reason, Revision, Store, WatchStream,
};
use bytes::Bytes;
use convert::{item, range_end, start_key};
use endpoints::{Call, Endpoints};
use futures::future::BoxFuture;
use lease::Leases;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use wire::cluster_client::ClusterClient;
use wire::kv_client::KvClient;

/// How many keys one message of a range holds.
const PAGE_ITEMS_MAX: usize = 2_000;

/// How often a range at the newest revision is begun anew because that was compacted on the way.
const RANGE_TRIES_MAX: usize = 3;

/// The largest message taken from a server.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// How an [`EtcdStore`] is connected.
#[derive(Clone)]
pub struct EtcdOptions {
    /// `http://host:port` or `https://host:port` of each member; without a scheme, http.
    pub endpoints: Vec<String>,
    /// User and password, where etcd's own authentication is on.
    pub credentials: Option<(String, String)>,
    /// The certificates for https.
    pub tls: EtcdTls,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long one try of a call may take.
    pub call_timeout: Duration,
    /// How long a watch, or a read, tries to get through before it ends with `Unavailable`.
    pub give_up_after: Duration,
    /// Bounds of commits and the interval of progress marks.
    pub limits: Limits,
}

/// Certificates in PEM, each empty for none.
#[derive(Clone, Default)]
pub struct EtcdTls {
    /// What signed the servers' certificates.
    pub ca: Vec<u8>,
    /// The client's certificate.
    pub certificate: Vec<u8>,
    /// The client's key.
    pub key: Vec<u8>,
}

impl EtcdOptions {
    /// Options for these endpoints, the rest as usual.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        EtcdOptions {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            credentials: None,
            tls: EtcdTls::default(),
            connect_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_secs(10),
            give_up_after: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }
}

impl std::fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EtcdOptions({:?})", self.endpoints)
    }
}

/// A store on an etcd cluster, 3.4 or newer, shared with every other client of it.
///
/// Calls go to one member and move on to the next when it fails. Reads are repeated then; a commit is repeated only where it surely was not
/// done, and answers with an indeterminate error otherwise. Watches find their way to another member without a gap or a repeat.
///
/// Progress marks of servers before 3.4.25 and 3.5.8 may run ahead of events; a mark is believed only after a further quiet interval.
pub struct EtcdStore {
    endpoints: Arc<Endpoints>,
    leases: Leases,
    replicated: AtomicBool,
}

impl EtcdStore {
    /// Connects, and asks the cluster for its members.
    ///
    /// # Errors
    /// `Invalid` where an endpoint is no URL or a certificate can't be read; `Unavailable` where no member answers; `Failed` where the
    /// user is refused.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn connect(options: EtcdOptions) -> Result<Self, Error> {
        let endpoints = Arc::new(Endpoints::new(options)?);
        let store = EtcdStore { endpoints, leases: Leases::default(), replicated: AtomicBool::new(false) };
        store.current_revision().await?;
        // A user may lack the right to list members; then the endpoints given must do.
        let members = store.members().await.unwrap_or(store.endpoints.len());
        store.replicated.store(members >= 3, Ordering::Relaxed);
        Ok(store)
    }

    async fn members(&self) -> Result<usize, Error> {
        let list = |call: Call| async move {
            let mut client = ClusterClient::new(call.channel());
            client.member_list(call.request(wire::MemberListRequest {})).await
        };
        let answer = self.endpoints.read(list).await?;
        Ok(answer.members.iter().filter(|member| !member.is_learner).count())
    }

    async fn read(&self, request: wire::RangeRequest) -> Result<wire::RangeResponse, Error> {
        self.endpoints
            .read(|call: Call| {
                let request = request.clone();
                async move { kv(&call).range(call.request(request)).await }
            })
            .await
    }

    async fn read_range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let mut pinned = match request.revision {
            None => None,
            Some(revision) => Some(i64::try_from(revision).map_err(|_| future_revision(revision))?),
        };
        if pinned == Some(0) {
            return Err(Error::new(Reason::Compacted, "revision 0 is before etcd's first"));
        }
        let (mut items, mut start) = (Vec::new(), request.range.start.clone());
        let mut count = None;
        loop {
            let left = if request.limit == 0 { PAGE_ITEMS_MAX } else { request.limit - items.len() };
            let page = wire::RangeRequest {
                key: start_key(&start),
                range_end: range_end(&request.range),
                limit: left.min(PAGE_ITEMS_MAX) as i64,
                revision: pinned.unwrap_or(0),
                ..Default::default()
            };
            let page = self.read(page).await?;
            let at = page.header.as_ref().map_or(0, |header| header.revision);
            let revision = *pinned.get_or_insert(at);
            let count = *count.get_or_insert(page.count as u64);
            items.extend(page.kvs.into_iter().map(item));
            let full = request.limit != 0 && items.len() >= request.limit;
            let Some(last) = items.last().filter(|_| page.more && !full) else {
                let more = count > items.len() as u64;
                return Ok(RangeResponse { items, more, count, revision: revision as u64 });
            };
            let mut next = last.key.to_vec();
            next.push(0);
            start = next.into();
        }
    }

    async fn transact(&self, request: wire::TxnRequest) -> Result<CommitOutcome, Error> {
        let answer = self
            .endpoints
            .write(|call: Call| {
                let request = request.clone();
                async move { kv(&call).txn(call.request(request)).await }
            })
            .await?;
        Ok(convert::outcome(answer))
    }

    async fn range_retrying(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        if request.range.end.as_ref().is_some_and(|end| *end <= request.range.start) {
            let newest = self.current_revision().await?;
            let revision = request.revision.unwrap_or(newest);
            if revision > newest {
                return Err(future_revision(revision));
            }
            return Ok(RangeResponse { items: Vec::new(), more: false, count: 0, revision });
        }
        let mut tries = 1;
        loop {
            match self.read_range(&request).await {
                Err(error)
                    if error.reason() == Reason::Compacted
                        && request.revision.is_none()
                        && tries < RANGE_TRIES_MAX =>
                {
                    tries += 1;
                }
                result => return result,
            }
        }
    }
}

fn kv(call: &Call) -> KvClient<tonic::transport::Channel> {
    KvClient::new(call.channel())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

fn future_revision(revision: Revision) -> Error {
    Error::new(Reason::FutureRevision, format!("revision {revision} is in the future"))
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EtcdStore({})", self.endpoints)
    }
}

impl Store for EtcdStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            replicated: self.replicated.load(Ordering::Relaxed),
            shared: true,
            history: true,
            previous_values: true,
        }
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        Box::pin(async move {
            let request =
                wire::RangeRequest { key: Bytes::from_static(b"\0"), count_only: true, ..Default::default() };
            let answer = self.read(request).await?;
            Ok(answer.header.map_or(0, |header| header.revision as u64))
        })
    }

    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<KeyValue>, Error>> {
        Box::pin(async move {
            if key.is_empty() {
                return Ok(None);
            }
            let answer = self.read(wire::RangeRequest { key, ..Default::default() }).await?;
            Ok(answer.kvs.into_iter().next().map(item))
        })
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, Error>> {
        Box::pin(self.range_retrying(request))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, Error>> {
        Box::pin(async move {
            crate::mvcc::check_commit(&commit, &self.endpoints.options().limits)?;
            let leases = self.leases.of(&self.endpoints, &commit).await?;
            if leases.is_empty() {
                return self.transact(convert::txn(commit, &leases)?).await;
            }
            match self.transact(convert::txn(commit.clone(), &leases)?).await {
                Err(error) if lease::lease_is_gone(&error) => {
                    self.leases.forget(&leases);
                    let leases = self.leases.of(&self.endpoints, &commit).await?;
                    self.transact(convert::txn(commit, &leases)?).await
                }
                result => result,
            }
        })
    }

    fn keep_in_memory(&self, prefix: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        let words = format!(
            "keys under {prefix:?} can't be kept in memory only: other processes that share this etcd would not see them"
        );
        Box::pin(async move { Err(Error::new(Reason::Unsupported, words)) })
    }

    fn expire(&self, prefix: Bytes, after: Duration) -> bool {
        self.leases.add(prefix, after);
        true
    }

    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<WatchStream, Error>> {
        Box::pin(watch::watch(self.endpoints.clone(), range, from))
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let request = wire::CompactionRequest {
                revision: i64::try_from(revision).map_err(|_| future_revision(revision))?,
                physical: false,
            };
            let compact = |call: Call| async move { kv(&call).compact(call.request(request)).await };
            match self.endpoints.read(compact).await {
                Ok(_) => Ok(()),
                // It was compacted before.
                Err(error) if error.reason() == Reason::Compacted => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            self.endpoints.close();
            Ok(())
        })
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.endpoints.close();
    }
}
