//! A watch on etcd that outlives its connections: after a break it goes on at the next revision, at whichever member answers.

use super::MESSAGE_BYTES_MAX;
use super::convert::{event, range_end, start_key};
use super::endpoints::{Call, Endpoints, closed};
use super::errors::{Next, judge, told};
use super::wire::watch_client::WatchClient;
use super::wire::{WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_request};
use crate::{Error, Event, KeyRange, Reason, Revision, WatchBatch, WatchStream};
use futures::StreamExt as _;
use futures::channel::mpsc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, Streaming};

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Starts a watch; returns once a member has taken it.
pub(super) async fn watch(
    endpoints: Arc<Endpoints>,
    range: KeyRange,
    from: Revision,
) -> Result<WatchStream, Error> {
    let mut watcher = Watcher {
        endpoints,
        range,
        next: from.max(1),
        marked: 0,
        candidate: None,
        connection: None,
        events: Vec::new(),
    };
    watcher.connect().await?;
    let step = |watcher: Option<Watcher>| async {
        let mut watcher = watcher?;
        match watcher.batch().await {
            Ok(batch) => Some((Ok(batch), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    };
    Ok(futures::stream::unfold(Some(watcher), step).boxed())
}

struct Watcher {
    endpoints: Arc<Endpoints>,
    range: KeyRange,
    /// The first revision that was not yielded.
    next: Revision,
    /// The last progress mark yielded.
    marked: Revision,
    /// A mark that is yielded when the next one comes and nothing came between: older servers tell it too early.
    candidate: Option<Revision>,
    connection: Option<Connection>,
    /// The first parts of an answer that comes in fragments.
    events: Vec<Event>,
}

struct Connection {
    member: usize,
    to_server: mpsc::Sender<WatchRequest>,
    from_server: Streaming<WatchResponse>,
}

/// What an answer of the server means.
enum Heard {
    Batch(WatchBatch),
    Nothing,
    Broken(Status),
}

impl Watcher {
    /// Gets through to some member, or gives up.
    async fn connect(&mut self) -> Result<(), Error> {
        let give_up = Instant::now() + self.endpoints.options().give_up_after;
        let (mut pause, mut failed, mut logged_in) = (PAUSE_MIN, 0, false);
        let mut closing = self.endpoints.closing();
        loop {
            let member = self.endpoints.current();
            let tried = tokio::select! {
                tried = timeout(self.endpoints.options().call_timeout, self.open(member)) => tried,
                _ = closing.wait_for(|closed| *closed) => return Err(closed()),
            };
            let status = match tried {
                Ok(Ok(connection)) => {
                    self.connection = Some(connection);
                    return Ok(());
                }
                Ok(Err(Refused::For(error))) => return Err(error),
                Ok(Err(Refused::Status(status))) => status,
                Err(_) => Status::deadline_exceeded("a member did not take the watch in time"),
            };
            match judge(&status).1 {
                Next::Stop => return Err(told(self.endpoints.url(member), status)),
                Next::LogIn if logged_in || self.endpoints.options().credentials.is_none() => {
                    return Err(told(self.endpoints.url(member), status));
                }
                Next::LogIn => {
                    logged_in = true;
                    self.endpoints.forget_token();
                    continue;
                }
                Next::NotDone | Next::MaybeDone => self.endpoints.leave(member),
            }
            failed += 1;
            if Instant::now() >= give_up {
                return Err(told(self.endpoints.url(member), status));
            }
            if failed % self.endpoints.len() == 0 {
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    async fn open(&self, member: usize) -> Result<Connection, Refused> {
        let call: Call = self.endpoints.call(member).await.map_err(Refused::Status)?;
        let create = WatchCreateRequest {
            key: start_key(&self.range.start),
            range_end: range_end(&self.range),
            start_revision: self.next as i64,
            progress_notify: true,
            prev_kv: true,
            fragment: true,
            watch_id: 0,
        };
        let create = WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) };
        let (mut to_server, requests) = mpsc::channel(4);
        let full = |_| Refused::Status(Status::internal("the request can't be queued"));
        to_server.try_send(create).map_err(full)?;
        let mut client = WatchClient::new(call.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut from_server =
            client.watch(call.request(requests)).await.map_err(Refused::Status)?.into_inner();
        let first = from_server.message().await.map_err(Refused::Status)?;
        let Some(first) = first else {
            return Err(Refused::Status(Status::unavailable("the watch ended before it began")));
        };
        if first.canceled {
            return Err(cancelled(&first, self.next));
        }
        Ok(Connection { member, to_server, from_server })
    }

    /// The next batch or progress mark.
    async fn batch(&mut self) -> Result<WatchBatch, Error> {
        let mut closing = self.endpoints.closing();
        loop {
            let heard = tokio::select! {
                heard = self.hear() => heard?,
                _ = closing.wait_for(|closed| *closed) => return Err(closed()),
            };
            match heard {
                Heard::Batch(batch) => return Ok(batch),
                Heard::Nothing => {}
                Heard::Broken(status) => {
                    tracing::debug!(%status, next = self.next, "the watch broke and goes on elsewhere");
                    if let Some(gone) = self.connection.take() {
                        self.endpoints.leave(gone.member);
                    }
                    self.events.clear();
                    self.candidate = None;
                    self.connect().await?;
                }
            }
        }
    }

    async fn hear(&mut self) -> Result<Heard, Error> {
        let Some(connection) = &mut self.connection else {
            return Ok(Heard::Broken(Status::unavailable("not connected")));
        };
        let quiet = self.endpoints.options().limits.progress_interval;
        let answer = match timeout(quiet, connection.from_server.message()).await {
            Err(_) => {
                let ask = watch_request::RequestUnion::ProgressRequest(WatchProgressRequest {});
                // A full queue means that the server is slow to take them; the next quiet interval asks again.
                let _ = connection.to_server.try_send(WatchRequest { request_union: Some(ask) });
                return Ok(Heard::Nothing);
            }
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => return Ok(Heard::Broken(Status::unavailable("the server ended the watch"))),
            Ok(Err(status)) => {
                return match judge(&status).1 {
                    Next::Stop => Err(told(self.endpoints.url(connection.member), status)),
                    Next::LogIn => {
                        self.endpoints.forget_token();
                        Ok(Heard::Broken(status))
                    }
                    Next::NotDone | Next::MaybeDone => Ok(Heard::Broken(status)),
                };
            }
        };
        if answer.canceled {
            return match cancelled(&answer, self.next) {
                Refused::For(error) => Err(error),
                Refused::Status(status) => Ok(Heard::Broken(status)),
            };
        }
        self.take(answer)
    }

    fn take(&mut self, answer: WatchResponse) -> Result<Heard, Error> {
        let revision = answer.header.as_ref().map_or(0, |header| header.revision as u64);
        let is_mark = answer.events.is_empty() && self.events.is_empty();
        self.events.extend(answer.events.into_iter().filter_map(event));
        if answer.fragment {
            return Ok(Heard::Nothing);
        }
        if is_mark {
            return Ok(if answer.created { Heard::Nothing } else { self.mark(revision) });
        }
        self.candidate = None;
        let events = std::mem::take(&mut self.events);
        if let Some(early) = events.iter().find(|e| e.revision() <= self.marked) {
            let words =
                format!("etcd told progress {} before the event of {}", self.marked, early.revision());
            return Err(Error::new(Reason::Failed, words));
        }
        let Some(last) = events.last().map(Event::revision) else { return Ok(Heard::Nothing) };
        self.next = last + 1;
        Ok(Heard::Batch(WatchBatch { events, revision: last }))
    }

    fn mark(&mut self, revision: Revision) -> Heard {
        let believed =
            self.candidate.replace(revision).filter(|mark| *mark > self.marked && *mark + 1 >= self.next);
        match believed {
            Some(mark) => {
                self.marked = mark;
                self.next = self.next.max(mark + 1);
                Heard::Batch(WatchBatch { events: Vec::new(), revision: mark })
            }
            None => Heard::Nothing,
        }
    }
}

/// Why a member did not take a watch.
enum Refused {
    /// Whichever member is asked.
    For(Error),
    /// Perhaps another member does.
    Status(Status),
}

fn cancelled(answer: &WatchResponse, next: Revision) -> Refused {
    if answer.compact_revision > 0 {
        let floor = answer.compact_revision;
        let words = format!("revision {next} was compacted, the history kept begins at {floor}");
        return Refused::For(Error::new(Reason::Compacted, words));
    }
    Refused::Status(Status::unavailable(format!("the watch was cancelled: {}", answer.cancel_reason)))
}
