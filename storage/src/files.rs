//! File helpers that several plugins share.

use crate::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Makes a directory with exactly these permission bits; one that exists is left as it is.
pub(crate) fn make_dir(dir: &Path, mode: u32) -> Result<(), Error> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(|e| Error::io("cannot create", dir, &e))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
        .map_err(|e| Error::io("cannot set the mode of", dir, &e))
}

/// Gives a path to a group, where this process may; otherwise the owner stays, which an ordinary user can't change.
pub(crate) fn give_to_group(path: &Path, group: u32) {
    let gid = nix::unistd::Gid::from_raw(group);
    if let Err(e) = nix::unistd::chown(path, None, Some(gid)) {
        tracing::debug!(path = %path.display(), group, error = %e, "the group stays as it is");
    }
}

/// Removes a tree; one that is gone is no error.
pub(crate) fn remove_tree(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("cannot remove", dir, &e)),
        _ => Ok(()),
    }
}

/// Runs file work away from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::new(crate::Reason::Failed, format!("the file work was ended: {e}"))),
    }
}
