//! Keeps the Service proxy's table true to the Services and their EndpointSlices.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kubewright_net::proxy::{ProxyOptions, ServicePort, ServiceProxy, service_ports};
use kubewright_reconcile::Informers;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Changes that come close together are carried out together.
const COALESCE: Duration = Duration::from_millis(20);
/// Ports that could not be opened are tried again after this long.
const RETRY: Duration = Duration::from_secs(5);
/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Runs the proxy until cancelled; all its listeners are closed then.
pub(crate) async fn run(informers: Informers, cancel: CancellationToken) {
    let (services, slices) = (informers.of::<Service>(), informers.of::<EndpointSlice>());
    slices.add_index("service", |slice: &EndpointSlice| {
        let name = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME));
        let namespace = slice.metadata.namespace.as_deref().unwrap_or("");
        name.map(|name| format!("{namespace}/{name}").into()).into_iter().collect()
    });
    let (mut service_changes, mut slice_changes) = (services.subscribe(), slices.subscribe());
    let proxy = ServiceProxy::new(ProxyOptions::default());
    let mut told = BTreeSet::new();
    let work = async {
        tokio::join!(services.synced(), slices.synced());
        loop {
            while service_changes.try_next().is_some() || slice_changes.try_next().is_some() {}
            let mut table: Vec<ServicePort> = Vec::new();
            for service in services.list() {
                let meta = &service.metadata;
                let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
                let key = format!("{}/{}", namespace.unwrap_or(""), name.unwrap_or(""));
                let own = slices.by_index("service", &key);
                table.extend(service_ports(&service, own.iter().map(|s| &**s)));
            }
            let failures = proxy.apply(&table).await;
            for failure in &failures {
                // Once for each port, not at each try.
                if told.insert(failure.address) {
                    tracing::warn!("{failure}");
                }
            }
            let retry = if failures.is_empty() { Duration::MAX } else { RETRY };
            tokio::select! {
                Some(_) = service_changes.next() => {}
                Some(_) = slice_changes.next() => {}
                () = tokio::time::sleep(retry) => {}
            }
            tokio::time::sleep(COALESCE).await;
        }
    };
    cancel.run_until_cancelled(work).await;
    proxy.shutdown().await;
}
