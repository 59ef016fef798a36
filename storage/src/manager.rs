//! Runs the plugins over the volumes of a pod, below one root directory.

use crate::{
    AtomicWriter, Error, MountRequest, Mounted, NodeFacts, Payload, PodVolumes, Reason, VolumePlugin,
    VolumeSource, Volumes, files, plugins,
};
use futures::future::{BoxFuture, join_all, ready};
use k8s_openapi::api::core::v1::{Pod, Volume};
use kubewright_core::{Entropy, SharedClock, SystemClock};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The volumes of the pods of one node.
pub struct VolumeManager {
    root: PathBuf,
    plugins: Vec<Arc<dyn VolumePlugin>>,
    writer: AtomicWriter,
}

/// Makes a [`VolumeManager`].
pub struct VolumeManagerBuilder {
    root: PathBuf,
    plugins: Vec<Arc<dyn VolumePlugin>>,
    clock: SharedClock,
    entropy: Arc<Entropy>,
}

impl VolumeManager {
    /// A manager whose files live below `root`, with all plugins of this crate.
    pub fn builder(root: impl Into<PathBuf>) -> VolumeManagerBuilder {
        VolumeManagerBuilder {
            root: root.into(),
            plugins: plugins::all(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(Entropy::from_system()),
        }
    }

    fn plugin(&self, volume: &Volume) -> Option<&Arc<dyn VolumePlugin>> {
        self.plugins.iter().find(|p| p.supports(volume))
    }

    async fn mount_one(
        &self,
        pod: &Pod,
        volume: &Volume,
        source: &dyn VolumeSource,
        facts: &NodeFacts,
    ) -> Result<Mounted, Error> {
        let fails = |e: &Error| {
            Error::new(e.reason(), format!("MountVolume.SetUp failed for volume \"{}\" : {e}", volume.name))
        };
        let Some(plugin) = self.plugin(volume) else {
            return Err(fails(&Error::new(Reason::Unsupported, "no volume plugin matched")));
        };
        let uid = pod.metadata.uid.as_deref().unwrap_or("");
        check_name(uid)?;
        check_name(&volume.name)?;
        let group = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|c| c.fs_group);
        let dir = self.dir(uid).join("volumes").join(plugin.name().replace('/', "~")).join(&volume.name);
        let request = MountRequest {
            pod,
            volume,
            dir,
            source,
            facts,
            writer: &self.writer,
            fs_group: group.and_then(|g| u32::try_from(g).ok()),
        };
        plugin.mount(request).await.map_err(|e| fails(&e))
    }

    fn dir(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// Calls every plugin's `unmount` for what a pod has on disk.
    async fn unmount_volumes(&self, pod_dir: &Path) -> Result<(), Error> {
        for plugin in &self.plugins {
            let dir = pod_dir.join("volumes").join(plugin.name().replace('/', "~"));
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                plugin.unmount(&entry.path()).await?;
            }
        }
        Ok(())
    }
}

/// Names come from the API, where they are checked; this keeps a wrong one from becoming a path all the same.
fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(Error::invalid(format!("{name:?} can't be a directory's name")));
    }
    Ok(())
}

impl VolumeManagerBuilder {
    /// Adds a plugin, in front of those there are.
    #[must_use]
    pub fn with(mut self, plugin: impl VolumePlugin) -> Self {
        self.plugins.insert(0, Arc::new(plugin));
        self
    }

    /// Sends volumes of CSI drivers to this client.
    #[must_use]
    pub fn csi(mut self, mounter: Arc<dyn crate::CsiMounter>) -> Self {
        self.plugins.retain(|p| !matches!(p.name(), "kubernetes.io/csi" | "kubernetes.io/persistent-claim"));
        self.plugins.push(Arc::new(plugins::CsiPlugin::new(Some(mounter.clone()))));
        self.plugins.push(Arc::new(plugins::PersistentClaimPlugin::new(Some(mounter))));
        self
    }

    /// Takes the time from here.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes random names from here.
    #[must_use]
    pub fn entropy(mut self, entropy: Arc<Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// The manager.
    pub fn build(self) -> VolumeManager {
        let writer = AtomicWriter::new(self.clock, self.entropy);
        VolumeManager { root: self.root, plugins: self.plugins, writer }
    }
}

impl MountRequest<'_> {
    /// Makes the volume hold exactly these files, in one step.
    ///
    /// # Errors
    /// As [`AtomicWriter::write`].
    pub async fn write(&self, files: Payload) -> Result<Mounted, Error> {
        let (dir, writer, group) = (self.dir.clone(), self.writer.clone(), self.fs_group);
        files::blocking(move || {
            writer.write(&dir, &files, group)?;
            // Upstream mounts these volumes read-only unless a container asks to write to its own copy.
            Ok(Mounted { read_only: true, ..Mounted::at(dir) })
        })
        .await
    }
}

impl Volumes for VolumeManager {
    fn mount_pod<'a>(
        &'a self,
        pod: &'a Pod,
        source: &'a dyn VolumeSource,
        facts: &'a NodeFacts,
    ) -> BoxFuture<'a, Result<PodVolumes, Error>> {
        Box::pin(async move {
            let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or(&[]);
            let mounting = volumes
                .iter()
                .map(|v| async move { (v.name.clone(), self.mount_one(pod, v, source, facts).await) });
            let mut mounted = PodVolumes::default();
            let mut first = None;
            for (name, result) in join_all(mounting).await {
                match result {
                    Ok(m) => {
                        mounted.0.insert(name, m);
                    }
                    Err(e) => {
                        first.get_or_insert(e);
                    }
                }
            }
            first.map_or(Ok(mounted), Err)
        })
    }

    fn unmount_pod<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            check_name(uid)?;
            let dir = self.dir(uid);
            if !dir.exists() {
                return Ok(());
            }
            self.unmount_volumes(&dir).await?;
            files::blocking(move || files::remove_tree(&dir)).await
        })
    }

    fn pods_on_disk(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join("pods"));
        entries.into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
    }

    fn follows_source(&self, pod: &Pod) -> bool {
        let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or(&[]);
        volumes.iter().any(|v| self.plugin(v).is_some_and(|p| p.follows_source()))
    }

    fn pod_dir(&self, uid: &str) -> Option<PathBuf> {
        Some(self.dir(uid))
    }
}

/// Volumes of a simulation: every volume mounts at once and nothing touches the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimulatedVolumes;

impl Volumes for SimulatedVolumes {
    fn mount_pod<'a>(
        &'a self,
        pod: &'a Pod,
        _source: &'a dyn VolumeSource,
        _facts: &'a NodeFacts,
    ) -> BoxFuture<'a, Result<PodVolumes, Error>> {
        let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or(&[]);
        let at = |v: &Volume| (v.name.clone(), Mounted::at(Path::new("/simulated").join(&v.name)));
        Box::pin(ready(Ok(PodVolumes(volumes.iter().map(at).collect()))))
    }

    fn unmount_pod<'a>(&'a self, _uid: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(ready(Ok(())))
    }

    fn pods_on_disk(&self) -> Vec<String> {
        Vec::new()
    }

    fn follows_source(&self, _pod: &Pod) -> bool {
        false
    }

    fn pod_dir(&self, _uid: &str) -> Option<PathBuf> {
        None
    }
}
