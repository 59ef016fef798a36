//! What acts on a plane's objects: controllers, and the nodes of this process.

use super::MASTERS;
use crate::error::StartError;
use crate::plane::{Builder, PlaneContext};
use crate::stage::Stage;
use kubewright_client::{Client, system_user};
use kubewright_reconcile::{Context, Controller, ControllerMeter, ControllerMetrics, Informers, Manager};
use kubewright_server::tls::CertificateAuthority;
use kubewright_server::{ApiServer, MetricSource, NodeConnections};
use std::fmt::Write;
use std::sync::Arc;

/// The running controllers and nodes, with the informers that they share.
pub(super) struct Control {
    informers: Informers,
    controllers: Stage,
    #[cfg(feature = "node")]
    nodes: Stage,
}

impl Control {
    /// Starts the controllers, then the nodes.
    pub(super) fn start(
        parts: &mut Builder,
        client: &Client,
        connections: &NodeConnections,
        authority: Option<&Arc<CertificateAuthority>>,
        server: &ApiServer,
    ) -> Result<Self, StartError> {
        let manager = client
            .as_user(system_user("kube-controller-manager", &[MASTERS]))
            .with_user_agent("kube-controller-manager");
        let informers = Informers::with_entropy(manager.clone(), parts.entropy.clone());
        let controllers = controllers(parts, manager, &informers, authority, server);
        #[cfg(feature = "node")]
        let nodes = crate::nodes::start(parts, client, &informers, connections)?;
        #[cfg(not(feature = "node"))]
        let _ = connections;
        Ok(Control {
            informers,
            controllers,
            #[cfg(feature = "node")]
            nodes,
        })
    }

    pub(super) fn informers(&self) -> &Informers {
        &self.informers
    }

    /// Ends the nodes, then the controllers, then the informers.
    pub(super) async fn end(&self) {
        #[cfg(feature = "node")]
        self.nodes.end("the nodes").await;
        self.controllers.end("the controllers").await;
        self.informers.shutdown().await;
    }
}

fn controllers(
    parts: &mut Builder,
    client: Client,
    informers: &Informers,
    authority: Option<&Arc<CertificateAuthority>>,
    server: &ApiServer,
) -> Stage {
    let stage = Stage::default();
    let cx = PlaneContext {
        ca_pem: authority.map(|a| a.certificate_pem().to_owned()),
        authority: authority.cloned(),
        entropy: parts.entropy.clone(),
        clock: parts.clock.clone(),
    };
    let (clock, entropy) = (parts.clock.clone(), parts.entropy.clone());
    let mut manager = Manager::new(Context::with(client, informers.clone(), clock, entropy));
    let mut counted = Vec::new();
    for late in parts.controllers.drain(..) {
        let made: Vec<Controller> = (late.make)(&cx).into_iter().collect();
        counted.extend(made.iter().map(Controller::meter));
        manager = manager.with_all(made);
    }
    server.add_metrics(Arc::new(ControllerCounts(counted)));
    let cancel = stage.cancel.clone();
    stage.spawn(async move {
        if let Err(e) = manager.run(cancel).await {
            tracing::error!(error = %e, "the controllers ended");
        }
    });
    stage
}

/// What the controllers and their queues count, under the names of upstream's and of controller-runtime.
struct ControllerCounts(Vec<ControllerMeter>);

impl MetricSource for ControllerCounts {
    fn write(&self, out: &mut String) {
        let all: Vec<_> = self.0.iter().map(|c| (c.name(), c.metrics())).collect();
        let mut family = |kind: &str, name: &str, help: &str, value: &dyn Fn(&ControllerMetrics) -> u64| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            let label = if name.starts_with("workqueue") { "name" } else { "controller" };
            for (controller, metrics) in &all {
                let _ = writeln!(out, "{name}{{{label}=\"{controller}\"}} {}", value(metrics));
            }
        };
        family("gauge", "workqueue_depth", "Keys that wait.", &|m| m.queue.depth as u64);
        family("counter", "workqueue_adds_total", "Keys taken in.", &|m| m.queue.adds);
        family("counter", "workqueue_retries_total", "Keys that came back after a failure.", &|m| {
            m.queue.retries
        });
        let name = "controller_runtime_active_workers";
        family("gauge", name, "Passes that run.", &|m| m.queue.processing as u64);
        family("counter", "controller_runtime_reconcile_total", "Passes run.", &|m| m.passes);
        let name = "controller_runtime_reconcile_errors_total";
        family("counter", name, "Passes that gave an error.", &|m| m.errors);
        let name = "controller_runtime_reconcile_panics_total";
        family("counter", name, "Passes that panicked.", &|m| m.panics);
    }
}
