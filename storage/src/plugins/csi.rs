//! `csi`: inline volumes of a CSI driver, and the publishing that claims share.

use crate::{CsiMounter, CsiVolume, Error, MountRequest, Mounted, Reason, VolumePlugin};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{CSIPersistentVolumeSource, PersistentVolume, Volume};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Implements inline `csi` volumes over a [`CsiMounter`].
#[derive(Default)]
pub struct CsiPlugin {
    mounter: Option<Arc<dyn CsiMounter>>,
}

impl CsiPlugin {
    /// A plugin over this client; without one every volume is refused.
    pub fn new(mounter: Option<Arc<dyn CsiMounter>>) -> Self {
        CsiPlugin { mounter }
    }
}

/// The client, or the error that says that there is none.
pub(super) fn client<'a>(
    mounter: Option<&'a Arc<dyn CsiMounter>>,
    driver: &str,
) -> Result<&'a Arc<dyn CsiMounter>, Error> {
    mounter.ok_or_else(|| {
        let message = format!("driver name {driver} not found in the list of registered CSI drivers");
        Error::new(Reason::Unsupported, message)
    })
}

/// Where below a volume's directory the driver mounts.
pub(super) const TARGET: &str = "mount";

async fn secret(
    r: &MountRequest<'_>,
    namespace: &str,
    name: Option<&str>,
) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let Some(name) = name else { return Ok(BTreeMap::new()) };
    let found = r.source.secret(namespace, name).await?;
    let object = found.ok_or_else(|| Error::new(Reason::NotFound, format!("secret \"{name}\" not found")))?;
    Ok(super::keys::of_secret(&object))
}

/// Publishes the CSI volume of a PersistentVolume.
pub(super) async fn publish_persistent(
    mounter: Option<&Arc<dyn CsiMounter>>,
    r: &MountRequest<'_>,
    volume: &PersistentVolume,
    csi: &CSIPersistentVolumeSource,
    read_only: bool,
) -> Result<Mounted, Error> {
    let client = client(mounter, &csi.driver)?;
    let reference = csi.node_publish_secret_ref.as_ref();
    let namespace = reference.and_then(|s| s.namespace.as_deref()).unwrap_or("");
    let spec = volume.spec.clone().unwrap_or_default();
    let read_only = read_only || csi.read_only.unwrap_or(false);
    let target_dir = r.dir.join(TARGET);
    client
        .publish(CsiVolume {
            driver: csi.driver.clone(),
            volume_handle: csi.volume_handle.clone(),
            fs_type: csi.fs_type.clone().unwrap_or_default(),
            read_only,
            attributes: csi.volume_attributes.clone().unwrap_or_default(),
            access_modes: spec.access_modes.unwrap_or_default(),
            mount_options: spec.mount_options.unwrap_or_default(),
            secrets: secret(r, namespace, reference.and_then(|s| s.name.as_deref())).await?,
            staging_dir: staging(r, &csi.driver, &csi.volume_handle),
            target_dir: target_dir.clone(),
            ephemeral: false,
        })
        .await?;
    Ok(Mounted { read_only, ..Mounted::at(target_dir) })
}

/// `<root>/plugins/kubernetes.io/csi/<driver>/<volume>/globalmount`, shared by the pods of the node.
fn staging(r: &MountRequest<'_>, driver: &str, handle: &str) -> std::path::PathBuf {
    // <root>/pods/<uid>/volumes/<plugin>/<name>
    let root = r.dir.ancestors().nth(5).unwrap_or(&r.dir);
    let safe: String = handle.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    root.join("plugins/kubernetes.io/csi").join(driver).join(safe).join("globalmount")
}

impl VolumePlugin for CsiPlugin {
    fn name(&self) -> &'static str {
        "kubernetes.io/csi"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.csi.is_some()
    }

    fn mount<'a>(&'a self, r: MountRequest<'a>) -> BoxFuture<'a, Result<Mounted, Error>> {
        Box::pin(async move {
            let Some(csi) = &r.volume.csi else {
                return Err(Error::invalid("the volume is no csi"));
            };
            let client = client(self.mounter.as_ref(), &csi.driver)?;
            let meta = &r.pod.metadata;
            let text = |t: &Option<String>| t.clone().unwrap_or_default();
            let mut attributes = csi.volume_attributes.clone().unwrap_or_default();
            attributes.insert("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned());
            attributes.insert("csi.storage.k8s.io/pod.name".to_owned(), text(&meta.name));
            attributes.insert("csi.storage.k8s.io/pod.namespace".to_owned(), text(&meta.namespace));
            attributes.insert("csi.storage.k8s.io/pod.uid".to_owned(), text(&meta.uid));
            let handle = format!("csi-{}-{}", text(&meta.uid), r.volume.name);
            let reference = csi.node_publish_secret_ref.as_ref();
            let namespace = text(&meta.namespace);
            let target_dir = r.dir.join(TARGET);
            let read_only = csi.read_only.unwrap_or(false);
            client
                .publish(CsiVolume {
                    driver: csi.driver.clone(),
                    staging_dir: staging(&r, &csi.driver, &handle),
                    volume_handle: handle,
                    fs_type: csi.fs_type.clone().unwrap_or_default(),
                    read_only,
                    attributes,
                    access_modes: vec!["ReadWriteOnce".to_owned()],
                    mount_options: Vec::new(),
                    secrets: secret(&r, &namespace, reference.map(|s| s.name.as_ref())).await?,
                    target_dir: target_dir.clone(),
                    ephemeral: true,
                })
                .await?;
            Ok(Mounted { read_only, ..Mounted::at(target_dir) })
        })
    }

    fn unmount<'a>(&'a self, dir: &'a Path) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(unpublish(self.mounter.as_ref(), dir))
    }

    fn follows_source(&self) -> bool {
        false
    }
}

/// Unpublishes what a driver published below `dir`.
pub(super) async fn unpublish(mounter: Option<&Arc<dyn CsiMounter>>, dir: &Path) -> Result<(), Error> {
    match mounter {
        Some(client) => client.unpublish(&dir.join(TARGET)).await,
        None => Ok(()),
    }
}
