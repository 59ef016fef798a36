//! A driver whose volumes are plain directories of this machine: for one node, and for tests of everything above drivers.

use super::port::*;
use crate::{Error, Reason};
use futures::future::BoxFuture;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The file beside a volume's data that tells its size.
const SIZE: &str = "size";
const DATA: &str = "data";

/// Volumes as directories below one root. Sizes are noted and not enforced.
///
/// Where the process may mount, a published volume is a bind mount; else it is a symbolic link, and read-only is refused.
#[derive(Clone, Debug)]
pub struct DirectoryDriver {
    name: String,
    node_id: String,
    root: PathBuf,
}

impl DirectoryDriver {
    /// A driver of this name, on the node of that name, with its volumes below `root`.
    pub fn new(name: impl Into<String>, node_id: impl Into<String>, root: impl Into<PathBuf>) -> Self {
        DirectoryDriver { name: name.into(), node_id: node_id.into(), root: root.into() }
    }

    /// The folder of a volume. An id is a name that [`Controller::create_volume`] took.
    fn folder(&self, volume_id: &str) -> Result<PathBuf, Error> {
        let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if volume_id.is_empty() || volume_id.starts_with('.') || !volume_id.chars().all(harmless) {
            return Err(Error::invalid(format!("{volume_id:?} is no name of a volume")));
        }
        Ok(self.root.join(volume_id))
    }

    fn existing(&self, volume_id: &str) -> Result<PathBuf, Error> {
        let folder = self.folder(volume_id)?;
        if folder.join(DATA).is_dir() { Ok(folder) } else { Err(missing(volume_id)) }
    }

    fn size(&self, volume_id: &str) -> i64 {
        let text = fs::read_to_string(self.root.join(volume_id).join(SIZE));
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    fn set_size(folder: &Path, bytes: i64) -> Result<(), Error> {
        let file = folder.join(SIZE);
        fs::write(&file, bytes.to_string()).map_err(|error| Error::io("write", &file, &error))
    }

    fn make(&self, request: &CreateVolume) -> Result<Volume, Error> {
        let folder = self.folder(&request.name)?;
        let wanted = request.capacity;
        if wanted.limit_bytes != 0 && wanted.required_bytes > wanted.limit_bytes {
            return Err(Error::invalid("more is required than the limit allows"));
        }
        if folder.join(DATA).is_dir() {
            let size = self.size(&request.name);
            if size < wanted.required_bytes || (wanted.limit_bytes != 0 && size > wanted.limit_bytes) {
                let words = format!("volume {:?} exists with {size} bytes", request.name);
                return Err(Error::invalid(words));
            }
        } else {
            self.fill(&folder, request.source.as_ref())?;
            Self::set_size(&folder, wanted.required_bytes)?;
        }
        Ok(Volume {
            id: request.name.clone(),
            capacity_bytes: self.size(&request.name),
            context: Attributes::new(),
            source: request.source.clone(),
            topology: Vec::new(),
        })
    }

    /// Makes the data folder at once and whole.
    fn fill(&self, folder: &Path, source: Option<&ContentSource>) -> Result<(), Error> {
        let half = folder.join("half");
        let io_error = |error: io::Error| Error::io("fill", folder, &error);
        if half.exists() {
            fs::remove_dir_all(&half).map_err(io_error)?;
        }
        fs::create_dir_all(&half).map_err(io_error)?;
        match source {
            None => {}
            Some(ContentSource::Volume(id)) => {
                copy(&self.existing(id)?.join(DATA), &half).map_err(io_error)?
            }
            Some(ContentSource::Snapshot(_)) => return Err(unsupported("snapshots")),
        }
        fs::rename(&half, folder.join(DATA)).map_err(io_error)
    }

    fn listed(&self) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &self.root, &error)),
        };
        let names = entries.flatten().filter(|entry| entry.path().join(DATA).is_dir());
        let mut names: Vec<_> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn page(&self, max: i32, token: &str) -> Result<Page<ListedVolume>, Error> {
        let max = usize::try_from(max).map_err(|_| Error::invalid("a negative number of entries"))?;
        let mut names: Vec<_> = self.listed()?.into_iter().filter(|name| name.as_str() >= token).collect();
        let mut next_token = String::new();
        if max != 0 && names.len() > max {
            next_token.clone_from(&names[max]);
            names.truncate(max);
        }
        let listed = |id: String| ListedVolume {
            volume: Volume { capacity_bytes: self.size(&id), id, ..Volume::default() },
            ..ListedVolume::default()
        };
        Ok(Page { items: names.into_iter().map(listed).collect(), next_token })
    }

    fn show(&self, request: &NodePublish) -> Result<(), Error> {
        let data = self.existing(&request.volume_id)?.join(DATA);
        if request.capability.access_type == AccessType::Block {
            return Err(unsupported("block volumes"));
        }
        let target = &request.target_path;
        if is_published(target, &data) {
            return Ok(());
        }
        if target.is_symlink() || target.exists() {
            hide(target)?;
        }
        let io_error = |error: io::Error| Error::io("publish at", target, &error);
        fs::create_dir_all(target).map_err(io_error)?;
        let none: Option<&str> = None;
        match mount(Some(&data), target, none, MsFlags::MS_BIND, none) {
            Ok(()) if request.readonly => {
                let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                let remounted = mount(none, target, none, flags, none);
                remounted.map_err(|error| io_error(error.into()))
            }
            Ok(()) => Ok(()),
            Err(nix::errno::Errno::EPERM) if request.readonly => {
                hide(target)?;
                Err(unsupported("read-only volumes without the right to mount"))
            }
            Err(nix::errno::Errno::EPERM) => {
                fs::remove_dir(target).map_err(io_error)?;
                std::os::unix::fs::symlink(&data, target).map_err(io_error)
            }
            Err(error) => Err(io_error(error.into())),
        }
    }
}

fn missing(volume_id: &str) -> Error {
    Error::new(Reason::NotFound, format!("volume {volume_id:?} does not exist"))
}

fn unsupported(what: &str) -> Error {
    Error::new(Reason::Unsupported, format!("the directory driver has no {what}"))
}

/// Whether the target shows these data: the same directory, through a mount or a link.
fn is_published(target: &Path, data: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let place = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    place(target).is_some_and(|found| Some(found) == place(data))
}

/// Takes away whatever shows a volume there, never the volume itself.
fn hide(target: &Path) -> Result<(), Error> {
    let io_error = |error: io::Error| Error::io("unpublish", target, &error);
    if target.is_symlink() {
        return fs::remove_file(target).map_err(io_error);
    }
    if !target.exists() {
        return Ok(());
    }
    match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
        // No mount, or no right to have made one.
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::EPERM) => {}
        Err(error) => return Err(io_error(error.into())),
    }
    // A directory with something in it is no empty mount point, and stays.
    fs::remove_dir(target).map_err(io_error)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Runs work on files where it may block.
fn blocking<T: Send + 'static>(
    driver: &DirectoryDriver,
    work: impl FnOnce(&DirectoryDriver) -> Result<T, Error> + Send + 'static,
) -> BoxFuture<'static, Result<T, Error>> {
    let driver = driver.clone();
    Box::pin(async move {
        let done = tokio::task::spawn_blocking(move || work(&driver)).await;
        done.map_err(|error| Error::new(Reason::Failed, format!("the work on files ended early: {error}")))?
    })
}

/// An answer that needs no work.
fn at_once<T: Send + 'static>(result: Result<T, Error>) -> BoxFuture<'static, Result<T, Error>> {
    Box::pin(futures::future::ready(result))
}

impl Identity for DirectoryDriver {
    fn plugin_info(&self) -> BoxFuture<'_, Result<PluginInfo, Error>> {
        let vendor_version = env!("CARGO_PKG_VERSION").to_owned();
        at_once(Ok(PluginInfo { name: self.name.clone(), vendor_version, manifest: Attributes::new() }))
    }

    fn plugin_capabilities(&self) -> BoxFuture<'_, Result<BTreeSet<PluginCapability>, Error>> {
        at_once(Ok(BTreeSet::from([PluginCapability::ControllerService, PluginCapability::OnlineExpansion])))
    }

    fn probe(&self) -> BoxFuture<'_, Result<bool, Error>> {
        at_once(Ok(true))
    }
}

impl Controller for DirectoryDriver {
    fn controller_capabilities(&self) -> BoxFuture<'_, Result<BTreeSet<ControllerCapability>, Error>> {
        use ControllerCapability::{CloneVolume, CreateDeleteVolume, ExpandVolume, GetCapacity, ListVolumes};
        at_once(Ok(BTreeSet::from([CreateDeleteVolume, ListVolumes, GetCapacity, CloneVolume, ExpandVolume])))
    }

    fn create_volume(&self, request: CreateVolume) -> BoxFuture<'_, Result<Volume, Error>> {
        blocking(self, move |driver| driver.make(&request))
    }

    fn delete_volume(&self, volume_id: &str, _: Secrets) -> BoxFuture<'_, Result<(), Error>> {
        let folder = self.folder(volume_id);
        blocking(self, move |_| {
            // A name that no volume can have names none.
            let Ok(folder) = folder else { return Ok(()) };
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(Error::io("remove", &folder, &error))
                }
                _ => Ok(()),
            }
        })
    }

    fn controller_publish(&self, _: ControllerPublish) -> BoxFuture<'_, Result<Attributes, Error>> {
        at_once(Err(unsupported("attaching")))
    }

    fn controller_unpublish(&self, _: &str, _: &str, _: Secrets) -> BoxFuture<'_, Result<(), Error>> {
        at_once(Err(unsupported("attaching")))
    }

    fn validate_capabilities(
        &self,
        volume_id: &str,
        _: Attributes,
        capabilities: Vec<VolumeCapability>,
    ) -> BoxFuture<'_, Result<Option<String>, Error>> {
        let block = capabilities.iter().any(|capability| capability.access_type == AccessType::Block);
        let lacks = block.then(|| "there are no block volumes".to_owned());
        at_once(self.existing(volume_id).map(|_| lacks))
    }

    fn list_volumes(&self, max: i32, token: &str) -> BoxFuture<'_, Result<Page<ListedVolume>, Error>> {
        let token = token.to_owned();
        blocking(self, move |driver| driver.page(max, &token))
    }

    fn capacity(&self, _: Attributes, _: Attributes) -> BoxFuture<'_, Result<i64, Error>> {
        blocking(self, |driver| Ok(usage(&driver.root)?.available_bytes))
    }

    fn create_snapshot(
        &self,
        _: &str,
        _: &str,
        _: Attributes,
        _: Secrets,
    ) -> BoxFuture<'_, Result<Snapshot, Error>> {
        at_once(Err(unsupported("snapshots")))
    }

    fn delete_snapshot(&self, _: &str, _: Secrets) -> BoxFuture<'_, Result<(), Error>> {
        at_once(Err(unsupported("snapshots")))
    }

    fn list_snapshots(
        &self,
        _: SnapshotFilter,
        _: i32,
        _: &str,
    ) -> BoxFuture<'_, Result<Page<Snapshot>, Error>> {
        at_once(Err(unsupported("snapshots")))
    }

    fn expand_volume(
        &self,
        volume_id: &str,
        capacity: CapacityRange,
        _: Secrets,
    ) -> BoxFuture<'_, Result<Expanded, Error>> {
        let volume_id = volume_id.to_owned();
        blocking(self, move |driver| {
            let folder = driver.existing(&volume_id)?;
            let capacity_bytes = driver.size(&volume_id).max(capacity.required_bytes);
            DirectoryDriver::set_size(&folder, capacity_bytes)?;
            Ok(Expanded { capacity_bytes, node_expansion_required: false })
        })
    }

    fn modify_volume(&self, _: &str, _: Attributes, _: Secrets) -> BoxFuture<'_, Result<(), Error>> {
        at_once(Err(unsupported("parameters that change")))
    }
}

fn usage(path: &Path) -> Result<VolumeStats, Error> {
    let found =
        nix::sys::statvfs::statvfs(path).map_err(|error| Error::io("look at", path, &error.into()))?;
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let bytes = |blocks: u64| count(blocks.saturating_mul(found.fragment_size()));
    Ok(VolumeStats {
        available_bytes: bytes(found.blocks_available()),
        total_bytes: bytes(found.blocks()),
        used_bytes: bytes(found.blocks().saturating_sub(found.blocks_free())),
        available_inodes: count(found.files_available()),
        total_inodes: count(found.files()),
        used_inodes: count(found.files().saturating_sub(found.files_free())),
    })
}

impl Node for DirectoryDriver {
    fn node_capabilities(&self) -> BoxFuture<'_, Result<BTreeSet<NodeCapability>, Error>> {
        at_once(Ok(BTreeSet::from([NodeCapability::StageUnstageVolume, NodeCapability::GetVolumeStats])))
    }

    fn node_info(&self) -> BoxFuture<'_, Result<NodeInfo, Error>> {
        at_once(Ok(NodeInfo { node_id: self.node_id.clone(), ..NodeInfo::default() }))
    }

    fn stage(&self, request: NodeStage) -> BoxFuture<'_, Result<(), Error>> {
        // There is nothing to mount once for all.
        at_once(self.existing(&request.volume_id).map(|_| ()))
    }

    fn unstage(&self, volume_id: &str, _: &Path) -> BoxFuture<'_, Result<(), Error>> {
        at_once(self.folder(volume_id).map(|_| ()))
    }

    fn publish(&self, request: NodePublish) -> BoxFuture<'_, Result<(), Error>> {
        blocking(self, move |driver| driver.show(&request))
    }

    fn unpublish(&self, _: &str, target_path: &Path) -> BoxFuture<'_, Result<(), Error>> {
        let target = target_path.to_owned();
        blocking(self, move |_| hide(&target))
    }

    fn volume_stats(&self, volume_id: &str, volume_path: &Path) -> BoxFuture<'_, Result<VolumeStats, Error>> {
        let (volume_id, path) = (volume_id.to_owned(), volume_path.to_owned());
        blocking(self, move |driver| {
            let data = driver.existing(&volume_id)?.join(DATA);
            if is_published(&path, &data) { usage(&path) } else { Err(missing(&volume_id)) }
        })
    }

    fn node_expand(&self, request: NodeExpand) -> BoxFuture<'_, Result<i64, Error>> {
        blocking(self, move |driver| {
            driver.existing(&request.volume_id)?;
            Ok(driver.size(&request.volume_id).max(request.capacity.required_bytes))
        })
    }
}
