//! The audit log as a file: a JSON document a line, turned over by size, age and number of old files.

use super::AuditSink;
use super::event::Event;
use futures::future::BoxFuture;
use jiff::Timestamp;
use kubewright_core::SharedClock;
use parking_lot::Mutex;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// When a log file is turned over, and how long old ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of a file before it is turned over; 0 never turns over.
    pub file_bytes_max: u64,
    /// Old files kept; 0 keeps all.
    pub files_max: usize,
    /// Age after which an old file is deleted; zero keeps all.
    pub age_max: Duration,
}

impl Default for Rotation {
    /// 100 MiB, and everything is kept, as upstream has it.
    fn default() -> Self {
        Rotation { file_bytes_max: 100 << 20, files_max: 0, age_max: Duration::ZERO }
    }
}

/// Writes events to a file (mode 0600), or to the standard output for the path `-`.
pub struct LogSink(Arc<Log>);

struct Log {
    path: PathBuf,
    rotation: Rotation,
    clock: SharedClock,
    open: Mutex<Option<(File, u64)>>,
}

impl LogSink {
    /// A log at this path, whose file is made at the first event.
    pub fn new(path: impl Into<PathBuf>, rotation: Rotation, clock: SharedClock) -> Self {
        LogSink(Arc::new(Log { path: path.into(), rotation, clock, open: Mutex::new(None) }))
    }
}

impl std::fmt::Debug for LogSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogSink({})", self.0.path.display())
    }
}

impl AuditSink for LogSink {
    fn name(&self) -> &'static str {
        "log"
    }

    fn write(&self, events: Vec<Arc<Event>>) -> BoxFuture<'_, Result<(), String>> {
        let log = self.0.clone();
        Box::pin(async move {
            let work = tokio::task::spawn_blocking(move || log.write(&events));
            work.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
        })
    }
}

impl Log {
    fn write(&self, events: &[Arc<Event>]) -> io::Result<()> {
        let mut lines = Vec::with_capacity(events.len() * 1024);
        for event in events {
            serde_json::to_writer(&mut lines, &event.to_value())?;
            lines.push(b'\n');
        }
        if self.path == Path::new("-") {
            return io::stdout().lock().write_all(&lines);
        }
        let mut open = self.open.lock();
        let full = |size: u64| {
            let max = self.rotation.file_bytes_max;
            max > 0 && size > 0 && size + lines.len() as u64 > max
        };
        if open.as_ref().is_none_or(|_| !self.path.exists()) {
            *open = Some(self.opened()?);
        }
        if open.as_ref().is_some_and(|(_, size)| full(*size)) {
            *open = None;
            self.turn_over()?;
            *open = Some(self.opened()?);
        }
        if let Some((file, size)) = open.as_mut() {
            file.write_all(&lines)?;
            *size += lines.len() as u64;
        }
        Ok(())
    }

    fn opened(&self) -> io::Result<(File, u64)> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    /// `audit.log` becomes `audit-2026-01-31T10-00-00.000.log`; old ones go.
    fn turn_over(&self) -> io::Result<()> {
        let now = self.clock.now();
        let (stem, end) = self.names();
        let stamp = |now: Timestamp| now.strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string();
        let mut number = 0;
        let backup = loop {
            let extra = if number == 0 { String::new() } else { format!(".{number}") };
            let path = self.folder().join(format!("{stem}-{}{extra}{end}", stamp(now)));
            if !path.exists() {
                break path;
            }
            number += 1;
        };
        fs::rename(&self.path, backup)?;
        let mut old = self.backups()?;
        let oldest = now - jiff::SignedDuration::try_from(self.rotation.age_max).unwrap_or_default();
        let keep = match self.rotation.files_max {
            0 => 0,
            max => old.len().saturating_sub(max),
        };
        let mut gone: Vec<PathBuf> = old.drain(..keep).collect();
        if !self.rotation.age_max.is_zero() {
            let prefix = format!("{stem}-{}", stamp(oldest));
            let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            gone.extend(old.into_iter().filter(|path| name(path) < prefix));
        }
        for path in gone {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// The old files, oldest first.
    fn backups(&self) -> io::Result<Vec<PathBuf>> {
        let (stem, end) = self.names();
        let prefix = format!("{stem}-");
        let mut found = Vec::new();
        for entry in fs::read_dir(self.folder())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let dated =
                name.strip_prefix(&prefix).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
            if dated && name.ends_with(&end) {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }

    fn folder(&self) -> PathBuf {
        match self.path.parent().filter(|p| !p.as_os_str().is_empty()) {
            Some(folder) => folder.to_owned(),
            None => PathBuf::from("."),
        }
    }

    fn names(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let end = self.path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
        (text(self.path.file_stem()), end)
    }
}
