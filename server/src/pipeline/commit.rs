//! Objects into the store: compare, write, and what the other writer left where it was faster.

use crate::cache::{Entry, ObjectCache, Prepared, field_texts};
use crate::encode;
use crate::handlers::Call;
use crate::keys::ResourceId;
use crate::kinds::Served;
use bytes::Bytes;
use kubewright_core::resource::Origin;
use kubewright_core::{ApiError, ApiObject, KindDescriptor, Reason, meta};
use kubewright_store::{Commit, CommitOutcome, Compare, Op};
use serde_json::Value;
use std::sync::Arc;

/// The largest object that is stored, in bytes: etcd's default bound of a request.
const OBJECT_BYTES_MAX: usize = 3 * 512 * 1024;

/// A number claimed or given up together with the write of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The key must not exist, and then holds the holder's name.
    Take { key: Bytes, holder: Bytes },
    /// The key goes.
    Release { key: Bytes },
}

/// How a write ended.
pub(crate) enum Outcome {
    /// Stored.
    Done(Arc<ApiObject>),
    /// Another write was there first.
    Beaten,
    /// A number was claimed by another.
    Claimed,
}

/// Writes an object if its key is still at `expected` (0: does not exist). With `dryRun` everything but the write happens.
///
/// # Errors
/// 413 for an object too large, or the store's error.
pub(crate) async fn commit(
    call: &Call,
    object: &Value,
    expected: u64,
    claims: Vec<Claim>,
) -> Result<Outcome, ApiError> {
    let kind = &call.kind;
    let shape = call.server.converter.stored(kind, object).await?;
    let stored_shape = shape.as_ref().unwrap_or(object);
    let stored = encode::stored(stored_shape)?;
    if stored.len() > OBJECT_BYTES_MAX {
        let message = format!("Request entity too large: limit is {OBJECT_BYTES_MAX}");
        return Err(ApiError::new(Reason::RequestEntityTooLarge, message));
    }
    if call.options.dry_run {
        return Ok(Outcome::Done(Arc::new(encode::object(object, expected)?)));
    }
    let key = ResourceId::of(&kind.descriptor).key(meta::namespace(object), meta::name(object));
    let header = encode::header(object);
    call.server.cache.prepare(Prepared {
        key: key.clone(),
        stored: stored.clone(),
        header: header.clone(),
        fields: field_texts(&kind.storage.selectable_fields, stored_shape),
    });
    let mut compares = vec![Compare { key: key.clone(), mod_revision: expected }];
    let mut ops = vec![Op::Put { key: key.clone(), value: stored.clone() }];
    add_claims(claims, &mut compares, &mut ops);
    let outcome = call.server.store.commit(Commit { compares, ops }).await;
    let revision = match outcome {
        Ok(CommitOutcome::Committed { revision }) => revision,
        Ok(CommitOutcome::Refused { current }) => {
            call.server.cache.unprepare(&key, &stored);
            return Ok(beaten(&current, expected));
        }
        Err(e) => {
            call.server.cache.unprepare(&key, &stored);
            return Err(crate::errors::store(&e));
        }
    };
    let bytes = match shape {
        None => encode::served(&stored, revision)?,
        Some(_) => return Ok(Outcome::Done(Arc::new(encode::object(object, revision)?))),
    };
    Ok(Outcome::Done(Arc::new(ApiObject::from_parts(bytes, header, revision))))
}

/// Replaces a stored object if it is still at `expected`, past everything else; `None` where another write was there first.
///
/// # Errors
/// The store's.
pub(crate) async fn replace(
    cache: &ObjectCache,
    kind: &Served,
    object: &Value,
    expected: u64,
) -> Result<Option<u64>, ApiError> {
    let stored = encode::stored(object)?;
    let key = ResourceId::of(&kind.descriptor).key(meta::namespace(object), meta::name(object));
    cache.prepare(Prepared {
        key: key.clone(),
        stored: stored.clone(),
        header: encode::header(object),
        fields: field_texts(&kind.storage.selectable_fields, object),
    });
    let compares = vec![Compare { key: key.clone(), mod_revision: expected }];
    let ops = vec![Op::Put { key: key.clone(), value: stored.clone() }];
    let outcome = cache.store().commit(Commit { compares, ops }).await;
    match outcome {
        Ok(CommitOutcome::Committed { revision }) => return Ok(Some(revision)),
        Ok(CommitOutcome::Refused { .. }) => cache.unprepare(&key, &stored),
        Err(e) => {
            cache.unprepare(&key, &stored);
            return Err(crate::errors::store(&e));
        }
    }
    Ok(None)
}

/// Keeps the object that a commit wrote for the next writer, where one is likely: kinds with a status are written again and again.
pub(crate) fn keep(call: &Call, mut object: Value, written: &ApiObject) {
    let kind = &call.kind.descriptor;
    if call.options.dry_run || !kind.status || !is_kept_as_it_is(kind) {
        return;
    }
    let Some(metadata) = meta::metadata_mut(&mut object) else { return };
    let revision = written.resource_version();
    metadata.insert("resourceVersion".to_owned(), Value::from(revision.to_string()));
    let key = ResourceId::of(kind).key(meta::namespace(&object), meta::name(&object));
    call.server.cache.recent.put(key, revision, object, written.bytes().len());
}

/// The object of a cache entry to write on, parsed anew where nobody kept it.
///
/// # Errors
/// 500 where it is no JSON.
pub(crate) fn writable(call: &Call, entry: &Entry) -> Result<Value, ApiError> {
    let (kind, object) = (&call.kind.descriptor, &entry.shape.object);
    if kind.status && is_kept_as_it_is(kind) {
        let header = object.header();
        let key = ResourceId::of(kind).key(&header.namespace, &header.name);
        if let Some(kept) = call.server.cache.recent.take(&key, object.resource_version()) {
            return Ok(kept);
        }
    }
    entry.shape(&call.kind)?.object.value()
}

/// Whether the stored form is the served one: built-in kinds that are no views of others.
fn is_kept_as_it_is(kind: &KindDescriptor) -> bool {
    kind.origin == Origin::BuiltIn && kind.stored_as.is_none()
}

fn add_claims(claims: Vec<Claim>, compares: &mut Vec<Compare>, ops: &mut Vec<Op>) {
    for claim in claims {
        match claim {
            Claim::Take { key, holder } => {
                compares.push(Compare { key: key.clone(), mod_revision: 0 });
                ops.push(Op::Put { key, value: holder });
            }
            Claim::Release { key } => ops.push(Op::Delete { key }),
        }
    }
}

/// Which condition failed: the object's own first.
fn beaten(current: &[Option<kubewright_store::KeyValue>], expected: u64) -> Outcome {
    let own = current.first().and_then(Option::as_ref).map_or(0, |item| item.mod_revision);
    if own != expected {
        return Outcome::Beaten;
    }
    if current.iter().skip(1).any(Option::is_some) { Outcome::Claimed } else { Outcome::Beaten }
}
