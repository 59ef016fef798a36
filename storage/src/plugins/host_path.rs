//! `hostPath`: a path of the node, checked by its `type`.

use crate::{Error, MountRequest, Mounted, Reason, VolumePlugin, files};
use futures::future::{BoxFuture, ready};
use k8s_openapi::api::core::v1::Volume;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// Implements `hostPath`.
#[derive(Debug, Default)]
pub struct HostPathPlugin;

/// Checks a path of the node as its `type` demands, making it where the type says so.
pub(super) fn prepare(path: &Path, kind: &str) -> Result<(), Error> {
    if path.components().any(|c| c == std::path::Component::ParentDir) {
        return Err(Error::invalid(format!("hostPath {} must not contain '..'", path.display())));
    }
    let found = match fs::metadata(path) {
        Ok(m) => Some(m.file_type()),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
        Err(e) => return Err(Error::io("cannot look at", path, &e)),
    };
    let fails = |what: &str| {
        let message = format!("hostPath type check failed: {} is not a {what}", path.display());
        Err(Error::new(Reason::NotFound, message))
    };
    match (kind, found) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", None) => files::make_dir(path, 0o755),
        ("FileOrCreate", None) => make_file(path),
        ("DirectoryOrCreate" | "Directory", Some(t)) if t.is_dir() => Ok(()),
        ("FileOrCreate" | "File", Some(t)) if t.is_file() => Ok(()),
        ("Socket", Some(t)) if t.is_socket() => Ok(()),
        ("CharDevice", Some(t)) if t.is_char_device() => Ok(()),
        ("BlockDevice", Some(t)) if t.is_block_device() => Ok(()),
        ("DirectoryOrCreate" | "Directory", _) => fails("directory"),
        ("FileOrCreate" | "File", _) => fails("file"),
        ("Socket", _) => fails("socket file"),
        ("CharDevice", _) => fails("character device"),
        ("BlockDevice", _) => fails("block device"),
        (other, _) => Err(Error::invalid(format!("{other} is an invalid volume type"))),
    }
}

fn make_file(path: &Path) -> Result<(), Error> {
    // As upstream: the parent directory must be there already.
    fs::File::create_new(path).map_err(|e| Error::io("cannot create", path, &e))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        .map_err(|e| Error::io("cannot set the mode of", path, &e))
}

impl VolumePlugin for HostPathPlugin {
    fn name(&self) -> &'static str {
        "kubernetes.io/host-path"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.host_path.is_some()
    }

    fn mount<'a>(&'a self, r: MountRequest<'a>) -> BoxFuture<'a, Result<Mounted, Error>> {
        let Some(spec) = r.volume.host_path.clone() else {
            return Box::pin(ready(Err(Error::invalid("the volume is no hostPath"))));
        };
        Box::pin(files::blocking(move || {
            let path = Path::new(&spec.path);
            prepare(path, spec.type_.as_deref().unwrap_or(""))?;
            Ok(Mounted::at(path))
        }))
    }

    fn unmount<'a>(&'a self, _dir: &'a Path) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(ready(Ok(())))
    }

    fn follows_source(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("sock")).unwrap();
        let check = |name: &str, kind: &str, ok: bool| {
            assert_eq!(prepare(&at(name), kind).is_ok(), ok, "{name} as {kind}");
        };
        for (kind, good) in [("Directory", "dir"), ("File", "file"), ("Socket", "sock")] {
            for name in ["dir", "file", "sock", "none"] {
                check(name, kind, name == good);
            }
        }
        check("none", "", true);
        check("file", "DirectoryOrCreate", false);
        check("new/dir", "DirectoryOrCreate", true);
        assert!(at("new/dir").is_dir());
        check("dir", "FileOrCreate", false);
        check("made", "FileOrCreate", true);
        assert!(at("made").is_file());
        check("no-parent/f", "FileOrCreate", false);
        check("dir", "Elsewhere", false);
        check("dir", "BlockDevice", false);
        assert!(prepare(Path::new("/dev/null"), "CharDevice").is_ok());
        assert!(prepare(&at("dir/../dir"), "").is_err());
    }
}
