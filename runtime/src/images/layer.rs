//! Unpacks layers safely, verifies them, and lays them over each other.

use super::reference::is_digest;
use nix::sys::stat::{Mode, SFlag, mknod};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// Larger layers than this are refused, as are those with more entries.
const LAYER_BYTES_MAX: u64 = 64 << 30;
const LAYER_ENTRIES_MAX: usize = 2_000_000;
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
const OPAQUE_ATTRIBUTES: [&str; 2] = ["user.overlay.opaque", "trusted.overlay.opaque"];

/// What a layer takes away from those below it; kept beside the layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Removals {
    pub(super) whiteouts: Vec<PathBuf>,
    pub(super) opaque: Vec<PathBuf>,
}

/// Counts and digests what is read through it.
struct Digesting<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Digesting<R> {
    fn new(inner: R) -> Self {
        Digesting { inner, hash: Sha256::new(), bytes: 0 }
    }

    fn digest(self) -> String {
        format!("sha256:{}", hex::encode(self.hash.finalize()))
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.hash.update(&out[..count]);
        self.bytes += count as u64;
        if self.bytes > LAYER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the layer is too large"));
        }
        Ok(count)
    }
}

/// Undoes gzip or zstd, told by the first bytes.
pub(super) fn decompress<'a>(from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut from = BufReader::with_capacity(64 * 1024, from);
    let head = io::BufRead::fill_buf(&mut from)?;
    Ok(if head.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(from))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::stream::read::Decoder::with_buffer(from)?)
    } else {
        Box::new(from)
    })
}

/// Unpacks a packed layer into a new directory. The packed bytes must have the digest `packed`, where given, and the archive
/// itself `diff_id`. Nothing outside the directory is touched, whatever the archive says.
pub(super) fn unpack(
    from: impl Read,
    packed: Option<&str>,
    diff_id: &str,
    to: &Path,
) -> io::Result<Removals> {
    fs::create_dir_all(to)?;
    let mut outer = Digesting::new(from);
    let (removals, found) = {
        let mut inner = Digesting::new(decompress(&mut outer)?);
        let removals = unpack_archive(&mut inner, to)?;
        // What follows the archive's end belongs to the digest too.
        io::copy(&mut inner, &mut io::sink())?;
        (removals, inner.digest())
    };
    io::copy(&mut outer, &mut io::sink())?;
    verify(&found, diff_id)?;
    if let Some(packed) = packed {
        verify(&outer.digest(), packed)?;
    }
    Ok(removals)
}

fn verify(found: &str, wanted: &str) -> io::Result<()> {
    if found == wanted && is_digest(found) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("digest is {found}, not {wanted}")))
}

/// Checks a whole document against its digest.
pub(super) fn verify_bytes(bytes: &[u8], wanted: &str) -> io::Result<()> {
    verify(&digest_of(bytes), wanted)
}

/// `sha256:...` of a document.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn unpack_archive(from: impl Read, to: &Path) -> io::Result<Removals> {
    let root = nix::unistd::geteuid().is_root();
    let mut archive = tar::Archive::new(from);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(root);
    let (mut removals, mut directories) = (Removals::default(), Vec::new());
    for (count, entry) in archive.entries()?.enumerate() {
        if count >= LAYER_ENTRIES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the layer has too many entries"));
        }
        let mut entry = entry?;
        let Some(path) = plain(&entry.path()?) else { continue };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name == OPAQUE {
            removals.opaque.push(path.parent().unwrap_or(Path::new("")).to_owned());
            continue;
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if !hidden.is_empty() && hidden != ".." && hidden != "." {
                removals.whiteouts.push(path.with_file_name(hidden));
            }
            continue;
        }
        match entry.header().entry_type() {
            EntryType::Directory => {
                // Its own permissions come last, so that what is in it can be written.
                let mode = entry.header().mode()?;
                entry.set_preserve_permissions(false);
                if !to.join(&path).is_dir() {
                    entry.unpack_in(to)?;
                }
                directories.push((path, if root { mode } else { mode | 0o700 }));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mode = entry.header().mode()?;
                if entry.unpack_in(to)? && !root {
                    let at = to.join(&path);
                    fs::set_permissions(at, fs::Permissions::from_mode((mode & 0o7777) | 0o600))?;
                }
            }
            EntryType::Symlink | EntryType::Link => {
                entry.unpack_in(to)?;
            }
            // Devices and pipes: a container gets its own /dev.
            _ => {}
        }
    }
    for (path, mode) in directories.iter().rev() {
        // Only a real directory: a later entry may have put a link in its place.
        let at = to.join(path);
        if fs::symlink_metadata(&at).is_ok_and(|found| found.is_dir()) && is_inside(to, &at) {
            fs::set_permissions(&at, fs::Permissions::from_mode(mode & 0o7777))?;
        }
    }
    mark(&removals, to)?;
    Ok(removals)
}

/// The path without a leading `/` or `./`; `None` for the root itself and for paths that go up.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (!clean.as_os_str().is_empty()).then_some(clean)
}

fn is_inside(root: &Path, path: &Path) -> bool {
    matches!((root.canonicalize(), path.canonicalize()), (Ok(root), Ok(path)) if path.starts_with(&root))
}

/// Marks removals as overlayfs reads them. Any user may make its kind of device; where a file system has no attributes, the layer
/// can still be copied.
fn mark(removals: &Removals, to: &Path) -> io::Result<()> {
    for path in &removals.whiteouts {
        let at = to.join(path);
        let parent = at.parent().unwrap_or(to);
        fs::create_dir_all(parent)?;
        if !is_inside(to, parent) || fs::symlink_metadata(&at).is_ok() {
            continue;
        }
        mknod(&at, SFlag::S_IFCHR, Mode::empty(), 0)?;
    }
    for path in &removals.opaque {
        let at = to.join(path);
        fs::create_dir_all(&at)?;
        if is_inside(to, &at) {
            for attribute in OPAQUE_ATTRIBUTES {
                // `trusted` needs root and only root's overlay needs it.
                let _ = rustix::fs::setxattr(&at, attribute, b"y", rustix::fs::XattrFlags::empty());
            }
        }
    }
    Ok(())
}

/// Copies layers over each other, the lowest first, where overlayfs can't be used.
pub(crate) fn merge(layers: &Path, names: &[String], to: &Path) -> io::Result<()> {
    for name in names {
        let removals: Removals = serde_json::from_slice(&fs::read(layers.join(format!("{name}.json")))?)?;
        for path in &removals.opaque {
            if let Ok(entries) = fs::read_dir(to.join(path)) {
                entries.flatten().try_for_each(|entry| remove(&entry.path()))?;
            }
        }
        removals.whiteouts.iter().try_for_each(|path| remove(&to.join(path)))?;
        copy(&layers.join(name), to)?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let root = nix::unistd::geteuid().is_root();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let found = fs::symlink_metadata(&source)?;
        let there = fs::symlink_metadata(&target).ok();
        if there.is_some_and(|there| !(there.is_dir() && found.is_dir())) {
            remove(&target)?;
        }
        if found.is_dir() {
            fs::create_dir_all(&target)?;
            copy(&source, &target)?;
            fs::set_permissions(&target, found.permissions())?;
        } else if found.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if found.is_file() {
            fs::copy(&source, &target)?;
        } else {
            continue;
        }
        if root {
            std::os::unix::fs::lchown(&target, Some(found.uid()), Some(found.gid()))?;
            if !found.is_symlink() {
                fs::set_permissions(&target, found.permissions())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_mode(if *kind == EntryType::Directory { 0o555 } else { 0o644 });
            // Written raw, since the builder itself refuses paths that lead out.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let data = if kind.is_file() { text.as_bytes() } else { &[] };
            if !kind.is_file() && !text.is_empty() {
                header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
            }
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    const FILE: EntryType = EntryType::Regular;
    const DIR: EntryType = EntryType::Directory;
    const LINK: EntryType = EntryType::Symlink;

    #[test]
    fn nothing_leaves_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (to, outside) = (dir.path().join("layer"), dir.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        let evil = archive(&[
            ("../escaped", FILE, "x"),
            ("/absolute", FILE, "x"),
            ("out", LINK, "../outside"),
            ("out/written", FILE, "x"),
            ("hard", EntryType::Link, "../outside"),
        ]);
        let result = unpack(evil.as_slice(), None, &digest_of(&evil), &to);
        assert!(result.is_err(), "a write through a link is refused");
        assert!(!dir.path().join("escaped").exists() && !Path::new("/absolute").exists());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(to.join("absolute").is_file());
    }

    #[test]
    fn layers_are_verified_and_decompressed() {
        let dir = tempfile::tempdir().unwrap();
        let plain = archive(&[("d", DIR, ""), ("d/f", FILE, "text")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let packed = [gzip.finish().unwrap(), zstd::encode_all(plain.as_slice(), 1).unwrap(), plain.clone()];
        for (index, bytes) in packed.iter().enumerate() {
            let to = dir.path().join(index.to_string());
            unpack(bytes.as_slice(), Some(&digest_of(bytes)), &digest_of(&plain), &to).unwrap();
            assert_eq!(fs::read_to_string(to.join("d/f")).unwrap(), "text");
            let wrong = unpack(bytes.as_slice(), Some(&digest_of(b"")), &digest_of(&plain), &to);
            assert_eq!(wrong.unwrap_err().kind(), io::ErrorKind::InvalidData);
            let wrong = unpack(bytes.as_slice(), None, &digest_of(b""), &to);
            assert_eq!(wrong.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn upper_layers_take_away() {
        let dir = tempfile::tempdir().unwrap();
        let layers = [
            archive(&[
                ("a", FILE, "1"),
                ("b", DIR, ""),
                ("b/x", FILE, "1"),
                ("c", DIR, ""),
                ("c/y", FILE, "1"),
            ]),
            archive(&[
                (".wh.a", FILE, ""),
                ("b/.wh..wh..opq", FILE, ""),
                ("b/z", FILE, "2"),
                ("c", FILE, "2"),
            ]),
        ];
        let names: Vec<String> = (0..2).map(|n| n.to_string()).collect();
        for (name, bytes) in names.iter().zip(&layers) {
            let to = dir.path().join(name);
            let removals = unpack(bytes.as_slice(), None, &digest_of(bytes), &to).unwrap();
            fs::write(dir.path().join(format!("{name}.json")), serde_json::to_vec(&removals).unwrap())
                .unwrap();
        }
        let merged = dir.path().join("merged");
        fs::create_dir(&merged).unwrap();
        merge(dir.path(), &names, &merged).unwrap();
        assert!(!merged.join("a").exists() && !merged.join("b/x").exists());
        assert_eq!(fs::read_to_string(merged.join("b/z")).unwrap(), "2");
        assert_eq!(fs::read_to_string(merged.join("c")).unwrap(), "2");
    }
}
