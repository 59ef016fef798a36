//! `persistentVolumeClaim` and `ephemeral`: the volume that a claim is bound to.

use super::{csi, host_path};
use crate::{CsiMounter, Error, MountRequest, Mounted, Reason, VolumePlugin, files};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, Volume};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Resolves claims to PersistentVolumes of hostPath, local and CSI.
#[derive(Default)]
pub struct PersistentClaimPlugin {
    mounter: Option<Arc<dyn CsiMounter>>,
}

impl PersistentClaimPlugin {
    /// A plugin whose CSI volumes go through this client.
    pub fn new(mounter: Option<Arc<dyn CsiMounter>>) -> Self {
        PersistentClaimPlugin { mounter }
    }
}

async fn bound_volume(r: &MountRequest<'_>) -> Result<(Arc<PersistentVolume>, bool), Error> {
    let meta = &r.pod.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or("");
    let (name, read_only) = match &r.volume.persistent_volume_claim {
        Some(claim) => (claim.claim_name.clone(), claim.read_only.unwrap_or(false)),
        // A generic ephemeral volume's claim carries the pod's and the volume's name.
        None => (format!("{}-{}", meta.name.as_deref().unwrap_or(""), r.volume.name), false),
    };
    let claim =
        r.source.claim(namespace, &name).await?.ok_or_else(|| {
            Error::new(Reason::NotFound, format!("persistentvolumeclaim \"{name}\" not found"))
        })?;
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    let volume_name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or("");
    if phase != "Bound" || volume_name.is_empty() {
        let message = format!("PVC {namespace}/{name} is not bound (phase {phase})");
        return Err(Error::new(Reason::NotReady, message));
    }
    let volume = r.source.persistent_volume(volume_name).await?.ok_or_else(|| {
        Error::new(Reason::NotFound, format!("persistentvolume \"{volume_name}\" not found"))
    })?;
    let uid = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).and_then(|c| c.uid.as_deref());
    if uid != claim.metadata.uid.as_deref() {
        let message = format!("PV {volume_name} is not bound to PVC {namespace}/{name}");
        return Err(Error::new(Reason::NotReady, message));
    }
    Ok((volume, read_only))
}

/// A path of this node that the volume names, with its `type` check.
fn node_path(spec: &PersistentVolumeSpec) -> Option<(PathBuf, String)> {
    if let Some(host) = &spec.host_path {
        return Some((PathBuf::from(&host.path), host.type_.clone().unwrap_or_default()));
    }
    spec.local.as_ref().map(|local| (PathBuf::from(&local.path), String::new()))
}

impl VolumePlugin for PersistentClaimPlugin {
    fn name(&self) -> &'static str {
        "kubernetes.io/persistent-claim"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
    }

    fn mount<'a>(&'a self, r: MountRequest<'a>) -> BoxFuture<'a, Result<Mounted, Error>> {
        Box::pin(async move {
            let (volume, read_only) = bound_volume(&r).await?;
            let spec = volume.spec.clone().unwrap_or_default();
            if spec.volume_mode.as_deref() == Some("Block") {
                let message = "volumes of mode Block are not supported";
                return Err(Error::new(Reason::Unsupported, message));
            }
            if let Some(source) = &spec.csi {
                return csi::publish_persistent(self.mounter.as_ref(), &r, &volume, source, read_only).await;
            }
            let Some((path, kind)) = node_path(&spec) else {
                let name = volume.metadata.name.as_deref().unwrap_or("");
                let message = format!("no volume plugin matched the source of persistentvolume \"{name}\"");
                return Err(Error::new(Reason::Unsupported, message));
            };
            let local = spec.local.is_some();
            files::blocking(move || {
                host_path::prepare(&path, &kind)?;
                if local && !path.exists() {
                    return Err(Error::new(
                        Reason::NotFound,
                        format!("path {} does not exist", path.display()),
                    ));
                }
                if !local && kind.is_empty() {
                    // A volume of hostPath without a type is made on first use, as container runtimes do.
                    files::make_dir(&path, 0o755)?;
                }
                Ok(Mounted { read_only, ..Mounted::at(path) })
            })
            .await
        })
    }

    fn unmount<'a>(&'a self, dir: &'a Path) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(csi::unpublish(self.mounter.as_ref(), dir))
    }

    fn follows_source(&self) -> bool {
        false
    }
}
