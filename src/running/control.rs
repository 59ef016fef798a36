//! What acts on a plane's objects: controllers, and the nodes of this process.

use super::MASTERS;
use crate::error::StartError;
use crate::plane::{Builder, PlaneContext};
use crate::stage::Stage;
use kubewright_client::{Client, system_user};
use kubewright_reconcile::{Context, Informers, Manager};
use kubewright_server::NodeConnections;
use kubewright_server::tls::CertificateAuthority;
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
    ) -> Result<Self, StartError> {
        let manager = client
            .as_user(system_user("kube-controller-manager", &[MASTERS]))
            .with_user_agent("kube-controller-manager");
        let informers = Informers::with_entropy(manager.clone(), parts.entropy.clone());
        let controllers = controllers(parts, manager, &informers, authority);
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
    for late in parts.controllers.drain(..) {
        manager = manager.with_all((late.make)(&cx));
    }
    let cancel = stage.cancel.clone();
    stage.spawn(async move {
        if let Err(e) = manager.run(cancel).await {
            tracing::error!(error = %e, "the controllers ended");
        }
    });
    stage
}
