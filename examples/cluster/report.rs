//! What the example shows: progress, a table of pods, and how to go on.

use comfy_table::{Table, presets::NOTHING};
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::core::v1::Pod;
use kubewright::client::{Api, Client};
use std::path::Path;
use std::time::Duration;

/// A spinner with the present step; plain silence where nobody looks on.
pub(crate) struct Steps(ProgressBar);

impl Steps {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Steps(bar)
    }

    pub(crate) fn say(&self, step: &str) {
        self.0.set_message(step.to_owned());
    }

    pub(crate) fn finish(&self, step: &str) {
        self.0.suspend(|| println!("{step}"));
        self.0.set_message(String::new());
    }
}

/// A table of what runs where.
pub(crate) async fn pods(client: &Client) -> Result<(), String> {
    let pods = Api::<Pod>::all(client.clone()).list(Default::default()).await.map_err(|e| e.to_string())?;
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["NAMESPACE", "POD", "READY", "STATUS", "NODE", "IP"]);
    for pod in &pods.items {
        let status = pod.status.clone().unwrap_or_default();
        let containers = status.container_statuses.unwrap_or_default();
        let ready = containers.iter().filter(|c| c.ready).count();
        table.add_row([
            pod.metadata.namespace.clone().unwrap_or_default(),
            pod.metadata.name.clone().unwrap_or_default(),
            format!("{ready}/{}", containers.len()),
            status.phase.unwrap_or_default(),
            pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default(),
            status.pod_ip.unwrap_or_default(),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// How to go on with kubectl.
pub(crate) fn usage(kubeconfig: &Path) {
    println!("\nThe cluster stays up until Ctrl-C. In another terminal:");
    println!("  export KUBECONFIG={}", kubeconfig.display());
    println!(
        "  kubectl get pods -A -o wide\n  kubectl logs deployment/web\n  kubectl scale deployment/web --replicas=5"
    );
}
