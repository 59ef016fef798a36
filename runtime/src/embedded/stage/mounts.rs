//! A container's view of the file system: its root, the kernel's file systems, devices and volumes.

mod target;

use super::StageResult;
use crate::embedded::spec::{Rootfs, Spec};
use crate::port::{Mount, MountPropagation};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::path::Path;
use target::{Kind, Root};

const NONE: Option<&str> = None;
/// Device nodes that every container has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
    ("dev/ptmx", "pts/ptmx"),
];

/// Builds the file system of a container in the caller's own mount namespace, and makes it the root.
pub(super) fn enter(spec: &Spec) -> StageResult<()> {
    // What is mounted here must not reach the machine; what the machine mounts may reach us.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE).map_err(|e| format!("mount /: {e}"))?;
    let merged = spec.dir.join("rootfs");
    mount_root(spec, &merged)?;
    let root = Root::open(&merged)?;
    kernel_file_systems(spec, &root)?;
    devices(spec, &root)?;
    let mut volumes: Vec<&Mount> = spec.mounts.iter().collect();
    volumes.sort_by_key(|volume| volume.container_path.split('/').filter(|part| !part.is_empty()).count());
    for volume in volumes {
        bind_volume(&root, volume)?;
    }
    if !spec.rights.privileged {
        hide(spec, &root)?;
    }
    if spec.readonly_rootfs {
        remount_readonly(&merged).map_err(|e| format!("read-only root: {e}"))?;
    }
    pivot(&merged)
}

/// Tries whether overlayfs works on a directory's file system, in the caller's namespaces.
pub(super) fn try_overlay(dir: &Path, user_xattr: bool) -> StageResult<()> {
    let at = |name: &str| dir.join(format!("probe-{}-{name}", std::process::id()));
    let (names, made) = (["lower", "upper", "work", "rootfs"], |name: &&str| std::fs::create_dir(at(name)));
    let result = names.iter().try_for_each(made).map_err(|e| e.to_string()).and_then(|()| {
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(|e| e.to_string())?;
        let options =
            overlay_options(&at("lower").display().to_string(), &at("upper"), &at("work"), user_xattr);
        mount(Some("overlay"), &at("rootfs"), Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .map_err(|e| e.to_string())?;
        let written = std::fs::write(at("rootfs").join("file"), "x").map_err(|e| e.to_string());
        umount2(&at("rootfs"), MntFlags::MNT_DETACH).map_err(|e| e.to_string())?;
        written
    });
    for name in names {
        // The kernel leaves a directory without permissions in the work directory.
        let _ = std::fs::remove_dir(at(name).join("work"));
        let _ = std::fs::remove_dir_all(at(name));
    }
    result
}

fn overlay_options(lower: &str, upper: &Path, work: &Path, user_xattr: bool) -> String {
    let more = if user_xattr { ",userxattr" } else { "" };
    format!("lowerdir={lower},upperdir={},workdir={}{more}", upper.display(), work.display())
}

fn mount_root(spec: &Spec, merged: &Path) -> StageResult<()> {
    match &spec.rootfs {
        Rootfs::Overlay { layers, names, user_xattr } => {
            // Names relative to the working directory keep the options within their one page.
            std::env::set_current_dir(layers).map_err(|e| format!("layers: {e}"))?;
            let lower: Vec<&str> = names.iter().rev().map(String::as_str).collect();
            let (upper, work) = (spec.dir.join("upper"), spec.dir.join("work"));
            let options = overlay_options(&lower.join(":"), &upper, &work, *user_xattr);
            mount(Some("overlay"), merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
                .map_err(|e| format!("overlay: {e}"))
        }
        Rootfs::Copy => mount(Some(merged), merged, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
            .map_err(|e| format!("root: {e}")),
    }
}

fn kernel_file_systems(spec: &Spec, root: &Root) -> StageResult<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = root.make("/proc", Kind::Directory)?;
    if mount(Some("proc"), proc.path(), Some("proc"), plain, NONE).is_err() {
        // Where the machine's own /proc is partly hidden, only that one may be shown.
        bind(Path::new("/proc"), &proc).map_err(|e| format!("/proc: {e}"))?;
    }
    let sys = root.make("/sys", Kind::Directory)?;
    let readonly = if spec.rights.privileged { MsFlags::empty() } else { MsFlags::MS_RDONLY };
    if mount(Some("sysfs"), sys.path(), Some("sysfs"), plain | readonly, NONE).is_err() {
        // With the machine's network only the machine's /sys may be shown.
        bind(Path::new("/sys"), &sys).map_err(|e| format!("/sys: {e}"))?;
        if !spec.rights.privileged {
            remount_readonly(root.find("/sys")?.path()).map_err(|e| format!("/sys: {e}"))?;
        }
    }
    Ok(())
}

fn devices(spec: &Spec, root: &Root) -> StageResult<()> {
    let dev = root.make("/dev", Kind::Directory)?;
    if spec.rights.privileged {
        return bind(Path::new("/dev"), &dev).map_err(|e| format!("/dev: {e}"));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME;
    mount(Some("tmpfs"), dev.path(), Some("tmpfs"), flags, Some("mode=755,size=65536k"))
        .map_err(|e| format!("/dev: {e}"))?;
    for name in DEVICES {
        let path = format!("/dev/{name}");
        if Path::new(&path).exists() {
            let target = root.make(&path, Kind::File)?;
            bind(Path::new(&path), &target).map_err(|e| format!("{path}: {e}"))?;
        }
    }
    for device in &spec.devices {
        let target = root.make(&device.container_path, Kind::File)?;
        bind(Path::new(&device.host_path), &target)
            .map_err(|e| format!("device {}: {e}", device.host_path))?;
    }
    let pts = root.make("/dev/pts", Kind::Directory)?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("devpts"), pts.path(), Some("devpts"), quiet, Some("newinstance,ptmxmode=0666,mode=0620"))
        .map_err(|e| format!("/dev/pts: {e}"))?;
    let shm = root.make("/dev/shm", Kind::Directory)?;
    mount(Some("shm"), shm.path(), Some("tmpfs"), quiet | MsFlags::MS_NODEV, Some("mode=1777,size=65536k"))
        .map_err(|e| format!("/dev/shm: {e}"))?;
    let queue = root.make("/dev/mqueue", Kind::Directory)?;
    // Not every kernel has it.
    let _ = mount(Some("mqueue"), queue.path(), Some("mqueue"), quiet | MsFlags::MS_NODEV, NONE);
    for (name, to) in DEVICE_LINKS {
        root.link(name, to)?;
    }
    Ok(())
}

fn bind_volume(root: &Root, volume: &Mount) -> StageResult<()> {
    let say = |e: &dyn std::fmt::Display| {
        format!("mount {:?} to {:?}: {e}", volume.host_path, volume.container_path)
    };
    let source = Path::new(&volume.host_path);
    let kind = match std::fs::metadata(source).map_err(|e| say(&e))?.is_dir() {
        true => Kind::Directory,
        false => Kind::File,
    };
    let target = root.make(&volume.container_path, kind).map_err(|e| say(&e))?;
    bind(source, &target).map_err(|e| say(&e))?;
    let target = root.find(&volume.container_path).map_err(|e| say(&e))?;
    let propagation = match volume.propagation {
        MountPropagation::Private => MsFlags::MS_PRIVATE,
        MountPropagation::HostToContainer => MsFlags::MS_SLAVE,
        MountPropagation::Bidirectional => MsFlags::MS_SHARED,
    };
    mount(NONE, target.path(), NONE, propagation | MsFlags::MS_REC, NONE).map_err(|e| say(&e))?;
    if volume.readonly {
        remount_readonly(target.path()).map_err(|e| say(&e))?;
    }
    Ok(())
}

/// Masked and read-only paths; those that are not there need nothing.
fn hide(spec: &Spec, root: &Root) -> StageResult<()> {
    for path in &spec.rights.masked_paths {
        let Ok(target) = root.find(path) else { continue };
        let covered = if target.is_directory() {
            let flags = MsFlags::MS_RDONLY;
            mount(Some("tmpfs"), target.path(), Some("tmpfs"), flags, Some("size=0k,mode=000"))
        } else {
            bind(Path::new("/dev/null"), &target)
        };
        covered.map_err(|e| format!("masked path {path}: {e}"))?;
    }
    for path in &spec.rights.readonly_paths {
        let Ok(target) = root.find(path) else { continue };
        let source = target.path().to_owned();
        bind(&source, &target).map_err(|e| format!("read-only path {path}: {e}"))?;
        remount_readonly(root.find(path)?.path()).map_err(|e| format!("read-only path {path}: {e}"))?;
    }
    Ok(())
}

fn bind(source: &Path, target: &target::Target) -> nix::Result<()> {
    mount(Some(source), target.path(), NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
}

/// Flags that a less privileged namespace may not take off have to be given again.
fn remount_readonly(path: &Path) -> nix::Result<()> {
    let now = statvfs(path)?.flags();
    let same = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (is, keep) in same {
        if now.contains(is) {
            flags |= keep;
        }
    }
    mount(NONE, path, NONE, flags, NONE)
}

fn pivot(merged: &Path) -> StageResult<()> {
    std::env::set_current_dir(merged).map_err(|e| format!("root: {e}"))?;
    // The old root is stacked on the new one, so no directory is needed for it.
    nix::unistd::pivot_root(".", ".").map_err(|e| format!("pivot_root: {e}"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|e| format!("old root: {e}"))?;
    std::env::set_current_dir("/").map_err(|e| format!("new root: {e}"))
}
