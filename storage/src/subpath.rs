//! `subPath` of a volume mount: a path below a volume that can't lead out of it.

use crate::Error;
use std::path::{Component, Path, PathBuf};

/// The path of the node that `sub_path` of the volume at `volume` means. A missing one is made as a directory.
///
/// # Errors
/// `Invalid` for an absolute path, one with `..`, or one whose links lead out of the volume.
pub fn resolve(volume: &Path, sub_path: &str) -> Result<PathBuf, Error> {
    let relative = Path::new(sub_path);
    if relative.is_absolute() {
        return Err(Error::invalid(format!("subPath {sub_path:?} must be a relative path")));
    }
    if relative.components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(Error::invalid(format!("subPath {sub_path:?} must not contain '..'")));
    }
    let root = volume.canonicalize().map_err(|e| Error::io("cannot resolve", volume, &e))?;
    let full = volume.join(relative);
    match full.canonicalize() {
        Ok(real) => inside(&root, real, sub_path),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => create(&root, relative, sub_path),
        Err(e) => Err(Error::io("cannot resolve", &full, &e)),
    }
}

/// Makes the directories one by one, so that no link on the way leads out of the volume unseen.
fn create(root: &Path, relative: &Path, sub_path: &str) -> Result<PathBuf, Error> {
    let mut at = root.to_path_buf();
    for part in relative.components() {
        let Component::Normal(part) = part else { continue };
        let next = at.join(part);
        if next.symlink_metadata().is_err() {
            std::fs::create_dir(&next).map_err(|e| Error::io("cannot create", &next, &e))?;
        }
        let real = next.canonicalize().map_err(|e| Error::io("cannot resolve", &next, &e))?;
        at = inside(root, real, sub_path)?;
    }
    Ok(at)
}

fn inside(root: &Path, real: PathBuf, sub_path: &str) -> Result<PathBuf, Error> {
    if real.starts_with(root) {
        Ok(real)
    } else {
        Err(Error::invalid(format!("subPath {sub_path:?} is not inside its volume")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subpath_stays_inside_its_volume() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("v");
        std::fs::create_dir_all(volume.join("d")).unwrap();
        std::fs::write(volume.join("f"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("d", volume.join("in")).unwrap();
        let check = |sub: &str, wanted: Option<&str>| {
            let got = resolve(&volume, sub);
            match wanted {
                Some(path) => assert_eq!(got.unwrap(), volume.canonicalize().unwrap().join(path), "{sub}"),
                None => assert_eq!(got.unwrap_err().reason(), crate::Reason::Invalid, "{sub}"),
            }
        };
        check("d", Some("d"));
        check("f", Some("f"));
        check("in/new/deep", Some("d/new/deep"));
        check("new", Some("new"));
        for bad in ["/d", "../v", "d/../..", "out", "out/kubewright-test"] {
            check(bad, None);
        }
    }
}
