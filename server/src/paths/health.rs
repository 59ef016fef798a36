//! `/healthz`, `/livez` and `/readyz`.

use super::text;
use crate::server::Shared;
use kubewright_core::{ApiError, ApiResponse};
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Ping,
    Store,
    Cache,
    Shutdown,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::Ping => "ping",
            Check::Store => "etcd",
            Check::Cache => "informer-sync",
            Check::Shutdown => "shutdown",
        }
    }

    async fn passes(self, shared: &Shared) -> bool {
        match self {
            Check::Ping => true,
            Check::Store => {
                let asked = tokio::time::timeout(PATIENCE, shared.store.current_revision()).await;
                matches!(asked, Ok(Ok(_)))
            }
            Check::Cache => {
                matches!(tokio::time::timeout(PATIENCE, shared.cache.consistent()).await, Ok(Ok(_)))
            }
            Check::Shutdown => !shared.stopping.load(Ordering::Relaxed) && !shared.cancel.is_cancelled(),
        }
    }
}

fn checks(which: &str) -> &'static [Check] {
    match which {
        "readyz" => &[Check::Ping, Check::Store, Check::Cache, Check::Shutdown],
        _ => &[Check::Ping, Check::Store],
    }
}

/// Each check with whether it passes.
pub(super) async fn states(shared: &Shared, which: &str) -> Vec<(&'static str, bool)> {
    let mut all = Vec::new();
    for check in checks(which) {
        all.push((check.name(), check.passes(shared).await));
    }
    all
}

/// `ok`; with `verbose`, and on failure, a line for each check. Below stand the checks one by one.
pub(super) async fn answer(
    shared: &Shared,
    which: &str,
    below: &[&str],
    query: &str,
) -> Result<ApiResponse, ApiError> {
    let all = checks(which);
    let query: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let values = |name: &str| query.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect();
    let excluded: Vec<String> = values("exclude");
    match below {
        [] => {
            let verbose = query.iter().any(|(n, _)| n == "verbose");
            Ok(together(shared, which, all, excluded, verbose).await)
        }
        [name] => {
            let check = all.iter().find(|c| c.name() == *name).ok_or_else(ApiError::no_such_path)?;
            if check.passes(shared).await {
                return Ok(text(200, "ok".to_owned()));
            }
            Ok(text(500, format!("internal server error: {name} failed\n")))
        }
        _ => Err(ApiError::no_such_path()),
    }
}

async fn together(
    shared: &Shared,
    which: &str,
    all: &[Check],
    mut excluded: Vec<String>,
    verbose: bool,
) -> ApiResponse {
    let mut lines = String::new();
    let mut failed = false;
    // Writing to a String cannot fail.
    for check in all {
        let name = check.name();
        let before = excluded.len();
        excluded.retain(|e| e != name);
        if excluded.len() < before {
            let _ = writeln!(lines, "[+]{name} excluded: ok");
        } else if check.passes(shared).await {
            let _ = writeln!(lines, "[+]{name} ok");
        } else {
            failed = true;
            let _ = writeln!(lines, "[-]{name} failed: reason withheld");
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|e| format!("{e:?}")).collect();
        let names = names.join(",");
        let _ = writeln!(lines, "warn: some health checks cannot be excluded: no matches for {names}");
    }
    if failed {
        let _ = writeln!(lines, "{which} check failed");
        return text(500, lines);
    }
    if !verbose {
        return text(200, "ok".to_owned());
    }
    let _ = writeln!(lines, "{which} check passed");
    text(200, lines)
}
