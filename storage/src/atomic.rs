//! Trees of files that change in one step, in upstream's layout.
//!
//! ```text
//! <dir>/..2026_01_02_03_04_05.123456789/key   the files
//! <dir>/..data -> ..2026_01_02_03_04_05.123456789   swapped by one rename
//! <dir>/key -> ..data/key
//! ```
//! A reader that opened `..data` sees one version or the next one, never a mixture.

use crate::Error;
use crate::files;
use kubewright_core::{Entropy, SharedClock};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// One file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProjection {
    /// Its content.
    pub data: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// Files by their path relative to the volume.
pub type Payload = BTreeMap<String, FileProjection>;

/// Writes payloads. Cloning shares clock and entropy.
#[derive(Clone, Debug)]
pub struct AtomicWriter {
    clock: SharedClock,
    entropy: Arc<Entropy>,
}

impl AtomicWriter {
    /// A writer that names its directories by this clock.
    pub fn new(clock: SharedClock, entropy: Arc<Entropy>) -> Self {
        AtomicWriter { clock, entropy }
    }

    /// Makes `dir` hold exactly this payload. Gives whether anything changed.
    ///
    /// # Errors
    /// `Invalid` for a path that leaves the volume, `Failed` where a file can't be written; the old version stays then.
    pub fn write(&self, dir: &Path, payload: &Payload, fs_group: Option<u32>) -> Result<bool, Error> {
        for path in payload.keys() {
            check_path(path)?;
        }
        files::make_dir(dir, 0o777)?;
        let old = fs::read_link(dir.join(DATA)).ok();
        if let Some(old) = &old
            && same(&dir.join(old), payload)
            && links_are(dir, payload)
        {
            return Ok(false);
        }
        let name = self.fresh_name(dir);
        if let Err(e) = fill(&dir.join(&name), payload, fs_group) {
            let _ = fs::remove_dir_all(dir.join(&name));
            return Err(e);
        }
        swap(dir, &name)?;
        link(dir, payload)?;
        unlink_stale(dir, payload)?;
        if let Some(old) = old {
            let _ = fs::remove_dir_all(dir.join(old));
        }
        if let Some(group) = fs_group {
            files::give_to_group(dir, group);
        }
        Ok(true)
    }
}

impl AtomicWriter {
    /// A name for a new version that nothing has yet.
    fn fresh_name(&self, dir: &Path) -> String {
        loop {
            let time = self.clock.now().strftime("%Y_%m_%d_%H_%M_%S");
            let name = format!("..{time}.{:010}", self.entropy.next_u64() % 10_000_000_000);
            if !dir.join(&name).exists() {
                return name;
            }
        }
    }
}

/// Checks a path of a payload: relative, without `..`, not beginning with `..`.
fn check_path(path: &str) -> Result<(), Error> {
    let bad = |why: &str| Err(Error::invalid(format!("invalid path: {path:?} {why}")));
    if path.is_empty() || path.len() > 4096 {
        return bad("must not be empty or longer than 4096 bytes");
    }
    if path.starts_with("..") {
        return bad("must not begin with '..'");
    }
    if Path::new(path).components().all(|c| matches!(c, Component::Normal(n) if n.len() <= 255)) {
        Ok(())
    } else {
        bad("must be relative, without '..', and no part may be longer than 255 bytes")
    }
}

fn fill(dir: &Path, payload: &Payload, fs_group: Option<u32>) -> Result<(), Error> {
    files::make_dir(dir, 0o755)?;
    for (path, file) in payload {
        let full = dir.join(path);
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent).map_err(|e| Error::io("cannot create", parent, &e))?;
        }
        fs::write(&full, &file.data).map_err(|e| Error::io("cannot write", &full, &e))?;
        // Set after writing, because the umask takes bits away from a new file.
        let mode = if fs_group.is_some() { file.mode | ((file.mode >> 3) & 0o060) } else { file.mode };
        fs::set_permissions(&full, fs::Permissions::from_mode(mode))
            .map_err(|e| Error::io("cannot set the mode of", &full, &e))?;
        if let Some(group) = fs_group {
            files::give_to_group(&full, group);
        }
    }
    Ok(())
}

fn swap(dir: &Path, name: &str) -> Result<(), Error> {
    let (new, data) = (dir.join(DATA_NEW), dir.join(DATA));
    if let Err(e) = fs::remove_file(&new)
        && e.kind() != ErrorKind::NotFound
    {
        return Err(Error::io("cannot remove", &new, &e));
    }
    symlink(name, &new).map_err(|e| Error::io("cannot link", &new, &e))?;
    fs::rename(&new, &data).map_err(|e| Error::io("cannot replace", &data, &e))
}

/// The first parts of the payload's paths: what a reader sees in the volume.
fn visible(payload: &Payload) -> BTreeSet<&str> {
    payload.keys().map(|p| p.split('/').next().unwrap_or(p)).collect()
}

fn link(dir: &Path, payload: &Payload) -> Result<(), Error> {
    for name in visible(payload) {
        let (path, target) = (dir.join(name), PathBuf::from(DATA).join(name));
        if fs::read_link(&path).is_ok_and(|t| t == target) {
            continue;
        }
        let _ = fs::remove_file(&path);
        symlink(&target, &path).map_err(|e| Error::io("cannot link", &path, &e))?;
    }
    Ok(())
}

fn links_are(dir: &Path, payload: &Payload) -> bool {
    let wanted = visible(payload);
    let present: BTreeSet<String> = names(dir).into_iter().filter(|n| !n.starts_with("..")).collect();
    present.iter().map(String::as_str).eq(wanted.iter().copied())
}

fn unlink_stale(dir: &Path, payload: &Payload) -> Result<(), Error> {
    let wanted = visible(payload);
    for name in names(dir) {
        if name.starts_with("..") || wanted.contains(name.as_str()) {
            continue;
        }
        let path = dir.join(&name);
        fs::remove_file(&path).map_err(|e| Error::io("cannot remove", &path, &e))?;
    }
    Ok(())
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir)
        .map(|entries| entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
        .unwrap_or_default()
}

fn same(dir: &Path, payload: &Payload) -> bool {
    let mut found = 0;
    let complete = walk(dir, &mut |path| {
        found += 1;
        let relative = path.strip_prefix(dir).ok().and_then(Path::to_str).unwrap_or("");
        payload.get(relative).is_some_and(|f| {
            fs::read(path).is_ok_and(|data| data == f.data)
                && fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o707 == f.mode & 0o707)
        })
    });
    complete && found == payload.len()
}

/// Calls `check` for each file; stops at the first `false`.
fn walk(dir: &Path, check: &mut impl FnMut(&Path) -> bool) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().all(|e| {
        let path = e.path();
        if path.is_dir() { walk(&path, check) } else { check(&path) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_core::SystemClock;

    fn writer() -> AtomicWriter {
        AtomicWriter::new(Arc::new(SystemClock), Arc::new(Entropy::from_seed(1)))
    }

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        files
            .iter()
            .map(|(p, d, m)| ((*p).to_owned(), FileProjection { data: d.as_bytes().to_vec(), mode: *m }))
            .collect()
    }

    #[test]
    fn versions_follow_each_other_in_place() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("v");
        let check = |files: &[(&str, &str, u32)], changed: bool| {
            assert_eq!(writer().write(&dir, &payload(files), None).unwrap(), changed);
            let mut seen: Vec<String> = names(&dir).into_iter().filter(|n| !n.starts_with("..")).collect();
            seen.sort();
            let wanted: Vec<&str> =
                visible(&payload(files)).into_iter().map(|s| &*s.to_owned().leak()).collect();
            assert_eq!(seen, wanted);
            for (path, data, mode) in files {
                assert_eq!(fs::read_to_string(dir.join(path)).unwrap(), *data);
                assert_eq!(fs::metadata(dir.join(path)).unwrap().permissions().mode() & 0o777, *mode);
            }
            let versions = names(&dir).iter().filter(|n| n.starts_with("..2")).count();
            assert_eq!(versions, 1, "the old version is gone");
        };
        check(&[("a", "1", 0o644), ("d/b", "2", 0o400)], true);
        check(&[("a", "1", 0o644), ("d/b", "2", 0o400)], false);
        check(&[("a", "1", 0o600), ("d/b", "2", 0o400)], true);
        check(&[("c", "3", 0o644)], true);
        check(&[], true);
    }

    #[test]
    fn paths_may_not_leave_the_volume() {
        let root = tempfile::tempdir().unwrap();
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "..data", "a/./../b"] {
            let e = writer().write(root.path(), &payload(&[(bad, "", 0o644)]), None).unwrap_err();
            assert_eq!(e.reason(), crate::Reason::Invalid, "{bad}");
        }
        assert!(writer().write(root.path(), &payload(&[("a..b/c", "", 0o644)]), None).is_ok());
    }
}
