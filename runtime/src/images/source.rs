//! Where an image is read from: a directory in the OCI image layout, or an archive unpacked into one.

use super::layer::{decompress, verify_bytes};
use super::manifest::{Descriptor, Manifest, NAME_ANNOTATIONS, SavedImage, choose};
use super::reference::is_digest;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Documents larger than this are refused.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// How many indexes may lie within each other.
const INDEX_DEPTH_MAX: usize = 4;

/// An image ready to be taken in.
pub(super) struct Resolved {
    /// Names that the source gives it.
    pub(super) names: Vec<String>,
    /// Digest of the manifest, where the source has one.
    pub(super) manifest_digest: Option<String>,
    pub(super) config: Vec<u8>,
    pub(super) layers: Vec<PackedLayer>,
}

/// A layer in a file.
pub(super) struct PackedLayer {
    pub(super) path: PathBuf,
    /// Of the file; `None` where the source does not tell.
    pub(super) digest: Option<String>,
}

/// Unpacks an archive of a layout or of `docker save`, plain or compressed, into a directory.
pub(super) fn unpack_archive(from: impl Read, to: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(decompress(from)?);
    archive.set_preserve_permissions(false);
    for entry in archive.entries()? {
        let mut entry = entry?;
        // Of an image's archive only plain files are wanted, and the links by which old tools save space.
        let kind = entry.header().entry_type();
        if kind.is_file() || kind.is_dir() || kind.is_symlink() {
            entry.unpack_in(to)?;
        }
    }
    Ok(())
}

/// The images of a directory.
pub(super) fn resolve(dir: &Path) -> io::Result<Vec<Resolved>> {
    if dir.join("index.json").is_file() {
        let index: Manifest = serde_json::from_slice(&read_document(&dir.join("index.json"))?)?;
        return resolve_index(dir, &index.manifests);
    }
    if dir.join("manifest.json").is_file() {
        let saved: Vec<SavedImage> = serde_json::from_slice(&read_document(&dir.join("manifest.json"))?)?;
        return saved.into_iter().map(|image| resolve_saved(dir, image)).collect();
    }
    Err(invalid("neither index.json nor manifest.json is there: this is no image"))
}

fn resolve_index(dir: &Path, manifests: &[Descriptor]) -> io::Result<Vec<Resolved>> {
    let named = |found: &Descriptor| NAME_ANNOTATIONS.iter().any(|key| found.annotations.contains_key(*key));
    // Without names the entries are one image for several platforms.
    if manifests.len() > 1 && !manifests.iter().any(named) {
        let chosen = choose(manifests).ok_or_else(|| invalid("no image for this platform"))?;
        return Ok(vec![resolve_one(dir, chosen, 0)?]);
    }
    manifests.iter().map(|found| resolve_one(dir, found, 0)).collect()
}

fn resolve_one(dir: &Path, found: &Descriptor, depth: usize) -> io::Result<Resolved> {
    let bytes = read_blob(dir, &found.digest)?;
    let manifest: Manifest = serde_json::from_slice(&bytes)?;
    let names = NAME_ANNOTATIONS.iter().find_map(|key| found.annotations.get(*key));
    let Some(config) = manifest.config else {
        if depth >= INDEX_DEPTH_MAX {
            return Err(invalid("indexes lie too deep within each other"));
        }
        let chosen = choose(&manifest.manifests).ok_or_else(|| invalid("no image for this platform"))?;
        let inner = resolve_one(dir, chosen, depth + 1)?;
        return Ok(Resolved { names: names.cloned().into_iter().collect(), ..inner });
    };
    let layers = manifest.layers.into_iter().map(|layer| {
        let path = blob_path(dir, &layer.digest)?;
        Ok(PackedLayer { path, digest: Some(layer.digest) })
    });
    Ok(Resolved {
        names: names.cloned().into_iter().collect(),
        manifest_digest: Some(found.digest.clone()),
        config: read_blob(dir, &config.digest)?,
        layers: layers.collect::<io::Result<_>>()?,
    })
}

fn resolve_saved(dir: &Path, image: SavedImage) -> io::Result<Resolved> {
    let inside = |name: &str| {
        let path = dir.join(name).canonicalize()?;
        if path.starts_with(dir.canonicalize()?) {
            Ok(path)
        } else {
            Err(invalid("a path leads out of the archive"))
        }
    };
    let layers = image.layers.iter().map(|name| Ok(PackedLayer { path: inside(name)?, digest: None }));
    Ok(Resolved {
        names: image.repo_tags.unwrap_or_default(),
        manifest_digest: None,
        config: read_document(&inside(&image.config)?)?,
        layers: layers.collect::<io::Result<_>>()?,
    })
}

/// Where a layout keeps what has this digest.
pub(super) fn blob_path(dir: &Path, digest: &str) -> io::Result<PathBuf> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if is_digest(digest) => Ok(dir.join("blobs/sha256").join(hex)),
        _ => Err(invalid(&format!("{digest:?} is no digest"))),
    }
}

fn read_blob(dir: &Path, digest: &str) -> io::Result<Vec<u8>> {
    let bytes = read_document(&blob_path(dir, digest)?)?;
    verify_bytes(&bytes, digest)?;
    Ok(bytes)
}

fn read_document(path: &Path) -> io::Result<Vec<u8>> {
    let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    if fs::metadata(path).map_err(at)?.len() > DOCUMENT_BYTES_MAX {
        return Err(at(invalid("the document is too large")));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(at)?.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes).map_err(at)?;
    Ok(bytes)
}

pub(super) fn invalid(sentence: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, sentence.to_owned())
}
