//! Where something is mounted in a root that is not trusted: links in it lead nowhere but into it.

use super::super::StageResult;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What has to be there to mount on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// The root of a container before it is entered.
pub(super) struct Root(OwnedFd);

/// An opened path in it.
pub(super) struct Target {
    file: OwnedFd,
    path: PathBuf,
}

impl Target {
    fn new(file: OwnedFd) -> Self {
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Target { file, path }
    }

    /// A path for system calls, good while this value lives.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_directory(&self) -> bool {
        rustix::fs::fstat(&self.file)
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
    }
}

impl Root {
    pub(super) fn open(path: &Path) -> StageResult<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        Ok(Root(opened.map_err(|e| format!("{}: {e}", path.display()))?))
    }

    /// What is at a path now, links followed, inside the root.
    pub(super) fn find(&self, path: &str) -> StageResult<Target> {
        self.look(path).map(Target::new).map_err(|e| format!("{path}: {e}"))
    }

    /// The same, made where it is missing together with the directories above it.
    pub(super) fn make(&self, path: &str, kind: Kind) -> StageResult<Target> {
        let mut above = String::from("/");
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return Err(format!("{path}: not a plain path"));
        }
        for (index, part) in parts.iter().enumerate() {
            let here = format!("{}/{part}", above.trim_end_matches('/'));
            if self.look(&here).is_err() {
                let last = index + 1 == parts.len();
                let kind = if last { kind } else { Kind::Directory };
                self.create(&above, part, kind).map_err(|e| format!("{here}: {e}"))?;
            }
            above = here;
        }
        self.find(&above)
    }

    /// A symbolic link, unless something of that name is there.
    pub(super) fn link(&self, path: &str, to: &str) -> StageResult<()> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.find(above)?;
        match rustix::fs::symlinkat(to, &directory.file, name) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(e) => Err(format!("{path}: {e}")),
        }
    }

    fn look(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        let path = match path.trim_start_matches('/') {
            "" => ".",
            rest => rest,
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.0, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
    }

    fn create(&self, above: &str, name: &str, kind: Kind) -> rustix::io::Result<()> {
        let directory = self.look(above)?;
        let made = match kind {
            Kind::Directory => rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)),
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o644))
                    .map(|file| drop(File::from(file)))
            }
        };
        match made {
            Err(rustix::io::Errno::EXIST) => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(inside.join("real")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink("/real", inside.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../outside", inside.join("out")).unwrap();
        let root = Root::open(&inside).unwrap();
        root.make("/absolute/sub/file", Kind::File).unwrap();
        assert!(inside.join("real/sub/file").is_file());
        assert!(root.make("/out/x", Kind::Directory).is_err());
        assert!(root.make("/a/../../x", Kind::Directory).is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert!(root.make("/deep/er", Kind::Directory).unwrap().is_directory());
        assert!(root.find("/nothing").is_err());
    }
}
