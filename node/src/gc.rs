//! Housekeeping on disk: logs that grew too large, and what pods left behind.

use crate::agent::Inner;
use k8s_openapi::api::core::v1::Pod;
use kubewright_runtime::port::ContainerState;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often logs are looked at.
const LOGS: Duration = Duration::from_secs(10);
/// A log of this size is moved away; so many files of one container are kept.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
const LOG_FILES_MAX: u32 = 5;
/// How often the disk is searched for volumes of pods that are gone.
const ORPHANS_EVERY: u32 = 6;

/// Keeps the disk tidy, for ever.
pub(crate) async fn run(a: &Arc<Inner>) {
    if a.settings.simulated {
        return std::future::pending().await;
    }
    let mut turn = 0_u32;
    loop {
        tokio::time::sleep(LOGS).await;
        rotate_logs(a).await;
        turn = turn.wrapping_add(1);
        if turn.is_multiple_of(ORPHANS_EVERY) {
            remove_orphans(a).await;
        }
    }
}

async fn rotate_logs(a: &Inner) {
    let workers: Vec<_> = a.workers.lock().values().cloned().collect();
    for worker in workers {
        let observed = worker.observed();
        let running = observed.containers.iter().filter(|c| c.state == ContainerState::Running);
        for c in running.filter(|c| !c.log_path.is_empty()) {
            let path = PathBuf::from(&c.log_path);
            let size = tokio::fs::metadata(&path).await.map_or(0, |m| m.len());
            if size < LOG_BYTES_MAX {
                continue;
            }
            match tokio::task::spawn_blocking(move || rotate(&path, LOG_FILES_MAX)).await {
                Ok(Ok(())) => {}
                other => tracing::debug!(log = c.log_path, result = ?other, "a log was not rotated"),
            }
            if let Err(e) = a.runtime.reopen_container_log(&c.id).await {
                tracing::debug!(log = c.log_path, error = %e, "a log was not opened anew");
            }
        }
    }
}

/// Moves `0.log` to `0.log.1`, that to `0.log.2`, and so on; the oldest goes.
fn rotate(log: &Path, files_max: u32) -> std::io::Result<()> {
    let numbered = |n: u32| PathBuf::from(format!("{}.{n}", log.display()));
    let oldest = numbered(files_max - 1);
    if oldest.exists() {
        std::fs::remove_file(&oldest)?;
    }
    for n in (1..files_max - 1).rev() {
        if numbered(n).exists() {
            std::fs::rename(numbered(n), numbered(n + 1))?;
        }
    }
    std::fs::rename(log, numbered(1))
}

/// Removes volumes of pods that neither the API nor the runtime knows: those of an agent that ended in between.
async fn remove_orphans(a: &Inner) {
    for uid in a.volumes.pods_on_disk() {
        if a.worker(&uid).is_none()
            && let Err(e) = a.volumes.unmount_pod(&uid).await
        {
            tracing::debug!(uid, error = %e, "an orphaned pod's volumes stay for now");
        }
    }
}

impl Inner {
    /// Removes a log with its older files.
    pub(crate) async fn remove_log(&self, log: &str) {
        if log.is_empty() || self.settings.simulated {
            return;
        }
        for n in 1..LOG_FILES_MAX {
            let _ = tokio::fs::remove_file(format!("{log}.{n}")).await;
        }
        let _ = tokio::fs::remove_file(log).await;
    }

    /// Removes all logs of a pod that is gone.
    pub(crate) async fn remove_logs(&self, pod: &Pod) {
        let dir = self.log_dir(pod);
        if !dir.is_empty() {
            let _ = tokio::fs::remove_dir_all(dir).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_moved_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for n in 0..7 {
            std::fs::write(&log, format!("{n}")).unwrap();
            rotate(&log, 5).unwrap();
        }
        let read = |n: u32| std::fs::read_to_string(dir.path().join(format!("0.log.{n}"))).ok();
        let all: Vec<_> = (1..6).map(read).collect();
        let wanted = ["6", "5", "4", "3"].map(|t| Some(t.to_owned()));
        assert_eq!(all[..4], wanted);
        assert_eq!((all[4].as_ref(), log.exists()), (None, false));
    }
}
