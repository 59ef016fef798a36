//! The property that every controller must have: from any state it converges, and then it stays still.

use super::FakeApi;
use crate::{CancellationToken, Context, Controller, Informers};
use std::sync::Arc;
use std::time::Duration;

/// How long a controller may take to converge.
const LIMIT: Duration = Duration::from_secs(60);
/// How long nothing may be written to call it still.
const STILL: Duration = Duration::from_millis(250);

/// Runs controllers against a server until `done` holds and nothing is written any more, then stops them.
///
/// # Errors
/// What went wrong: `done` did not hold in time, or the controllers kept writing, with how much they wrote.
///
/// # Cancel safety
/// Dropping it stops the controllers.
pub async fn converges(
    server: &FakeApi,
    controllers: impl IntoIterator<Item = Controller>,
    mut done: impl FnMut() -> bool,
) -> Result<(), String> {
    let entropy = Arc::new(kubewright_core::Entropy::from_seed(7));
    let informers = Informers::with_entropy(server.client(), entropy.clone());
    let cx = Context::with(server.client(), informers.clone(), server.clock(), entropy);
    let cancel = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    for controller in controllers {
        let (cx, cancel) = (cx.clone(), cancel.clone());
        tasks.spawn(async move { controller.run(cx, cancel).await });
    }
    let watch = async {
        let mut writes = server.writes();
        loop {
            tokio::time::sleep(STILL).await;
            let now = server.writes();
            if now == writes && done() {
                return;
            }
            writes = now;
        }
    };
    let result = match tokio::time::timeout(LIMIT, watch).await {
        Ok(()) => Ok(()),
        Err(_) if done() => Err(format!("it does not stay still: {} writes so far", server.writes())),
        Err(_) => Err(format!("it does not converge: {} writes so far", server.writes())),
    };
    cancel.cancel();
    while tasks.join_next().await.is_some() {}
    informers.shutdown().await;
    result
}
