//! `emptyDir`: an empty directory that lives as long as its pod, on disk or in memory.

use crate::{Error, MountRequest, Mounted, VolumePlugin, fields, files};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Volume;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::Path;

/// Implements `emptyDir`. `medium: Memory` is a tmpfs where this process may mount, else a plain directory.
#[derive(Debug, Default)]
pub struct EmptyDirPlugin;

const TMPFS_MAGIC: nix::sys::statfs::FsType = nix::sys::statfs::TMPFS_MAGIC;

fn is_tmpfs_of_its_own(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let tmpfs = nix::sys::statfs::statfs(dir).is_ok_and(|s| s.filesystem_type() == TMPFS_MAGIC);
    let device = |p: &Path| std::fs::metadata(p).map(|m| m.dev()).ok();
    // The whole root may lie on a tmpfs; only one that begins here is ours.
    tmpfs && dir.parent().is_some_and(|parent| device(parent) != device(dir))
}

fn mount_memory(dir: &Path, limit: Option<u64>) {
    if is_tmpfs_of_its_own(dir) {
        return;
    }
    let options = limit.map_or_else(|| "mode=0777".to_owned(), |l| format!("mode=0777,size={l}"));
    let mounted = mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()));
    if let Err(e) = mounted {
        tracing::debug!(dir = %dir.display(), error = %e, "no tmpfs here; a plain directory stands in");
    }
}

impl VolumePlugin for EmptyDirPlugin {
    fn name(&self) -> &'static str {
        "kubernetes.io/empty-dir"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    fn mount<'a>(&'a self, r: MountRequest<'a>) -> BoxFuture<'a, Result<Mounted, Error>> {
        Box::pin(async move {
            let spec = r.volume.empty_dir.clone().unwrap_or_default();
            let limit = match spec.size_limit.as_ref().map(|q| fields::nanos(&q.0)) {
                None => None,
                Some(Some(nanos)) => u64::try_from(nanos / 1_000_000_000).ok().filter(|l| *l > 0),
                Some(None) => return Err(Error::invalid("sizeLimit is not readable")),
            };
            let memory = match spec.medium.as_deref() {
                None | Some("") => false,
                Some("Memory") => true,
                Some(other) => {
                    let what = format!("unsupported emptyDir medium {other:?}");
                    return Err(Error::new(crate::Reason::Unsupported, what));
                }
            };
            let (dir, group) = (r.dir.clone(), r.fs_group);
            files::blocking(move || {
                files::make_dir(&dir, 0o777)?;
                if memory {
                    mount_memory(&dir, limit);
                }
                if let Some(group) = group {
                    files::give_to_group(&dir, group);
                }
                Ok(Mounted { size_limit: limit, ..Mounted::at(dir) })
            })
            .await
        })
    }

    fn unmount<'a>(&'a self, dir: &'a Path) -> BoxFuture<'a, Result<(), Error>> {
        let dir = dir.to_path_buf();
        Box::pin(files::blocking(move || {
            if is_tmpfs_of_its_own(&dir) {
                umount2(&dir, MntFlags::MNT_DETACH)
                    .map_err(|e| Error::io("cannot unmount", &dir, &std::io::Error::from(e)))?;
            }
            Ok(())
        }))
    }

    fn follows_source(&self) -> bool {
        false
    }
}
