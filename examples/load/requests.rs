//! Requests as fast as they are answered, on some connections.

use crate::Failed;
use crate::target::{Ask, Target};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The namespace of everything.
pub(crate) const NAMESPACE: &str = "load";
/// Fills a pod up to the size that a small one has upstream.
pub(crate) const PADDING_BYTES: usize = 42;

/// What a run saw.
pub(crate) struct Seen {
    /// From the first request until the last answer.
    pub(crate) took: Duration,
    /// Of each request.
    pub(crate) times: Vec<Duration>,
    /// The largest body, in bytes.
    pub(crate) body: usize,
}

/// Sends `count` requests over `connections` connections; `ask` makes the request of a number.
pub(crate) async fn send(
    target: &Arc<Target>,
    connections: usize,
    count: usize,
    ask: impl Fn(usize) -> Ask + Clone + Send + Sync + 'static,
) -> Result<Seen, Failed> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(target.connect().await?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in open {
        let (next, ask) = (next.clone(), ask.clone());
        tasks.spawn(async move {
            let (mut times, mut body) = (Vec::new(), 0);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok((times, body));
                }
                let ask = ask(number);
                let start = Instant::now();
                let answer = match connection.send(ask).await.map_err(|e| e.to_string()) {
                    // Left by a run before.
                    Err(e) if e.contains("AlreadyExists") => Default::default(),
                    answer => answer?,
                };
                times.push(start.elapsed());
                body = body.max(answer.len());
            }
        });
    }
    let (mut times, mut body) = (Vec::with_capacity(count), 0);
    while let Some(done) = tasks.join_next().await {
        let (took, len): (Vec<Duration>, usize) = done?.map_err(|e: String| e)?;
        times.extend(took);
        body = len.max(body);
    }
    Ok(Seen { took: start.elapsed(), times, body })
}

/// A path in the namespace of the load.
pub(crate) fn path(rest: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/{rest}")
}

/// A pod of one container.
pub(crate) fn pod(name: &str, number: usize, padding: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "load", "number": number.to_string()},
            "annotations": {"example.com/padding": "x".repeat(padding)}},
        "spec": {"containers": [{"name": "c", "image": "registry.example.com/web:v1",
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}})
}
