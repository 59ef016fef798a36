//! A container's root file system on disk, and the files that a sandbox puts into it.

use super::Isolation;
use super::spec::{Rootfs, SandboxRecord, Spec};
use super::stage::Probe;
use crate::images::StoredImage;
use crate::port::Mount;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// overlayfs takes its layers in one page of options, each name being 64 characters and a colon.
const OVERLAY_LAYERS_MAX: usize = 50;
const HOST_FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// How an image becomes a root here.
pub(super) fn kind(probe: Probe, isolation: Isolation, layers: &Path, image: &StoredImage) -> Rootfs {
    let fits = image.layers.len() <= OVERLAY_LAYERS_MAX;
    if isolation == Isolation::Process || !probe.overlay || !fits {
        return Rootfs::Copy;
    }
    let mut names = image.layers.clone();
    if names.is_empty() {
        names.push(crate::images::EMPTY_LAYER.to_owned());
    }
    // In a user namespace overlayfs keeps its notes where an ordinary user may write them.
    let user_xattr = isolation == Isolation::UserNamespace;
    Rootfs::Overlay { layers: layers.to_owned(), names, user_xattr }
}

/// Makes the directories of a container. Blocks.
pub(super) fn prepare(spec: &Spec, layers: &Path, names: &[String]) -> io::Result<()> {
    std::fs::create_dir_all(&spec.dir)?;
    let root = spec.dir.join("rootfs");
    std::fs::create_dir(&root)?;
    match &spec.rootfs {
        Rootfs::Overlay { .. } => {
            std::fs::create_dir(spec.dir.join("upper"))?;
            std::fs::set_permissions(spec.dir.join("upper"), std::fs::Permissions::from_mode(0o755))?;
            std::fs::create_dir(spec.dir.join("work"))?;
        }
        Rootfs::Copy => crate::images::merge_layers(layers, names, &root)?,
    }
    if !spec.new_root {
        spec.mounts.iter().try_for_each(|mount| link_volume(&root, mount))?;
    }
    Ok(())
}

/// Without a mount namespace a volume is a link to where it is on the machine.
fn link_volume(root: &Path, mount: &Mount) -> io::Result<()> {
    let relative = mount.container_path.trim_start_matches('/');
    if relative.is_empty() || relative.split('/').any(|part| part == "..") {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("mount at {:?}", mount.container_path),
        ));
    }
    let at = root.join(relative);
    if let Some(parent) = at.parent() {
        // A link in the image could lead out of it: then there is no volume, but no harm either.
        std::fs::create_dir_all(parent)?;
        if !parent.canonicalize()?.starts_with(root.canonicalize()?) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a link leads out of the image"));
        }
    }
    match std::fs::symlink_metadata(&at) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(&at)?,
        Ok(_) => std::fs::remove_file(&at)?,
        Err(_) => {}
    }
    symlink(&mount.host_path, &at)
}

/// Writes `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a sandbox.
pub(super) fn write_host_files(dir: &Path, record: &SandboxRecord) -> io::Result<()> {
    let (hostname, mut hosts) =
        (&record.config.hostname, "127.0.0.1\tlocalhost\n::1\tlocalhost\n".to_owned());
    if let (Some(ip), false) = (record.ip, hostname.is_empty()) {
        hosts.push_str(&format!("{ip}\t{hostname}\n"));
    }
    let machine = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let name = if hostname.is_empty() { machine("/etc/hostname") } else { format!("{hostname}\n") };
    let resolv = match &record.config.dns {
        None => machine("/etc/resolv.conf"),
        Some(dns) => {
            let mut lines: Vec<String> = Vec::new();
            if !dns.searches.is_empty() {
                lines.push(format!("search {}", dns.searches.join(" ")));
            }
            lines.extend(dns.servers.iter().map(|server| format!("nameserver {server}")));
            if !dns.options.is_empty() {
                lines.push(format!("options {}", dns.options.join(" ")));
            }
            lines.into_iter().map(|line| line + "\n").collect()
        }
    };
    for (file, text) in HOST_FILES.iter().zip([name, hosts, resolv]) {
        std::fs::write(dir.join(file), text)?;
        std::fs::set_permissions(dir.join(file), std::fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// The mounts of those files, but for those that the caller mounts itself.
pub(super) fn host_file_mounts(sandbox: &Path, own: &[Mount]) -> Vec<Mount> {
    let mounts = HOST_FILES.iter().map(|file| Mount {
        container_path: format!("/etc/{file}"),
        host_path: sandbox.join(file).display().to_string(),
        ..Mount::default()
    });
    mounts.filter(|mount| own.iter().all(|other| other.container_path != mount.container_path)).collect()
}

/// Removes a directory with all that is in it, also what its permissions protect; one that is gone is no error. Blocks.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            std::fs::remove_dir_all(path)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open_up(path: &Path) {
    if !std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        return;
    }
    // What can't be opened is reported by the removal.
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        open_up(&entry.path());
    }
}
