//! Many watchers of one collection: how many events reach them, what that costs, and how late they are.

use crate::Failed;
use crate::measure::{cpu_seconds, percentile};
use crate::requests::{path, send};
use crate::target::{Ask, Target};
use http_body_util::BodyExt;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many watchers there are.
pub(crate) const WATCHERS: usize = 100;
/// A watcher that sees nothing for so long has lost an event.
const SILENCE: Duration = Duration::from_secs(30);

/// What a run of watchers saw.
pub(crate) struct Watched {
    /// Events that reached a watcher, per second.
    pub(crate) events_per_second: f64,
    /// The server's CPU seconds for 1,000 of them, the updates included.
    pub(crate) cpu_per_thousand: f64,
    /// From the answer of the update to the event at a watcher, in ms: 99 of 100 are not later.
    pub(crate) delay_p99_ms: f64,
}

/// Lets `count` updates of pods be watched, as fast as they are answered or every `pace`.
pub(crate) async fn watch(
    target: &Arc<Target>,
    servers: &[u32],
    count: usize,
    pods: usize,
    pace: Option<Duration>,
) -> Result<Watched, Failed> {
    let mut watchers = JoinSet::new();
    let from = resource_version(target).await?;
    for _ in 0..WATCHERS {
        let mut connection = target.connect().await?;
        let ask = Ask::get(path(&format!("pods?watch=true&resourceVersion={from}")));
        let mut body = connection.open(ask).await?.into_body();
        watchers.spawn(async move {
            let mut arrivals = Vec::with_capacity(count);
            while arrivals.len() < count {
                let frame = tokio::time::timeout(SILENCE, body.frame()).await.map_err(|e| e.to_string())?;
                let frame = frame.ok_or("a watch ended")?.map_err(|e| e.to_string())?;
                let now = Instant::now();
                let events = frame.data_ref().map_or(0, |data| data.iter().filter(|b| **b == b'\n').count());
                arrivals.extend(std::iter::repeat_n(now, events));
            }
            // The connection lives as long as its watch.
            drop(connection);
            Ok::<_, String>(arrivals)
        });
    }
    let cpu = cpu_seconds(servers)?;
    let start = Instant::now();
    let answers = match pace {
        Some(pace) => paced(target, count, pods, pace).await?,
        None => {
            send(target, 8, count, move |number| update(number, pods)).await?;
            Vec::new()
        }
    };
    let mut delays = Vec::new();
    while let Some(done) = watchers.join_next().await {
        let arrivals = done??;
        delays
            .extend(arrivals.iter().zip(&answers).map(|(seen, told)| seen.saturating_duration_since(*told)));
    }
    let events = (count * WATCHERS) as f64;
    Ok(Watched {
        events_per_second: events / start.elapsed().as_secs_f64(),
        cpu_per_thousand: (cpu_seconds(servers)? - cpu) * 1000.0 / events,
        delay_p99_ms: percentile(&mut delays, 0.99),
    })
}

/// One update after the other; gives when each was answered.
async fn paced(
    target: &Arc<Target>,
    count: usize,
    pods: usize,
    pace: Duration,
) -> Result<Vec<Instant>, Failed> {
    let mut connection = target.connect().await?;
    let mut ticks = tokio::time::interval(pace);
    let mut answers = Vec::with_capacity(count);
    for number in 0..count {
        ticks.tick().await;
        connection.send(update(number, pods)).await?;
        answers.push(Instant::now());
    }
    Ok(answers)
}

fn update(number: usize, pods: usize) -> Ask {
    let patch =
        json!({"metadata": {"annotations": {"example.com/at": format!("{number} {:?}", Instant::now())}}});
    Ask::patch(path(&format!("pods/listed-{}", number % pods)), "application/merge-patch+json", &patch)
}

async fn resource_version(target: &Arc<Target>) -> Result<String, Failed> {
    let body = target.connect().await?.send(Ask::get(path("pods?limit=1"))).await?;
    let list: serde_json::Value = serde_json::from_slice(&body)?;
    Ok(list["metadata"]["resourceVersion"].as_str().ok_or("a list without a version")?.to_owned())
}
