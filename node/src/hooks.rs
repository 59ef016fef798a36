//! `postStart` and `preStop`.

use crate::probe::http_get;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use kubewright_runtime::ContainerRuntime;
use std::time::Duration;

/// How long a hook may take when nothing else bounds it.
const HOOK_SECONDS_MAX: u64 = 3600;

/// Runs a hook to its end.
///
/// # Errors
/// Why it failed, in upstream's words.
///
/// # Cancel safety
/// Dropping the future leaves an exec's program to the runtime, which ends it at its timeout.
pub(crate) async fn run_hook(
    runtime: &dyn ContainerRuntime,
    handler: &LifecycleHandler,
    container: &Container,
    id: &str,
    pod_ip: &str,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = format!("[{}]", command.join(" "));
        let timeout = Duration::from_secs(HOOK_SECONDS_MAX);
        return match runtime.exec_sync(id, command, timeout).await {
            Ok(r) if r.exit_code == 0 => Ok(()),
            Ok(r) => {
                let said = String::from_utf8_lossy(&r.stderr).into_owned();
                Err(format!("command '{shown}' exited with {}: {said}", r.exit_code))
            }
            Err(e) => Err(format!("command '{shown}' failed: {e}")),
        };
    }
    if let Some(action) = &handler.http_get {
        return match http_get(action, container, pod_ip).await {
            Ok(code) if code < 400 => Ok(()),
            Ok(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
            Err(why) => Err(why),
        };
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    if handler.tcp_socket.is_some() {
        // Never supported by upstream either; it is accepted and does nothing.
        return Err("tcpSocket hooks are not supported".to_owned());
    }
    Err("invalid handler: no action is given".to_owned())
}
