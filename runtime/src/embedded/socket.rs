//! Unix sockets in directories whose path may be longer than a socket's address allows, and the frames that cross them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The most that one frame carries.
pub(super) const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Binds a socket, replacing one that a dead process left.
pub(super) fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    through_directory(path, |short| std::os::unix::net::UnixListener::bind(short))
}

/// Connects to a socket.
pub(super) fn connect(path: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    through_directory(path, |short| std::os::unix::net::UnixStream::connect(short))
}

/// [`connect`] for tokio.
pub(super) fn connect_async(path: &Path) -> io::Result<tokio::net::UnixStream> {
    let stream = connect(path)?;
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

fn through_directory<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let (parent, name) = (path.parent().ok_or_else(invalid)?, path.file_name().ok_or_else(invalid)?);
    let directory = File::open(parent)?;
    act(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// A request or an answer in JSON.
    Json,
    Stdin,
    CloseStdin,
    Stdout,
    Stderr,
    /// Columns and rows, two bytes each, big endian.
    Resize,
}

const KINDS: [FrameKind; 6] = [
    FrameKind::Json,
    FrameKind::Stdin,
    FrameKind::CloseStdin,
    FrameKind::Stdout,
    FrameKind::Stderr,
    FrameKind::Resize,
];

/// Writes a frame: its kind in a byte, its length in four, big endian, its bytes.
pub(super) async fn write_frame(
    to: &mut (impl AsyncWrite + Unpin),
    kind: FrameKind,
    bytes: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut head = [kind as u8; 5];
    head[1..].copy_from_slice(&length.to_be_bytes());
    to.write_all(&head).await?;
    to.write_all(bytes).await
}

/// Reads a frame; `None` at the end. Not safe to drop in the middle.
pub(super) async fn read_frame(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(FrameKind, Vec<u8>)>> {
    let mut head = [0; 5];
    match from.read_exact(&mut head).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let kind = *KINDS.get(usize::from(head[0])).ok_or_else(|| io::Error::other("unknown kind of frame"))?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other("frame too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(Some((kind, bytes)))
}

/// Writes a value as a JSON frame.
pub(super) async fn write_value<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    value: &T,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::other)?;
    write_frame(to, FrameKind::Json, &bytes).await
}

/// Reads a value from a JSON frame; the end or another frame is an error.
pub(super) async fn read_value<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    match read_frame(from).await? {
        Some((FrameKind::Json, bytes)) => serde_json::from_slice(&bytes).map_err(io::Error::other),
        Some((kind, _)) => Err(io::Error::other(format!("expected an answer, got {kind:?}"))),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_cross_and_broken_ones_fail() {
        let mut wire = Vec::new();
        write_frame(&mut wire, FrameKind::Stdout, b"abc").await.unwrap();
        write_value(&mut wire, &7).await.unwrap();
        let mut from = wire.as_slice();
        assert_eq!(read_frame(&mut from).await.unwrap(), Some((FrameKind::Stdout, b"abc".to_vec())));
        assert_eq!(read_value::<i32>(&mut from).await.unwrap(), 7);
        assert_eq!(read_frame(&mut from).await.unwrap(), None);
        for bad in [&[9, 0, 0, 0, 0][..], &[0, 0xff, 0, 0, 0], &[0, 0, 0, 0, 9, 1]] {
            assert!(read_frame(&mut &bad[..]).await.is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_long_path_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join(super::super::spec::SOCKET_FILE);
        let _first = bind(&path).unwrap();
        let _second = bind(&path).unwrap();
        connect(&path).unwrap();
    }
}
