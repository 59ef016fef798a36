//! The images of one runtime on disk.

use super::builder::ImageBuilder;
use super::layer;
use super::manifest::{ImageConfig, ImageFile};
use super::reference::{Reference, is_digest};
use super::registry;
use super::source::{self, PackedLayer, Resolved, invalid};
use crate::port::{AuthConfig, FilesystemUsage, Image};
use crate::{Error, Reason};
use kubewright_core::{Entropy, SharedClock};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const INDEX_FILE: &str = "images.json";
/// A layer with nothing in it, for images without layers.
pub(crate) const EMPTY_LAYER: &str = "empty";
const FILE_SCHEME: &str = "file://";

/// An image as it is kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StoredImage {
    /// The digest of its configuration.
    pub(crate) id: String,
    /// Whole names with tags; also `file://` addresses.
    pub(crate) names: BTreeSet<String>,
    /// `name@digest`.
    pub(crate) digests: BTreeSet<String>,
    /// Directories of its layers, the lowest first.
    pub(crate) layers: Vec<String>,
    pub(crate) size_bytes: u64,
    pub(crate) config: ImageConfig,
}

impl StoredImage {
    /// What a container's status calls its image.
    pub(crate) fn reference(&self) -> String {
        self.digests.first().cloned().unwrap_or_else(|| self.id.clone())
    }

    pub(crate) fn view(&self) -> Image {
        let user = self.config.user.clone().unwrap_or_default();
        let user = user.split(':').next().unwrap_or_default().to_owned();
        let uid = user.parse().ok();
        Image {
            id: self.id.clone(),
            repo_tags: self.names.iter().cloned().collect(),
            repo_digests: self.digests.iter().cloned().collect(),
            size_bytes: self.size_bytes,
            uid,
            username: if uid.is_some() { String::new() } else { user },
            pinned: false,
        }
    }

    fn is_called(&self, name: &str) -> bool {
        self.id == name
            || self.id.strip_prefix("sha256:") == Some(name)
            || self.names.contains(name)
            || self.digests.contains(name)
    }
}

/// Keeps images, unpacked. A clone is another handle of the same store.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    clock: SharedClock,
    entropy: Entropy,
    images: Mutex<Vec<StoredImage>>,
    /// Held while layers are added or removed.
    writing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ImageStore({:?}, {} images)", self.inner.root, self.inner.images.lock().len())
    }
}

impl ImageStore {
    /// Opens the store of a directory, made if missing.
    ///
    /// # Errors
    /// `Failed` for what the file system says.
    pub async fn open(root: &Path, clock: SharedClock) -> Result<Self, Error> {
        let root = root.to_owned();
        let work = move || -> io::Result<Inner> {
            let empty = root.join("layers").join(EMPTY_LAYER);
            fs::create_dir_all(&empty)?;
            fs::write(
                root.join("layers").join(format!("{EMPTY_LAYER}.json")),
                r#"{"whiteouts":[],"opaque":[]}"#,
            )?;
            // What was being unpacked when the owner died.
            remove_all(&root.join("new"))?;
            let images = match fs::read(root.join(INDEX_FILE)) {
                Ok(bytes) => serde_json::from_slice(&bytes)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(e) => return Err(e),
            };
            let entropy = Entropy::from_system();
            Ok(Inner {
                root,
                clock,
                entropy,
                images: Mutex::new(images),
                writing: tokio::sync::Mutex::new(()),
            })
        };
        let inner = blocking(work).await?.map_err(|e| said(Reason::Failed, "images", &e))?;
        Ok(ImageStore { inner: Arc::new(inner) })
    }

    /// Takes in the images of an OCI layout directory or an archive (of a layout or of `docker save`; plain, gzip or zstd), and gives
    /// their ids. `name` names the image where there is one; else it has the names that the source gives.
    ///
    /// # Errors
    /// `NotFound` where nothing is there; `Invalid` where it is no image, or does not match its digests.
    ///
    /// # Cancel safety
    /// Either the image is there, or nothing is left.
    pub async fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<String>, Error> {
        let path = path.to_owned();
        let found = fs::metadata(&path).map_err(|e| said(reason_of(&e), &path.display().to_string(), &e))?;
        if found.is_dir() {
            return self.take_in(path, None, name.map(str::to_owned)).await;
        }
        let file = File::open(&path).map_err(|e| said(reason_of(&e), &path.display().to_string(), &e))?;
        self.import_reader(file, name).await
    }

    /// Takes in the images of an archive, as [`ImageStore::import`] does.
    ///
    /// # Errors
    /// As [`ImageStore::import`].
    ///
    /// # Cancel safety
    /// Either the image is there, or nothing is left.
    pub async fn import_reader(
        &self,
        from: impl Read + Send + 'static,
        name: Option<&str>,
    ) -> Result<Vec<String>, Error> {
        let new = self.new_directory()?;
        let to = new.0.clone();
        let unpacked = blocking(move || source::unpack_archive(from, &to)).await?;
        unpacked.map_err(|e| said(Reason::Invalid, "archive", &e))?;
        self.take_in(new.0.clone(), Some(new), name.map(str::to_owned)).await
    }

    /// Takes in an image made on the spot; gives its id.
    ///
    /// # Errors
    /// `Failed` where a file can't be read, `Invalid` where the name or the image makes no sense.
    ///
    /// # Cancel safety
    /// Either the image is there, or nothing is left.
    pub async fn build(&self, builder: ImageBuilder, name: &str) -> Result<String, Error> {
        let new = self.new_directory()?;
        let (to, name) = (new.0.clone(), name.to_owned());
        blocking(move || builder.write_layout(&to)).await??;
        let ids = self.take_in(new.0.clone(), Some(new), Some(name)).await?;
        ids.into_iter().next().ok_or_else(|| Error::new(Reason::Failed, "nothing was built"))
    }

    pub(crate) async fn pull(&self, image: &str, auth: Option<AuthConfig>) -> Result<String, Error> {
        let ids = match image.strip_prefix(FILE_SCHEME) {
            Some(path) => self.import(Path::new(path), Some(image)).await?,
            None => {
                let reference = Reference::parse(image)?;
                if reference.registry == "localhost" {
                    // Names without a registry behind them are for imported images.
                    let found = self.find(image).map(|found| found.id);
                    return found
                        .ok_or_else(|| Error::new(Reason::NotFound, format!("{reference}: not found")));
                }
                let new = self.new_directory()?;
                let resolved = registry::fetch(&reference, auth, &new.0).await?;
                vec![self.keep(resolved, Some(image.to_owned()), Some(new)).await?]
            }
        };
        ids.into_iter()
            .next()
            .ok_or_else(|| Error::new(Reason::ImagePull, format!("{image}: no image in it")))
    }

    async fn take_in(
        &self,
        dir: PathBuf,
        new: Option<NewDirectory>,
        name: Option<String>,
    ) -> Result<Vec<String>, Error> {
        let found = blocking(move || source::resolve(&dir)).await?;
        let found = found.map_err(|e| said(Reason::Invalid, "image", &e))?;
        let mut ids = Vec::new();
        for image in found {
            ids.push(self.keep(image, name.clone(), None).await?);
        }
        drop(new);
        Ok(ids)
    }

    /// Unpacks what is missing, and enters the image.
    async fn keep(
        &self,
        image: Resolved,
        name: Option<String>,
        new: Option<NewDirectory>,
    ) -> Result<String, Error> {
        let names = whole_names(&image, name)?;
        let config: ImageFile = serde_json::from_slice(&image.config)
            .map_err(|e| Error::new(Reason::Invalid, format!("image configuration: {e}")))?;
        let _writing = self.inner.writing.lock().await;
        let (inner, layers, diff_ids) = (Arc::clone(&self.inner), image.layers, config.rootfs.diff_ids);
        let unpacked = blocking(move || inner.unpack(&layers, &diff_ids)).await?;
        drop(new);
        let (layers, size_bytes) = unpacked.map_err(|e| said(Reason::Invalid, "layer", &e))?;
        let id = layer::digest_of(&image.config);
        let mut stored = StoredImage {
            id: id.clone(),
            digests: digests_of(&names, image.manifest_digest.as_deref()),
            names: names.iter().filter(|name| !name.contains('@')).cloned().collect(),
            layers,
            size_bytes,
            config: config.config.unwrap_or_default(),
        };
        self.inner.change(|images| {
            for other in images.iter_mut() {
                if other.id == id {
                    stored.names.append(&mut other.names);
                    stored.digests.append(&mut other.digests);
                } else {
                    // A name belongs to the image that had it last.
                    other.names.retain(|name| !stored.names.contains(name));
                }
            }
            images.retain(|other| other.id != id);
            images.push(stored);
        })?;
        Ok(id)
    }

    fn new_directory(&self) -> Result<NewDirectory, Error> {
        let path = self.inner.root.join("new").join(self.inner.entropy.uid());
        fs::create_dir_all(&path).map_err(|e| said(Reason::Failed, "images", &e))?;
        Ok(NewDirectory(path))
    }

    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.inner.root.join("layers")
    }

    pub(crate) fn find(&self, name: &str) -> Option<StoredImage> {
        let whole = Reference::parse(name).map(|name| name.to_string()).unwrap_or_else(|_| name.to_owned());
        let images = self.inner.images.lock();
        let found = images.iter().find(|image| image.is_called(name));
        found.or_else(|| images.iter().find(|image| image.is_called(&whole))).cloned()
    }

    pub(crate) fn list(&self) -> Vec<Image> {
        self.inner.images.lock().iter().map(StoredImage::view).collect()
    }

    pub(crate) async fn remove(&self, id: &str) -> Result<(), Error> {
        let _writing = self.inner.writing.lock().await;
        self.inner.change(|images| images.retain(|image| image.id != id))?;
        let inner = Arc::clone(&self.inner);
        let removed = blocking(move || inner.remove_unused_layers()).await?;
        removed.map_err(|e| said(Reason::Failed, "layers", &e))
    }

    pub(crate) async fn usage(&self) -> Result<FilesystemUsage, Error> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let (used_bytes, inodes_used) = size_of(&inner.root);
            let timestamp = i64::try_from(inner.clock.now().as_nanosecond()).unwrap_or(i64::MAX);
            FilesystemUsage {
                timestamp,
                mountpoint: inner.root.display().to_string(),
                used_bytes,
                inodes_used,
            }
        })
        .await
    }
}

impl Inner {
    /// Unpacks layers that are not there yet; gives their directories and how large they are together.
    fn unpack(&self, packed: &[PackedLayer], diff_ids: &[String]) -> io::Result<(Vec<String>, u64)> {
        if packed.len() != diff_ids.len() {
            return Err(invalid("the manifest and the configuration have different numbers of layers"));
        }
        let (mut names, mut size) = (Vec::new(), 0);
        for (layer, diff_id) in packed.iter().zip(diff_ids) {
            let name = diff_id.strip_prefix("sha256:").filter(|_| is_digest(diff_id));
            let name = name.ok_or_else(|| invalid(&format!("{diff_id:?} is no digest")))?;
            let (to, notes) =
                (self.root.join("layers").join(name), self.root.join("layers").join(format!("{name}.json")));
            if !to.is_dir() || !notes.is_file() {
                let new = NewDirectory(self.root.join("new").join(self.entropy.uid()));
                let removals =
                    layer::unpack(File::open(&layer.path)?, layer.digest.as_deref(), diff_id, &new.0)?;
                let whole = fs::Permissions::from_mode(0o755);
                fs::set_permissions(&new.0, whole)?;
                remove_all(&to)?;
                fs::write(&notes, serde_json::to_vec(&removals)?)?;
                fs::rename(&new.0, &to)?;
            }
            size += size_of(&to).0;
            names.push(name.to_owned());
        }
        Ok((names, size))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<StoredImage>)) -> Result<(), Error> {
        let mut images = self.images.lock();
        let mut changed = images.clone();
        change(&mut changed);
        let write = || {
            let temporary = self.root.join("images.tmp");
            let mut file = File::create(&temporary)?;
            io::Write::write_all(&mut file, &serde_json::to_vec(&changed)?)?;
            file.sync_data()?;
            fs::rename(temporary, self.root.join(INDEX_FILE))
        };
        write().map_err(|e| said(Reason::Failed, "images", &e))?;
        *images = changed;
        Ok(())
    }

    fn remove_unused_layers(&self) -> io::Result<()> {
        let used: BTreeSet<String> =
            self.images.lock().iter().flat_map(|image| image.layers.clone()).collect();
        for entry in fs::read_dir(self.root.join("layers"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let layer = name.strip_suffix(".json").unwrap_or(&name);
            if layer != EMPTY_LAYER && !used.contains(layer) {
                remove_all(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// A directory that is removed unless it was moved away.
struct NewDirectory(PathBuf);

impl Drop for NewDirectory {
    fn drop(&mut self) {
        if let Err(error) = remove_all(&self.0) {
            tracing::warn!(dir = %self.0.display(), %error, "what is left of an image can't be removed");
        }
    }
}

fn whole_names(image: &Resolved, name: Option<String>) -> Result<BTreeSet<String>, Error> {
    let whole = |name: &str| match name.starts_with(FILE_SCHEME) {
        true => Ok(name.to_owned()),
        false => Reference::parse(name).map(|name| name.to_string()),
    };
    match name {
        Some(name) => Ok(BTreeSet::from([whole(&name)?])),
        // A source may name images in ways that are no names elsewhere.
        None => Ok(image.names.iter().filter_map(|name| whole(name).ok()).collect()),
    }
}

fn digests_of(names: &BTreeSet<String>, digest: Option<&str>) -> BTreeSet<String> {
    let references = names.iter().filter_map(|name| Reference::parse(name).ok());
    let digests =
        references.filter_map(|name| Some(format!("{}@{}", name.name(), name.digest.as_deref().or(digest)?)));
    digests.collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::new(Reason::Failed, e.to_string()))
}

fn reason_of(error: &io::Error) -> Reason {
    if error.kind() == io::ErrorKind::NotFound { Reason::NotFound } else { Reason::Failed }
}

fn said(reason: Reason, what: &str, error: &io::Error) -> Error {
    Error::new(reason, format!("{what}: {error}"))
}

/// Removes a file or a tree; gone is no error. Directories of layers may forbid writing.
fn remove_all(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(found) if !found.is_dir() => fs::remove_file(path),
        Ok(_) => match fs::remove_dir_all(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
    }
}

fn size_of(path: &Path) -> (u64, u64) {
    let Ok(found) = fs::symlink_metadata(path) else { return (0, 0) };
    let own = (found.blocks() * 512, 1);
    if !found.is_dir() {
        return own;
    }
    let inside = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size_of(&entry.path()));
    inside.fold(own, |sum, one| (sum.0 + one.0, sum.1 + one.1))
}
