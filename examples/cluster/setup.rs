//! The composition of the cluster out of the options.

use crate::addresses::Addresses;
use crate::demo;
use crate::options::{LocalImage, Options, RuntimeChoice, StoreChoice};
use crate::report::Steps;
use kubewright::core::SystemClock;
use kubewright::node::NodeAgentBuilder;
use kubewright::nodes::{self, NodeSetup};
use kubewright::runtime::embedded::{EmbeddedConfig, EmbeddedRuntime};
use kubewright::runtime::fake::{FakeConfig, FakeRuntime};
use kubewright::runtime::images::ImageBuilder;
use kubewright::server::tls::TlsError;
use kubewright::storage::{SimulatedVolumes, VolumeManager};
use kubewright::store::{self, MemoryStore, RedbStore, Store};
use kubewright::{Builder, ControlPlane, Https, RunningPlane, bundles, parts};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The running cluster.
pub(crate) struct Cluster {
    pub(crate) plane: RunningPlane,
    pub(crate) kubeconfig: PathBuf,
    runtimes: Vec<EmbeddedRuntime>,
    /// Held as long as something answers on them.
    _addresses: Addresses,
}

impl Cluster {
    fn write_kubeconfig(&self) -> Result<(), String> {
        let told = |e: TlsError| format!("kubeconfig: {e}");
        match self.plane.admin_kubeconfig().map_err(told)? {
            Some(config) => config.write(&self.kubeconfig).map_err(told),
            None => Ok(()),
        }
    }

    /// Stops the plane; containers go on and are taken over at the next start.
    pub(crate) async fn stop(self) -> Result<(), String> {
        let stopped = self.plane.shutdown().await.map_err(|e| e.to_string());
        for runtime in &self.runtimes {
            runtime.shutdown().await;
        }
        stopped
    }
}

/// Starts everything.
pub(crate) async fn start(options: &Options, steps: &Steps) -> Result<Cluster, String> {
    if !options.image.is_empty() && options.runtime != RuntimeChoice::Embedded {
        return Err("--image is for --runtime embedded: other runtimes have stores of their own".to_owned());
    }
    folder(&options.data)?;
    steps.say("opening the store");
    let store = open_store(options).await?;
    let addresses = match options.runtime {
        RuntimeChoice::Fake => Addresses::simulated(),
        RuntimeChoice::Embedded | RuntimeChoice::Cri(_) => Addresses::claim(&options.data)?,
    };
    let mut builder = ControlPlane::builder()
        .with(parts::shared_store(store))
        .with(parts::service_cidr(&addresses.services()))
        .with(bundles::kubernetes())
        .with(parts::priority_and_fairness())
        .with(parts::keys(options.data.join("keys")))
        .with(Https::on(options.listen));
    if options.heartbeats_in_memory {
        builder = builder.with(parts::heartbeats_in_memory());
    }
    if let Some(seconds) = options.event_ttl {
        builder = builder.with(parts::event_ttl(std::time::Duration::from_secs(seconds)));
    }
    let mut runtimes = Vec::new();
    for number in 0..options.nodes() {
        steps.say(&format!("preparing node {} of {}", number + 1, options.nodes()));
        builder = add_node(builder, options, &addresses, number, &mut runtimes).await?;
    }
    if options.runtime != RuntimeChoice::Fake {
        builder = builder.with(nodes::service_proxy());
    }
    steps.say("starting the control plane");
    let plane = builder.build().map_err(|e| e.to_string())?.start().await.map_err(|e| e.to_string())?;
    let kubeconfig = options.kubeconfig.clone().unwrap_or_else(|| options.data.join("kubeconfig"));
    let cluster = Cluster { plane, kubeconfig, runtimes, _addresses: addresses };
    match cluster.write_kubeconfig() {
        Ok(()) => Ok(cluster),
        Err(why) => {
            cluster.stop().await?;
            Err(why)
        }
    }
}

fn folder(path: &Path) -> Result<(), String> {
    let told = |e: std::io::Error| format!("data folder {}: {e}", path.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(told)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(told)
}

async fn open_store(options: &Options) -> Result<Arc<dyn Store>, String> {
    let told = |e: store::Error| format!("store: {e}");
    Ok(match &options.store {
        StoreChoice::Memory => Arc::new(MemoryStore::new()),
        StoreChoice::Redb => {
            let path = options.data.join("store.redb");
            // Opening reads every object once; it must not hold up the runtime's threads.
            let open = tokio::task::spawn_blocking(move || RedbStore::open(path));
            Arc::new(open.await.map_err(|e| e.to_string())?.map_err(told)?)
        }
        StoreChoice::Sled => return sled(options).await,
        StoreChoice::Etcd(urls) => return etcd(urls).await,
    })
}

#[cfg(feature = "sled")]
async fn sled(options: &Options) -> Result<Arc<dyn Store>, String> {
    let path = options.data.join("store.sled");
    let open = tokio::task::spawn_blocking(move || store::SledStore::open(path));
    let store = open.await.map_err(|e| e.to_string())?.map_err(|e| format!("store: {e}"))?;
    Ok(Arc::new(store))
}

#[cfg(not(feature = "sled"))]
async fn sled(_: &Options) -> Result<Arc<dyn Store>, String> {
    Err("sled is not built in: build with --features sled".to_owned())
}

#[cfg(feature = "etcd")]
async fn etcd(urls: &[String]) -> Result<Arc<dyn Store>, String> {
    let mut options = store::EtcdOptions::new(urls.iter().cloned());
    // Someone waits in front of a terminal, or behind kubectl.
    options.give_up_after = std::time::Duration::from_secs(10);
    let store = store::EtcdStore::connect(options).await.map_err(|e| format!("store: {e}"))?;
    Ok(Arc::new(store))
}

#[cfg(not(feature = "etcd"))]
async fn etcd(_: &[String]) -> Result<Arc<dyn Store>, String> {
    Err("etcd is not built in: build with --features etcd".to_owned())
}

async fn add_node(
    builder: Builder,
    options: &Options,
    addresses: &Addresses,
    number: u16,
    runtimes: &mut Vec<EmbeddedRuntime>,
) -> Result<Builder, String> {
    let name = format!("node-{number}");
    let root = options.data.join("nodes").join(&name);
    let network = addresses.node(number);
    match &options.runtime {
        RuntimeChoice::Embedded => {
            folder(&root)?;
            let config = EmbeddedConfig { pod_network: network, ..EmbeddedConfig::new(root.join("runtime")) };
            let runtime = EmbeddedRuntime::open(config, Arc::new(SystemClock)).await;
            let runtime = runtime.map_err(|e| format!("runtime of {name}: {e}"))?;
            build_demo_image(&runtime).await.map_err(|e| format!("image of the demo: {e}"))?;
            for LocalImage { name, path } in &options.image {
                let image = runtime.images().import(path, name.as_deref()).await;
                image.map_err(|e| format!("--image {}: {e}", path.display()))?;
            }
            runtimes.push(runtime.clone());
            Ok(builder.with(nodes::node(&name, move |setup: NodeSetup| {
                let shared = Arc::new(runtime);
                Ok(real(setup.agent(), &root).runtime(shared.clone()).images(shared).build()?)
            })))
        }
        RuntimeChoice::Fake => {
            let config = FakeConfig { pod_network: network, pod_addresses: 254, ..FakeConfig::default() };
            let runtime = Arc::new(FakeRuntime::new(config, Arc::new(SystemClock), u64::from(number)));
            Ok(builder.with(nodes::node(&name, move |setup: NodeSetup| {
                let agent = setup.agent().root_dir(&root).simulated().volumes(Arc::new(SimulatedVolumes));
                Ok(agent.runtime(runtime.clone()).images(runtime).build()?)
            })))
        }
        RuntimeChoice::Cri(socket) => {
            if options.nodes() != 1 {
                return Err("--runtime cri=SOCKET is one runtime, so it takes --nodes 1".to_owned());
            }
            folder(&root)?;
            cri_node(builder, options, &name, root, socket).await
        }
    }
}

#[cfg(feature = "cri")]
async fn cri_node(
    builder: Builder,
    options: &Options,
    name: &str,
    root: PathBuf,
    socket: &str,
) -> Result<Builder, String> {
    let runtime = crate::cri::connect(socket).await?;
    if options.manifest.is_empty() {
        let image = demo_image().map_err(|e| format!("image of the demo: {e}"))?;
        let brought = crate::cri::bring(&runtime, image, socket, &root).await;
        brought.map_err(|e| format!("image of the demo: {e}"))?;
    }
    Ok(builder.with(nodes::node(name, move |setup: NodeSetup| {
        let shared = Arc::new(runtime);
        Ok(real(setup.agent(), &root).runtime(shared.clone()).images(shared).build()?)
    })))
}

#[cfg(not(feature = "cri"))]
async fn cri_node(_: Builder, _: &Options, _: &str, _: PathBuf, _: &str) -> Result<Builder, String> {
    Err("the CRI client is not built in: build with --features cri".to_owned())
}

fn real(agent: NodeAgentBuilder, root: &Path) -> NodeAgentBuilder {
    agent.root_dir(root).volumes(Arc::new(VolumeManager::builder(root).build()))
}

/// This program as an image, so that the demo needs no registry.
fn demo_image() -> Result<ImageBuilder, kubewright::runtime::Error> {
    let own = std::env::current_exe()
        .map_err(|e| kubewright::runtime::Error::new(kubewright::runtime::Reason::Failed, e.to_string()))?;
    Ok(ImageBuilder::new().program("/cluster", own)?.entrypoint(["/cluster"]))
}

async fn build_demo_image(runtime: &EmbeddedRuntime) -> Result<(), kubewright::runtime::Error> {
    runtime.images().build(demo_image()?, demo::IMAGE).await.map(drop)
}
