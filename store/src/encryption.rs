//! A wrapper that encrypts the values of chosen keys at rest.

use crate::{
    Capabilities, Commit, CommitOutcome, Compare, Error, Event, KeyRange, KeyValue, Op, RangeRequest,
    RangeResponse, Reason, Revision, Store, WatchBatch, WatchStream,
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

mod key;

pub use key::EncryptionKey;

/// How many items are encrypted anew at once.
const ROTATE_ITEMS_MAX: usize = 100;

/// A store whose values under chosen prefixes are encrypted in another one.
///
/// The first key writes, all keys read. The name of a key is bound to its value, so that values can't be exchanged. Keys, revisions and sizes
/// stay visible. Values that were written before encryption was turned on stay readable, until [`EncryptedStore::refuse_plaintext`].
///
/// To rotate: put the new key first, open again, call [`EncryptedStore::rotate`], then leave the old key out.
#[derive(Clone)]
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    /// The first one that covers a key is in force for it. Clones share them.
    rules: Arc<ArcSwap<Vec<EncryptionScope>>>,
}

/// Which keys are encrypted how: the values under its prefixes, by its first key.
#[derive(Clone)]
pub struct EncryptionScope {
    /// The one that writes, and those that only read.
    first: EncryptionKey,
    older: Vec<EncryptionKey>,
    prefixes: Vec<Bytes>,
    /// What one of these begins is left alone after all.
    except: Vec<Bytes>,
    /// Whether values in the clear are read.
    plaintext: bool,
    /// Whether values are written in the clear.
    writes_plain: bool,
}

impl EncryptedStore {
    /// Encrypts the values of the keys with one of these prefixes.
    ///
    /// # Errors
    /// `Invalid` where there is no key, or two have one id.
    pub fn new(
        inner: Arc<dyn Store>,
        keys: impl IntoIterator<Item = EncryptionKey>,
        prefixes: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<Self, Error> {
        Ok(EncryptedStore::scoped(inner, vec![EncryptionScope::new(keys, prefixes)?]))
    }

    /// Encrypts as the first scope says that covers a key; keys that none covers are left alone.
    pub fn scoped(inner: Arc<dyn Store>, scopes: Vec<EncryptionScope>) -> Self {
        EncryptedStore { inner, rules: Arc::new(ArcSwap::from_pointee(scopes)) }
    }

    /// Goes by other scopes from now on, in every clone of this store: after a change of keys. What is stored stays as it is until
    /// [`EncryptedStore::rotate`].
    pub fn set_scopes(&self, scopes: Vec<EncryptionScope>) {
        self.rules.store(Arc::new(scopes));
    }

    /// A store of its own with other scopes.
    fn changed(self, change: impl Fn(EncryptionScope) -> EncryptionScope) -> Self {
        let scopes = self.rules.load().iter().cloned().map(change).collect();
        EncryptedStore::scoped(self.inner, scopes)
    }

    /// From now on a value that is not encrypted is an error, for keys with one of the prefixes.
    #[must_use]
    pub fn refuse_plaintext(self) -> Self {
        self.changed(EncryptionScope::refuse_plaintext)
    }

    /// Leaves the keys with one of these prefixes alone, though they have one of the others.
    #[must_use]
    pub fn except(self, prefixes: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let prefixes: Vec<Bytes> = prefixes.into_iter().map(Into::into).collect();
        self.changed(|scope| scope.except(prefixes.clone()))
    }

    /// Writes in the clear from now on, and still reads what the keys encrypted: the way out of encryption.
    #[must_use]
    pub fn write_plaintext(self) -> Self {
        self.changed(EncryptionScope::write_plaintext)
    }

    /// Writes every value anew that is not as it would be written now (by the first key, or in the clear); gives their number. Values that change meanwhile are left to whoever
    /// changes them.
    ///
    /// # Errors
    /// Those of the store; what was done stays done, and calling again goes on.
    ///
    /// # Cancel safety
    /// As after an error.
    pub async fn rotate(&self) -> Result<u64, Error> {
        let (mut written, rules) = (0, self.rules.load_full());
        for prefix in rules.iter().flat_map(|scope| &scope.prefixes) {
            let mut range = KeyRange::prefix(prefix.clone());
            loop {
                let request = RangeRequest { range: range.clone(), limit: ROTATE_ITEMS_MAX, revision: None };
                let page = self.inner.range(request).await?;
                for kv in page
                    .items
                    .iter()
                    .filter(|kv| scope_of(&rules, &kv.key).is_some_and(|s| !s.is_current(&kv.value)))
                {
                    written += u64::from(self.rewrite(kv.clone()).await?);
                }
                let Some(last) = page.items.last().filter(|_| page.more) else { break };
                let mut next = last.key.to_vec();
                next.push(0);
                range.start = next.into();
            }
        }
        Ok(written)
    }

    async fn rewrite(&self, kv: KeyValue) -> Result<bool, Error> {
        let plain = open_item(&self.rules.load(), kv)?;
        let compare = Compare { key: plain.key.clone(), mod_revision: plain.mod_revision };
        let op = Op::Put { key: plain.key, value: plain.value };
        let outcome = Store::commit(self, Commit { compares: vec![compare], ops: vec![op] }).await?;
        Ok(matches!(outcome, CommitOutcome::Committed { .. }))
    }
}

impl std::fmt::Debug for EncryptedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EncryptedStore({:?})", self.rules.load())
    }
}

impl std::fmt::Debug for EncryptionScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EncryptionScope(writes with {:?})", self.first)
    }
}

impl EncryptionScope {
    /// The values of the keys with one of these prefixes; the first encryption key writes, all read.
    ///
    /// # Errors
    /// `Invalid` where there is no encryption key, or two of one kind have one id.
    pub fn new(
        keys: impl IntoIterator<Item = EncryptionKey>,
        prefixes: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<Self, Error> {
        let mut keys = keys.into_iter();
        let Some(first) = keys.next() else {
            return Err(Error::new(Reason::Invalid, "there is no encryption key"));
        };
        let older: Vec<_> = keys.collect();
        let mut marks = std::collections::HashSet::from([first.mark().clone()]);
        if let Some(twice) = older.iter().find(|key| !marks.insert(key.mark().clone())) {
            return Err(Error::new(
                Reason::Invalid,
                format!("two encryption keys have the id {:?}", twice.id()),
            ));
        }
        let prefixes = prefixes.into_iter().map(Into::into).collect();
        let (except, writes_plain) = (Vec::new(), false);
        Ok(EncryptionScope { first, older, prefixes, except, plaintext: true, writes_plain })
    }

    /// See [`EncryptedStore::refuse_plaintext`].
    #[must_use]
    pub fn refuse_plaintext(mut self) -> Self {
        self.plaintext = false;
        self
    }

    /// See [`EncryptedStore::except`].
    #[must_use]
    pub fn except(mut self, prefixes: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        self.except.extend(prefixes.into_iter().map(Into::into));
        self
    }

    /// See [`EncryptedStore::write_plaintext`].
    #[must_use]
    pub fn write_plaintext(mut self) -> Self {
        self.writes_plain = true;
        self
    }

    fn covers(&self, key: &[u8]) -> bool {
        let begins = |prefix: &Bytes| key.starts_with(prefix);
        self.prefixes.iter().any(begins) && !self.except.iter().any(begins)
    }

    /// The key that encrypted a value, and the rest of it.
    fn key_of<'v>(&self, value: &'v [u8]) -> Option<(&EncryptionKey, &'v [u8])> {
        let keys = std::iter::once(&self.first).chain(&self.older);
        keys.into_iter().find_map(|key| Some((key, value.strip_prefix(key.mark().as_ref())?)))
    }

    fn is_current(&self, value: &[u8]) -> bool {
        if self.writes_plain { !key::is_sealed(value) } else { value.starts_with(self.first.mark()) }
    }

    fn open(&self, mut kv: KeyValue) -> Result<KeyValue, Error> {
        kv.value = match self.key_of(&kv.value) {
            Some((key, sealed)) => key.open(&kv.key, sealed)?,
            None if key::is_sealed(&kv.value) => {
                let words = format!("the key that encrypted the value of {:?} is not given", kv.key);
                return Err(Error::new(Reason::Corrupt, words));
            }
            None if self.plaintext => kv.value,
            None => {
                return Err(Error::new(
                    Reason::Corrupt,
                    format!("the value of {:?} is not encrypted", kv.key),
                ));
            }
        };
        Ok(kv)
    }
}

fn scope_of<'s>(scopes: &'s [EncryptionScope], key: &[u8]) -> Option<&'s EncryptionScope> {
    scopes.iter().find(|scope| scope.covers(key))
}

fn open_item(scopes: &[EncryptionScope], kv: KeyValue) -> Result<KeyValue, Error> {
    match scope_of(scopes, &kv.key) {
        Some(scope) => scope.open(kv),
        None => Ok(kv),
    }
}

fn open_some(scopes: &[EncryptionScope], kv: Option<KeyValue>) -> Result<Option<KeyValue>, Error> {
    kv.map(|kv| open_item(scopes, kv)).transpose()
}

fn open_event(scopes: &[EncryptionScope], event: Event) -> Result<Event, Error> {
    Ok(match event {
        Event::Put { item, previous } => {
            Event::Put { item: open_item(scopes, item)?, previous: open_some(scopes, previous)? }
        }
        Event::Delete { key, previous, revision } => {
            Event::Delete { key, previous: open_some(scopes, previous)?, revision }
        }
    })
}

fn open_batch(scopes: &[EncryptionScope], batch: WatchBatch) -> Result<WatchBatch, Error> {
    let events = batch.events.into_iter().map(|event| open_event(scopes, event));
    Ok(WatchBatch { events: events.collect::<Result<_, _>>()?, revision: batch.revision })
}

fn seal(scopes: &[EncryptionScope], mut commit: Commit) -> Result<Commit, Error> {
    for op in &mut commit.ops {
        if let Op::Put { key, value } = op
            && let Some(scope) = scope_of(scopes, key).filter(|scope| !scope.writes_plain)
        {
            *value = scope.first.seal(key, value)?;
        }
    }
    Ok(commit)
}

impl Store for EncryptedStore {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        self.inner.current_revision()
    }

    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<KeyValue>, Error>> {
        Box::pin(async move {
            let found = self.inner.get(key).await?;
            open_some(&self.rules.load(), found)
        })
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, Error>> {
        Box::pin(async move {
            let mut page = self.inner.range(request).await?;
            let rules = self.rules.load();
            page.items = page.items.into_iter().map(|kv| open_item(&rules, kv)).collect::<Result<_, _>>()?;
            Ok(page)
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, Error>> {
        Box::pin(async move {
            let sealed = seal(&self.rules.load(), commit)?;
            match self.inner.commit(sealed).await? {
                CommitOutcome::Refused { current } => {
                    let rules = self.rules.load();
                    let current = current.into_iter().map(|kv| open_some(&rules, kv));
                    Ok(CommitOutcome::Refused { current: current.collect::<Result<_, _>>()? })
                }
                done => Ok(done),
            }
        })
    }

    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<WatchStream, Error>> {
        Box::pin(async move {
            let stream = self.inner.watch(range, from).await?;
            let rules = self.rules.clone();
            // The stream ends after its first error.
            let opened = stream.scan(false, move |ended, batch| {
                let item = (!*ended).then(|| batch.and_then(|batch| open_batch(&rules.load(), batch)));
                *ended = matches!(item, Some(Err(_)) | None);
                futures::future::ready(item)
            });
            Ok(opened.boxed())
        })
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.compact(revision)
    }

    fn keep_in_memory(&self, prefix: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.keep_in_memory(prefix)
    }

    fn expire(&self, prefix: Bytes, after: Duration) -> bool {
        self.inner.expire(prefix, after)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.close()
    }
}
