//! Files that hold secrets: written whole or not at all, readable by their owner only.

use super::TlsError;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Writes `text` to `path` with mode 0600, through a file beside it that is renamed at the end. Missing folders are made.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), TlsError> {
    let failed = |e| TlsError::file(path, e);
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| TlsError::file(folder, e))?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    // A leftover of a crash may have another mode.
    match fs::remove_file(beside) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(TlsError::file(beside, e)),
        _ => {}
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(beside, path).map_err(failed)
}

/// The text of a file, `None` where it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<String>, TlsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(TlsError::file(path, e)),
    }
}
/// The text of a secret file, made and written first where it does not exist.
pub(crate) fn read_or_create(
    path: &Path,
    create: impl FnOnce() -> Result<String, TlsError>,
) -> Result<String, TlsError> {
    if let Some(text) = read(path)? {
        return Ok(text);
    }
    let text = create()?;
    write_secret(path, &text)?;
    Ok(text)
}
