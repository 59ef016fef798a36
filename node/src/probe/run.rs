//! Running one probe once.

use super::{grpc, http};
use k8s_openapi::api::core::v1::{Container, Probe};
use kubewright_runtime::{ContainerRuntime, Reason};
use std::time::Duration;

/// How much of an output is shown in an event.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// What one run of a probe said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Healthy.
    Good,
    /// Unhealthy, with what it said.
    Bad(String),
    /// The probe itself could not run; it counts neither way.
    Error(String),
}

/// Runs a probe of a container once. `pod_ip` may be empty when the pod has none yet.
pub(crate) async fn run_probe(
    runtime: &dyn ContainerRuntime,
    probe: &Probe,
    container: &Container,
    id: &str,
    pod_ip: &str,
) -> Outcome {
    let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1));
    if let Some(exec) = &probe.exec {
        return run_exec(runtime, id, exec.command.clone().unwrap_or_default(), timeout).await;
    }
    let late = |what: String| Outcome::Bad(what);
    if let Some(action) = &probe.http_get {
        return match tokio::time::timeout(timeout, http::get(action, container, pod_ip)).await {
            Ok(Ok(code)) if (200..400).contains(&code) => Outcome::Good,
            Ok(Ok(code)) => Outcome::Bad(format!("HTTP probe failed with statuscode: {code}")),
            Ok(Err(why)) => Outcome::Bad(why),
            Err(_) => {
                let path = action.path.as_deref().unwrap_or("/");
                late(format!(
                    "Get \"{path}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                ))
            }
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
        let port = match http::port_of(&action.port, container) {
            Ok(port) => port,
            Err(why) => return Outcome::Error(why),
        };
        return match tokio::time::timeout(timeout, http::dial(host, port)).await {
            Ok(Ok(_)) => Outcome::Good,
            Ok(Err(why)) => Outcome::Bad(why),
            Err(_) => late(format!("dial tcp {}: i/o timeout", http::address(host, port))),
        };
    }
    if let Some(action) = &probe.grpc {
        let Some(port) = u16::try_from(action.port).ok().filter(|p| *p > 0) else {
            return Outcome::Error(format!("invalid port number: {}", action.port));
        };
        let service = action.service.as_deref().unwrap_or("");
        return match tokio::time::timeout(timeout, grpc::check(pod_ip, port, service)).await {
            Ok(Ok(Ok(()))) => Outcome::Good,
            Ok(Ok(Err(why))) => Outcome::Bad(why),
            Ok(Err(why)) => Outcome::Bad(format!("error: {why}")),
            Err(_) => late(format!(
                "timeout: failed to connect service \"{}\" within {}s: context deadline exceeded",
                http::address(pod_ip, port),
                timeout.as_secs()
            )),
        };
    }
    Outcome::Error(format!("missing probe handler for {}", container.name))
}

async fn run_exec(
    runtime: &dyn ContainerRuntime,
    id: &str,
    command: Vec<String>,
    timeout: Duration,
) -> Outcome {
    let shown = command.join(" ");
    match runtime.exec_sync(id, command, timeout).await {
        Ok(result) if result.exit_code == 0 => Outcome::Good,
        Ok(result) => {
            let mut output = result.stdout;
            output.extend_from_slice(&result.stderr);
            output.truncate(OUTPUT_BYTES_MAX);
            Outcome::Bad(String::from_utf8_lossy(&output).into_owned())
        }
        Err(e) if e.reason() == Reason::Timeout => {
            Outcome::Bad(format!("command timed out: \"{shown}\" timed out after {}s", timeout.as_secs()))
        }
        Err(e) => Outcome::Error(e.to_string()),
    }
}
