//! Reads a container's log as `kubectl logs` wants it: the last lines, since a time, at most so many bytes, following.

use super::{LogRecord, LogStream, tail, write_time};
use crate::{Error, Reason};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;
use kubewright_core::node_api::LogOptions;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Asked at the end of a followed file: whether the container may still write to it.
pub type StillRunning = Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// How much is read at once, and so the most that one item of the stream holds (times come on top).
const BLOCK_BYTES: usize = 64 * 1024;
/// A record longer than this is taken apart, so that a broken file can't fill memory.
const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(200);

/// The text of a container's log file, in chunks. `previous` of the options is the caller's choice of `path`.
///
/// With `follow`, the stream goes on through rotation of the file until `running` says no and all has been read; without, it
/// ends at the end of the file. Lines that are no records are passed over. Dropping the stream closes the file.
///
/// # Errors
/// `NotFound` where the file is missing, `Failed` where it can't be read; the stream's items fail in the same way.
///
/// # Cancel safety
/// Nothing is held after a drop.
pub async fn read(
    path: &Path,
    options: &LogOptions,
    running: Option<StillRunning>,
) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
    let file = open(path).await?;
    let inode = file.metadata().await.map_err(|e| failed(path, &e))?.ino();
    let mut reader = Reader {
        path: path.to_owned(),
        file,
        inode,
        pending: Vec::new(),
        filter: Filter::new(options),
        running: running.filter(|_| options.follow),
        ended: false,
    };
    if let Some(lines) = options.tail_lines {
        reader.seek_to_last(lines).await?;
    }
    Ok(Box::pin(futures::stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|chunk| (chunk, reader)))
    })))
}

struct Reader {
    path: PathBuf,
    file: File,
    /// Tells whether the path names another file by now.
    inode: u64,
    /// The bytes of a record that has not ended yet.
    pending: Vec<u8>,
    filter: Filter,
    /// `None` where the file isn't followed.
    running: Option<StillRunning>,
    /// The container had ended when the end was reached the last time.
    ended: bool,
}

impl Reader {
    async fn seek_to_last(&mut self, lines: u64) -> Result<(), Error> {
        let path = self.path.clone();
        let task = tokio::task::spawn_blocking(move || {
            std::fs::File::open(path).and_then(|mut file| tail::start_of_last(&mut file, lines))
        });
        let start = task.await.map_err(|e| Error::new(Reason::Failed, e.to_string()))?;
        let start = start.map_err(|e| failed(&self.path, &e))?;
        self.file.seek(std::io::SeekFrom::Start(start)).await.map_err(|e| failed(&self.path, &e))?;
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut block = vec![0; BLOCK_BYTES];
        while !self.filter.is_full() {
            let count = self.file.read(&mut block).await.map_err(|e| failed(&self.path, &e))?;
            let out = if count > 0 { self.take(&block[..count]) } else { Vec::new() };
            if !out.is_empty() {
                return Ok(Some(Bytes::from(out)));
            }
            if count == 0 && !self.wait_for_more().await? {
                let rest = std::mem::take(&mut self.pending);
                let mut out = Vec::new();
                self.filter.pass(&rest, &mut out);
                return Ok((!out.is_empty()).then(|| Bytes::from(out)));
            }
        }
        Ok(None)
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !line.ends_with(b"\n") || !self.pending.is_empty() {
                self.pending.extend_from_slice(line);
                if line.ends_with(b"\n") || self.pending.len() > RECORD_BYTES_MAX {
                    let record = std::mem::take(&mut self.pending);
                    self.filter.pass(&record, &mut out);
                }
                continue;
            }
            self.filter.pass(line, &mut out);
        }
        out
    }

    /// Whether it is worth while to read again.
    async fn wait_for_more(&mut self) -> Result<bool, Error> {
        let Some(running) = self.running.clone() else { return Ok(false) };
        if self.follow_rotation().await? {
            return Ok(true);
        }
        if self.ended {
            return Ok(false);
        }
        // What was written before the end was noticed is read in one more round.
        self.ended = !running().await;
        if !self.ended {
            tokio::time::sleep(POLL).await;
        }
        Ok(true)
    }

    async fn follow_rotation(&mut self) -> Result<bool, Error> {
        match tokio::fs::metadata(&self.path).await {
            Ok(now) if now.ino() != self.inode => {
                self.file = open(&self.path).await?;
                self.inode = now.ino();
                Ok(true)
            }
            Ok(_) => Ok(false),
            // Between the move and the reopening there is no file.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(failed(&self.path, &e)),
        }
    }
}

/// Which records are shown, and how.
struct Filter {
    since: Option<Timestamp>,
    stream: Option<LogStream>,
    timestamps: bool,
    bytes_left: Option<u64>,
    /// The record before was partial, so that this one begins no line.
    in_line: bool,
}

impl Filter {
    fn new(options: &LogOptions) -> Self {
        let stream = match options.stream.as_deref() {
            Some("Stdout") => Some(LogStream::Stdout),
            Some("Stderr") => Some(LogStream::Stderr),
            _ => None,
        };
        let (since, timestamps) = (options.since, options.timestamps);
        Filter { since, stream, timestamps, bytes_left: options.limit_bytes, in_line: false }
    }

    fn is_full(&self) -> bool {
        self.bytes_left == Some(0)
    }

    fn pass(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Ok(record) = LogRecord::parse(line) else { return };
        if self.since.is_some_and(|since| record.time < since)
            || self.stream.is_some_and(|stream| record.stream != stream)
        {
            return;
        }
        let before = out.len();
        if self.timestamps && !self.in_line {
            write_time(record.time, out);
            out.push(b' ');
        }
        out.extend_from_slice(record.text);
        self.in_line = record.partial;
        if !record.partial {
            out.push(b'\n');
        }
        if let Some(left) = &mut self.bytes_left {
            let added = ((out.len() - before) as u64).min(*left);
            out.truncate(before + added as usize);
            *left -= added;
        }
    }
}

async fn open(path: &Path) -> Result<File, Error> {
    File::open(path).await.map_err(|e| failed(path, &e))
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    let reason = match error.kind() {
        std::io::ErrorKind::NotFound => Reason::NotFound,
        _ => Reason::Failed,
    };
    Error::new(reason, format!("failed to read log file {:?}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::{LineSplitter, LogFile};
    use futures::TryStreamExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn second(n: i64) -> Timestamp {
        Timestamp::from_second(n).unwrap()
    }

    /// Lines `1` to `5` at the seconds 1 to 5, the odd ones on the standard output.
    fn sample(dir: &Path) -> PathBuf {
        let path = dir.join("0.log");
        let mut file = LogFile::open(&path).unwrap();
        let mut out = Vec::new();
        for n in 1..=5 {
            let stream = if n % 2 == 1 { LogStream::Stdout } else { LogStream::Stderr };
            LineSplitter::new(stream).push(format!("{n}\n").as_bytes(), second(n), &mut out);
        }
        file.append(&out).unwrap();
        path
    }

    async fn text(path: &Path, options: LogOptions) -> String {
        let stream = read(path, &options, None).await.unwrap();
        let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }

    #[tokio::test]
    async fn options_narrow_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample(dir.path());
        let all = LogOptions::default;
        let check = async |options: LogOptions, want: &str| assert_eq!(text(&path, options).await, want);
        check(all(), "1\n2\n3\n4\n5\n").await;
        check(LogOptions { tail_lines: Some(2), ..all() }, "4\n5\n").await;
        check(LogOptions { tail_lines: Some(0), ..all() }, "").await;
        check(LogOptions { since: Some(second(4)), ..all() }, "4\n5\n").await;
        check(LogOptions { limit_bytes: Some(3), ..all() }, "1\n2").await;
        check(LogOptions { limit_bytes: Some(0), ..all() }, "").await;
        check(LogOptions { stream: Some("Stderr".into()), ..all() }, "2\n4\n").await;
        let stamped = LogOptions { timestamps: true, tail_lines: Some(1), ..all() };
        check(stamped, "1970-01-01T00:00:05.000000000Z 5\n").await;
    }

    #[tokio::test]
    async fn partial_records_are_joined_and_others_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let lines = "1970-01-01T00:00:01Z stdout P ab\nnonsense\n1970-01-01T00:00:02Z stdout F cd\n";
        std::fs::write(&path, lines).unwrap();
        let options = LogOptions { timestamps: true, ..LogOptions::default() };
        assert_eq!(text(&path, options).await, "1970-01-01T00:00:01.000000000Z abcd\n");
    }

    #[tokio::test]
    async fn a_missing_file_is_not_found() {
        let error = read(Path::new("/nowhere/0.log"), &LogOptions::default(), None).await.err().unwrap();
        assert_eq!(error.reason(), Reason::NotFound);
    }

    #[tokio::test]
    async fn following_goes_through_rotation_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample(dir.path());
        let running = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&running);
        let still: StillRunning = Arc::new(move || {
            let answer = asked.load(Ordering::SeqCst);
            Box::pin(async move { answer })
        });
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let mut stream = read(&path, &options, Some(still)).await.unwrap();
        assert_eq!(stream.try_next().await.unwrap().unwrap(), "1\n2\n3\n4\n5\n");
        std::fs::rename(&path, dir.path().join("0.log.old")).unwrap();
        std::fs::write(&path, "1970-01-01T00:00:06Z stdout F 6\n").unwrap();
        assert_eq!(stream.try_next().await.unwrap().unwrap(), "6\n");
        running.store(false, Ordering::SeqCst);
        assert_eq!(stream.try_next().await.unwrap(), None);
    }
}
