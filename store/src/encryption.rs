//! A wrapper that encrypts the values of chosen keys at rest.

use crate::{
    Capabilities, Commit, CommitOutcome, Compare, Error, Event, KeyRange, KeyValue, Op, RangeRequest,
    RangeResponse, Reason, Revision, Store, WatchBatch, WatchStream,
};
use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use std::sync::Arc;

/// What an encrypted value begins with; the key's id, a colon, the nonce and the ciphertext follow.
const MARK: &[u8] = b"kubewright:aes256gcm:v1:";
const NONCE_LEN: usize = 12;
/// How many items are encrypted anew at once.
const ROTATE_ITEMS_MAX: usize = 100;

/// A key of AES-256-GCM with its name.
///
/// One key is good for 2^32 writes, as nonces are random; rotate before that.
#[derive(Clone)]
pub struct EncryptionKey {
    id: String,
    cipher: Aes256Gcm,
}

impl EncryptionKey {
    /// A key; its id stands in clear before every value that it encrypted.
    ///
    /// # Errors
    /// `Invalid` where the id is empty, longer than 64 bytes, or holds a colon.
    pub fn new(id: impl Into<String>, key: [u8; 32]) -> Result<Self, Error> {
        let id = id.into();
        if id.is_empty() || id.len() > 64 || id.contains(':') {
            let words = format!("the key id {id:?} is not 1 to 64 bytes without a colon");
            return Err(Error::new(Reason::Invalid, words));
        }
        Ok(EncryptionKey { id, cipher: Aes256Gcm::new(&key.into()) })
    }

    fn seal(&self, key: &Bytes, value: &[u8]) -> Result<Bytes, Error> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let sealed = self.cipher.encrypt(&nonce.into(), Payload { msg: value, aad: key });
        let sealed = sealed.map_err(|_| Error::new(Reason::TooLarge, "the value is too large to encrypt"))?;
        let mut whole = Vec::with_capacity(MARK.len() + self.id.len() + 1 + NONCE_LEN + sealed.len());
        whole.extend_from_slice(MARK);
        whole.extend_from_slice(self.id.as_bytes());
        whole.push(b':');
        whole.extend_from_slice(&nonce);
        whole.extend_from_slice(&sealed);
        Ok(whole.into())
    }

    fn open(&self, key: &Bytes, sealed: &[u8]) -> Result<Bytes, Error> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(|| unreadable(key))?;
        let value = self.cipher.decrypt(&(*nonce).into(), Payload { msg: sealed, aad: key });
        value.map(Bytes::from).map_err(|_| unreadable(key))
    }
}

impl std::fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EncryptionKey({:?})", self.id)
    }
}

fn unreadable(key: &Bytes) -> Error {
    Error::new(
        Reason::Corrupt,
        format!("the value of key {key:?} can't be decrypted: it was changed or moved"),
    )
}

/// A store whose values under chosen prefixes are encrypted in another one.
///
/// The first key writes, all keys read. The name of a key is bound to its value, so that values can't be exchanged. Keys, revisions and sizes
/// stay visible. Values that were written before encryption was turned on stay readable, until [`EncryptedStore::refuse_plaintext`].
///
/// To rotate: put the new key first, open again, call [`EncryptedStore::rotate`], then leave the old key out.
#[derive(Clone)]
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    sealer: Arc<Sealer>,
}

#[derive(Clone)]
struct Sealer {
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
        let mut keys = keys.into_iter();
        let Some(first) = keys.next() else {
            return Err(Error::new(Reason::Invalid, "there is no encryption key"));
        };
        let older: Vec<_> = keys.collect();
        let mut ids = std::collections::HashSet::from([first.id.clone()]);
        if let Some(twice) = older.iter().find(|key| !ids.insert(key.id.clone())) {
            return Err(Error::new(
                Reason::Invalid,
                format!("two encryption keys have the id {:?}", twice.id),
            ));
        }
        let prefixes = prefixes.into_iter().map(Into::into).collect();
        let (except, writes_plain) = (Vec::new(), false);
        let sealer = Sealer { first, older, prefixes, except, plaintext: true, writes_plain };
        Ok(EncryptedStore { inner, sealer: Arc::new(sealer) })
    }

    fn changed(self, change: impl FnOnce(&mut Sealer)) -> Self {
        let mut sealer = Sealer::clone(&self.sealer);
        change(&mut sealer);
        EncryptedStore { inner: self.inner, sealer: Arc::new(sealer) }
    }

    /// From now on a value that is not encrypted is an error, for keys with one of the prefixes.
    #[must_use]
    pub fn refuse_plaintext(self) -> Self {
        self.changed(|s| s.plaintext = false)
    }

    /// Leaves the keys with one of these prefixes alone, though they have one of the others.
    #[must_use]
    pub fn except(self, prefixes: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        self.changed(|s| s.except.extend(prefixes.into_iter().map(Into::into)))
    }

    /// Writes in the clear from now on, and still reads what the keys encrypted: the way out of encryption.
    #[must_use]
    pub fn write_plaintext(self) -> Self {
        self.changed(|s| s.writes_plain = true)
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
        let mut written = 0;
        for prefix in &self.sealer.prefixes {
            let mut range = KeyRange::prefix(prefix.clone());
            loop {
                let request = RangeRequest { range: range.clone(), limit: ROTATE_ITEMS_MAX, revision: None };
                let page = self.inner.range(request).await?;
                for kv in page
                    .items
                    .iter()
                    .filter(|kv| self.sealer.covers(&kv.key) && !self.sealer.is_current(&kv.value))
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
        let plain = self.sealer.open_item(kv)?;
        let compare = Compare { key: plain.key.clone(), mod_revision: plain.mod_revision };
        let op = Op::Put { key: plain.key, value: plain.value };
        let outcome = Store::commit(self, Commit { compares: vec![compare], ops: vec![op] }).await?;
        Ok(matches!(outcome, CommitOutcome::Committed { .. }))
    }
}

impl std::fmt::Debug for EncryptedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EncryptedStore(writes with {:?})", self.sealer.first)
    }
}

impl Sealer {
    fn covers(&self, key: &[u8]) -> bool {
        let begins = |prefix: &Bytes| key.starts_with(prefix);
        self.prefixes.iter().any(begins) && !self.except.iter().any(begins)
    }

    /// The key that encrypted a value, and the rest of it; `None` where it is not encrypted.
    fn key_of<'v>(&self, value: &'v [u8]) -> Option<(Option<&EncryptionKey>, &'v [u8])> {
        let rest = value.strip_prefix(MARK)?;
        let colon = rest.iter().position(|byte| *byte == b':')?;
        let (id, rest) = (&rest[..colon], &rest[colon + 1..]);
        let key = std::iter::once(&self.first).chain(&self.older).find(|key| key.id.as_bytes() == id);
        Some((key, rest))
    }

    fn is_current(&self, value: &[u8]) -> bool {
        match self.key_of(value) {
            None => self.writes_plain,
            Some((key, _)) => !self.writes_plain && key.is_some_and(|key| key.id == self.first.id),
        }
    }

    fn open_item(&self, mut kv: KeyValue) -> Result<KeyValue, Error> {
        if !self.covers(&kv.key) {
            return Ok(kv);
        }
        kv.value = match self.key_of(&kv.value) {
            Some((Some(key), sealed)) => key.open(&kv.key, sealed)?,
            Some((None, _)) => {
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

    fn open_some(&self, kv: Option<KeyValue>) -> Result<Option<KeyValue>, Error> {
        kv.map(|kv| self.open_item(kv)).transpose()
    }

    fn open_event(&self, event: Event) -> Result<Event, Error> {
        Ok(match event {
            Event::Put { item, previous } => {
                Event::Put { item: self.open_item(item)?, previous: self.open_some(previous)? }
            }
            Event::Delete { key, previous, revision } => {
                Event::Delete { key, previous: self.open_some(previous)?, revision }
            }
        })
    }

    fn open_batch(&self, batch: WatchBatch) -> Result<WatchBatch, Error> {
        let events =
            batch.events.into_iter().map(|event| self.open_event(event)).collect::<Result<_, _>>()?;
        Ok(WatchBatch { events, revision: batch.revision })
    }

    fn seal(&self, mut commit: Commit) -> Result<Commit, Error> {
        if self.writes_plain {
            return Ok(commit);
        }
        for op in &mut commit.ops {
            if let Op::Put { key, value } = op
                && self.covers(key)
            {
                *value = self.first.seal(key, value)?;
            }
        }
        Ok(commit)
    }
}

impl Store for EncryptedStore {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        self.inner.current_revision()
    }

    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<KeyValue>, Error>> {
        Box::pin(async move { self.sealer.open_some(self.inner.get(key).await?) })
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, Error>> {
        Box::pin(async move {
            let mut page = self.inner.range(request).await?;
            page.items =
                page.items.into_iter().map(|kv| self.sealer.open_item(kv)).collect::<Result<_, _>>()?;
            Ok(page)
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, Error>> {
        Box::pin(async move {
            match self.inner.commit(self.sealer.seal(commit)?).await? {
                CommitOutcome::Refused { current } => {
                    let current = current.into_iter().map(|kv| self.sealer.open_some(kv));
                    Ok(CommitOutcome::Refused { current: current.collect::<Result<_, _>>()? })
                }
                done => Ok(done),
            }
        })
    }

    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<WatchStream, Error>> {
        Box::pin(async move {
            let stream = self.inner.watch(range, from).await?;
            let sealer = self.sealer.clone();
            // The stream ends after its first error.
            let opened = stream.scan(false, move |ended, batch| {
                let item = (!*ended).then(|| batch.and_then(|batch| sealer.open_batch(batch)));
                *ended = matches!(item, Some(Err(_)) | None);
                futures::future::ready(item)
            });
            Ok(opened.boxed())
        })
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.compact(revision)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.close()
    }
}
