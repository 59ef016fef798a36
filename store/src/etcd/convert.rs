//! Between the port's terms and etcd's messages.

use super::wire::{
    self, DeleteRangeRequest, PutRequest, RequestOp, ResponseOp, TxnRequest, TxnResponse, request_op,
    response_op,
};
use crate::{Commit, CommitOutcome, Error, Event, KeyRange, KeyValue, Op, Reason};
use bytes::Bytes;

/// One zero byte: the first key as a start, no bound as an end.
const ZERO: Bytes = Bytes::from_static(b"\0");

/// A start of a range; etcd has no empty keys.
pub(super) fn start_key(start: &Bytes) -> Bytes {
    if start.is_empty() { ZERO } else { start.clone() }
}

pub(super) fn range_end(range: &KeyRange) -> Bytes {
    range.end.clone().unwrap_or(ZERO)
}

pub(super) fn item(kv: wire::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: kv.create_revision as u64,
        mod_revision: kv.mod_revision as u64,
    }
}

/// The event; `None` where the server left out the key.
pub(super) fn event(event: wire::Event) -> Option<Event> {
    let deleted = event.r#type() == wire::event::EventType::Delete;
    let kv = item(event.kv?);
    let previous = event.prev_kv.map(item);
    Some(if deleted {
        Event::Delete { key: kv.key, previous, revision: kv.mod_revision }
    } else {
        Event::Put { item: kv, previous }
    })
}

/// The request for a commit; `leases` are those of its ops, or none at all.
pub(super) fn txn(commit: Commit, leases: &[i64]) -> Result<TxnRequest, Error> {
    let mut compare = Vec::with_capacity(commit.compares.len());
    let mut failure = Vec::with_capacity(commit.compares.len());
    for condition in commit.compares {
        let revision = i64::try_from(condition.mod_revision)
            .map_err(|_| Error::new(Reason::Invalid, "a condition names a revision that can't be"))?;
        compare.push(wire::Compare {
            result: wire::compare::CompareResult::Equal as i32,
            target: wire::compare::CompareTarget::Mod as i32,
            key: condition.key.clone(),
            target_union: Some(wire::compare::TargetUnion::ModRevision(revision)),
        });
        let read = wire::RangeRequest { key: condition.key, ..Default::default() };
        failure.push(RequestOp { request: Some(request_op::Request::RequestRange(read)) });
    }
    let lease = |at: usize| leases.get(at).copied().unwrap_or(0);
    let success = commit.ops.into_iter().enumerate().map(|(at, op)| request_of(op, lease(at))).collect();
    Ok(TxnRequest { compare, success, failure })
}

fn request_of(op: Op, lease: i64) -> RequestOp {
    let request = match op {
        Op::Put { key, value } => {
            request_op::Request::RequestPut(PutRequest { key, value, lease, ..Default::default() })
        }
        Op::Delete { key } => {
            request_op::Request::RequestDeleteRange(DeleteRangeRequest { key, ..Default::default() })
        }
    };
    RequestOp { request: Some(request) }
}

pub(super) fn outcome(answer: TxnResponse) -> CommitOutcome {
    if answer.succeeded {
        let revision = answer.header.map_or(0, |header| header.revision as u64);
        return CommitOutcome::Committed { revision };
    }
    let found = |response: ResponseOp| match response.response {
        Some(response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next().map(item),
        _ => None,
    };
    CommitOutcome::Refused { current: answer.responses.into_iter().map(found).collect() }
}
