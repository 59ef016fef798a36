//! The stream of one watcher.

use super::hub::{Handed, Hub};
use crate::{Error, Event, KeyRange, Revision, WatchBatch, WatchStream};
use futures::Stream;
use futures::StreamExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Follows a range of the hub's store.
pub(crate) fn watch(hub: &Arc<Hub>, range: KeyRange, from: Revision) -> Result<WatchStream, Error> {
    let id = hub.subscribe(range.clone(), from)?;
    let every = hub.limits().progress_interval;
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok(Watcher { hub: hub.clone(), id, range, ticks, ended: false }.boxed())
}

struct Watcher {
    hub: Arc<Hub>,
    id: u64,
    range: KeyRange,
    ticks: Interval,
    ended: bool,
}

impl Watcher {
    fn batch(&self, handed: Handed) -> WatchBatch {
        let wanted = |event: &&Event| self.range.contains(event.key());
        let events = handed.committed.iter().flat_map(|c| c.events.iter().filter(wanted)).cloned().collect();
        WatchBatch { events, revision: handed.upto }
    }
}

impl Stream for Watcher {
    type Item = Result<WatchBatch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut mark = false;
        loop {
            match self.hub.poll(self.id, mark, cx.waker()) {
                // A stretch of history that does not touch the range.
                Poll::Ready(Ok(handed)) if handed.committed.is_empty() && !mark => {}
                Poll::Ready(Ok(handed)) => return Poll::Ready(Some(Ok(self.batch(handed)))),
                Poll::Ready(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Pending => {
                    ready!(self.ticks.poll_tick(cx));
                    mark = true;
                }
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.hub.unsubscribe(self.id);
    }
}
