//! Makes an image on the spot, out of files of this machine.

use super::elf;
use super::layer::digest_of;
use super::manifest::{
    CONFIG_TYPE, Descriptor, INDEX_TYPE, ImageConfig, ImageFile, LAYER_TYPE, MANIFEST_TYPE, Manifest, RootFs,
    this_platform,
};
use crate::{Error, Reason};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An image to be made: one layer of files and how its program is run.
///
/// ```no_run
/// # async fn f(images: &kubewright_runtime::images::ImageStore) -> Result<(), kubewright_runtime::Error> {
/// use kubewright_runtime::images::ImageBuilder;
/// let image = ImageBuilder::new().program("/server", "/usr/local/bin/server")?.entrypoint(["/server"]);
/// images.build(image, "localhost/server:1").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ImageBuilder {
    /// By path in the image, without the leading `/`.
    files: BTreeMap<PathBuf, (Content, u32)>,
    config: ImageConfig,
}

#[derive(Clone, Debug)]
enum Content {
    File(PathBuf),
    Bytes(Bytes),
    Link(PathBuf),
    Directory,
}

impl ImageBuilder {
    /// An image with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file of this machine at a path, with permissions such as `0o644`.
    pub fn file(self, path: &str, from: impl Into<PathBuf>, mode: u32) -> Self {
        self.put(path, Content::File(from.into()), mode)
    }

    /// Puts a file with these bytes at a path.
    pub fn content(self, path: &str, bytes: impl Into<Bytes>, mode: u32) -> Self {
        self.put(path, Content::Bytes(bytes.into()), mode)
    }

    /// Puts a symbolic link at a path.
    pub fn link(self, path: &str, to: impl Into<PathBuf>) -> Self {
        self.put(path, Content::Link(to.into()), 0o777)
    }

    /// Puts a directory at a path; those above files come by themselves.
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.put(path, Content::Directory, mode)
    }

    /// Puts a program of this machine at a path, together with the loader and the shared libraries that it needs, at the paths at
    /// which they are looked for. The program's own loader is run to list them, as `ldd` does.
    ///
    /// # Errors
    /// `Failed` where the program can't be read or a library is missing.
    pub fn program(self, path: &str, from: impl AsRef<Path>) -> Result<Self, Error> {
        let from = from.as_ref();
        let said = |e: io::Error| Error::new(Reason::Failed, format!("{}: {e}", from.display()));
        let from = from.canonicalize().map_err(said)?;
        let mut image = self.file(path, &from, 0o755);
        for library in elf::libraries(&from).map_err(said)? {
            let real = library.canonicalize().map_err(said)?;
            image = image.file(&library.display().to_string(), real, 0o755);
        }
        Ok(image)
    }

    /// The program that is run, and its first arguments.
    pub fn entrypoint(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.entrypoint = Some(words.into_iter().map(Into::into).collect());
        self
    }

    /// The arguments that follow when a pod gives none.
    pub fn cmd(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.cmd = Some(words.into_iter().map(Into::into).collect());
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.config.env.get_or_insert_default().push(format!("{name}={value}"));
        self
    }

    /// The working directory.
    pub fn working_dir(mut self, path: &str) -> Self {
        self.config.working_dir = Some(path.to_owned());
        self
    }

    /// The user, `name`, `uid` or either with `:group`.
    pub fn user(mut self, user: &str) -> Self {
        self.config.user = Some(user.to_owned());
        self
    }

    /// The signal that asks the program to end, `SIGTERM` when not given.
    pub fn stop_signal(mut self, signal: &str) -> Self {
        self.config.stop_signal = Some(signal.to_owned());
        self
    }

    fn put(mut self, path: &str, content: Content, mode: u32) -> Self {
        self.files.insert(PathBuf::from(path.trim_start_matches('/')), (content, mode));
        self
    }

    /// Writes the image as an OCI layout into a directory; gives the digest of its manifest. Blocks.
    ///
    /// # Errors
    /// `Failed` where a file can't be read or written, `Invalid` where a path goes up.
    pub fn write_layout(&self, dir: &Path) -> Result<String, Error> {
        if let Some(path) =
            self.files.keys().find(|path| path.components().any(|part| part.as_os_str() == ".."))
        {
            return Err(Error::new(Reason::Invalid, format!("path {path:?} in an image")));
        }
        self.write(dir).map_err(|e| Error::new(Reason::Failed, format!("image layout: {e}")))
    }

    fn write(&self, dir: &Path) -> io::Result<String> {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let layer = self.write_layer(&blobs)?;
        let platform = this_platform();
        let config = ImageFile {
            architecture: platform.architecture,
            os: platform.os,
            config: Some(self.config.clone()),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![layer.digest.clone()] },
        };
        let config = write_blob(&blobs, CONFIG_TYPE, &serde_json::to_vec(&config)?)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            config: Some(config),
            layers: vec![layer],
            ..Manifest::default()
        };
        let manifest = write_blob(&blobs, MANIFEST_TYPE, &serde_json::to_vec(&manifest)?)?;
        let digest = manifest.digest.clone();
        let index = Manifest {
            schema_version: 2,
            media_type: INDEX_TYPE.to_owned(),
            manifests: vec![manifest],
            ..Manifest::default()
        };
        fs::write(dir.join("index.json"), serde_json::to_vec(&index)?)?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(digest)
    }

    fn write_layer(&self, blobs: &Path) -> io::Result<Descriptor> {
        let temporary = blobs.join("layer.tmp");
        let file = io::BufWriter::with_capacity(256 * 1024, File::create(&temporary)?);
        let mut archive = tar::Builder::new(Digesting { inner: file, hash: Sha256::new(), size: 0 });
        let mut directories = BTreeSet::new();
        for (path, (content, mode)) in &self.files {
            for above in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                let given = matches!(self.files.get(above), Some((Content::Directory, _)));
                if !above.as_os_str().is_empty() && !given && directories.insert(above.to_owned()) {
                    append(&mut archive, above, &Content::Directory, 0o755)?;
                }
            }
            append(&mut archive, path, content, *mode)?;
        }
        let mut written = archive.into_inner()?;
        written.flush()?;
        let hex = hex::encode(written.hash.finalize());
        fs::rename(temporary, blobs.join(&hex))?;
        let (media_type, digest) = (LAYER_TYPE.to_owned(), format!("sha256:{hex}"));
        Ok(Descriptor { media_type, digest, size: written.size, ..Descriptor::default() })
    }
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    path: &Path,
    content: &Content,
    mode: u32,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(0);
    // Everything is root's and has no age, so that the same files give the same digest.
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    match content {
        Content::File(from) => {
            let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", from.display()));
            let file = File::open(from).map_err(at)?;
            header.set_size(file.metadata().map_err(at)?.len());
            archive.append_data(&mut header, path, file).map_err(at)
        }
        Content::Bytes(bytes) => {
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, bytes.as_ref())
        }
        Content::Link(to) => {
            header.set_entry_type(tar::EntryType::Symlink);
            archive.append_link(&mut header, path, to)
        }
        Content::Directory => {
            header.set_entry_type(tar::EntryType::Directory);
            archive.append_data(&mut header, path, io::empty())
        }
    }
}

fn write_blob(blobs: &Path, media_type: &str, bytes: &[u8]) -> io::Result<Descriptor> {
    let digest = digest_of(bytes);
    fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes)?;
    let size = bytes.len() as u64;
    Ok(Descriptor { media_type: media_type.to_owned(), digest, size, ..Descriptor::default() })
}

/// Digests what is written through it.
struct Digesting<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
