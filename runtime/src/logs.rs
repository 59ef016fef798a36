//! The CRI log format: `<time> <stdout|stderr> <P|F>[:tag...] <text>`, one record a line, written by runtimes and read by node agents.
//!
//! A line of the program that is longer than [`LINE_BYTES_MAX`] becomes several records tagged `P`, the last of them `F`.

mod reader;
mod tail;

pub use reader::{StillRunning, read};

use jiff::Timestamp;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes of a program's line after which the record is cut and tagged `P`.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Which stream of the program a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// The word in a record.
    pub fn as_str(self) -> &'static str {
        match self {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
        }
    }
}

/// One record of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// When the runtime read it.
    pub time: Timestamp,
    /// From which stream.
    pub stream: LogStream,
    /// Tagged `P`: the program's line goes on in the next record.
    pub partial: bool,
    /// The text, without the line's end.
    pub text: &'a [u8],
}

/// Why a line of a log file is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedRecord {
    /// A space between two fields is missing.
    #[error("the record has fewer than four fields")]
    Fields,
    /// The first field is not an RFC 3339 time.
    #[error("the record does not begin with a time")]
    Time,
    /// The second field is neither `stdout` nor `stderr`.
    #[error("the record names no stream")]
    Stream,
}

impl<'a> LogRecord<'a> {
    /// Reads one line, with or without its end.
    ///
    /// # Errors
    /// [`MalformedRecord`] where the line is no record.
    pub fn parse(line: &'a [u8]) -> Result<Self, MalformedRecord> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let mut next = || fields.next().ok_or(MalformedRecord::Fields);
        let (time, stream, tags, text) = (next()?, next()?, next()?, next()?);
        let time = std::str::from_utf8(time)
            .ok()
            .and_then(|time| time.parse::<Timestamp>().ok())
            .ok_or(MalformedRecord::Time)?;
        let stream = match stream {
            b"stdout" => LogStream::Stdout,
            b"stderr" => LogStream::Stderr,
            _ => return Err(MalformedRecord::Stream),
        };
        let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
        Ok(LogRecord { time, stream, partial, text })
    }

    /// Appends the record and its line's end.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        write_time(self.time, out);
        out.push(b' ');
        out.extend_from_slice(self.stream.as_str().as_bytes());
        out.extend_from_slice(if self.partial { b" P " } else { b" F " });
        out.extend_from_slice(self.text);
        out.push(b'\n');
    }
}

/// Appends a time with all nine digits, so that records sort as text.
pub(crate) fn write_time(time: Timestamp, out: &mut Vec<u8>) {
    out.extend_from_slice(time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string().as_bytes());
}

/// Cuts a program's bytes into records; one for each stream.
#[derive(Debug)]
pub struct LineSplitter {
    stream: LogStream,
    /// The line that has not ended yet.
    rest: Vec<u8>,
}

impl LineSplitter {
    /// A splitter with nothing in it.
    pub fn new(stream: LogStream) -> Self {
        LineSplitter { stream, rest: Vec::new() }
    }

    /// Takes what the program wrote and appends the records that are whole now.
    pub fn push(&mut self, mut bytes: &[u8], time: Timestamp, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.rest.len();
            let window = &bytes[..bytes.len().min(room + 1)];
            match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.emit(&bytes[..end], false, time, out);
                    bytes = &bytes[end + 1..];
                }
                None if window.len() > room => {
                    self.emit(&bytes[..room], true, time, out);
                    bytes = &bytes[room..];
                }
                None => {
                    self.rest.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    /// The program closed the stream: appends what is left as a last record without a line's end of its own.
    pub fn finish(&mut self, time: Timestamp, out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            self.emit(&[], true, time, out);
        }
    }

    fn emit(&mut self, end: &[u8], partial: bool, time: Timestamp, out: &mut Vec<u8>) {
        if self.rest.is_empty() {
            LogRecord { time, stream: self.stream, partial, text: end }.write_to(out);
            return;
        }
        self.rest.extend_from_slice(end);
        LogRecord { time, stream: self.stream, partial, text: &self.rest }.write_to(out);
        self.rest.clear();
    }
}

/// A log file that can be opened anew after it was moved away.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens a file for appending, making it and its directory where they are missing.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(LogFile { path: path.to_owned(), file })
    }

    /// Appends whole records.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.file.write_all(records)
    }

    /// Opens the path anew; the old file stays open where that fails.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let (mut splitter, mut out) = (LineSplitter::new(LogStream::Stdout), Vec::new());
        for chunk in chunks {
            splitter.push(chunk, Timestamp::UNIX_EPOCH, &mut out);
        }
        splitter.finish(Timestamp::UNIX_EPOCH, &mut out);
        out.split_inclusive(|byte| *byte == b'\n')
            .map(|line| LogRecord::parse(line).expect("what we write we can read"))
            .map(|record| (record.partial, record.text.to_vec()))
            .collect()
    }

    #[test]
    fn lines_become_records() {
        let check = |chunks: &[&[u8]], want: &[(bool, &[u8])]| {
            let want: Vec<_> = want.iter().map(|(partial, text)| (*partial, text.to_vec())).collect();
            assert_eq!(split(chunks), want);
        };
        check(&[], &[]);
        check(&[b"a\nb\n"], &[(false, b"a"), (false, b"b")]);
        check(&[b"a", b"b\n\n"], &[(false, b"ab"), (false, b"")]);
        check(&[b"no end"], &[(true, b"no end")]);
        let long = vec![b'x'; LINE_BYTES_MAX];
        check(&[&long, b"\n"], &[(false, &long)]);
        check(&[&long, b"y\n"], &[(true, &long), (false, b"y")]);
        let twice = vec![b'x'; 2 * LINE_BYTES_MAX + 3];
        check(&[&twice], &[(true, &long), (true, &long), (true, b"xxx")]);
    }

    #[test]
    fn records_are_read() {
        let check = |line: &str, want: Result<(LogStream, bool, &str), MalformedRecord>| {
            let got = LogRecord::parse(line.as_bytes());
            let got = got.map(|r| (r.stream, r.partial, std::str::from_utf8(r.text).unwrap().to_owned()));
            assert_eq!(got, want.map(|(s, p, t)| (s, p, t.to_owned())), "{line}");
        };
        check("2016-10-06T00:17:09.669794202Z stdout F a b\n", Ok((LogStream::Stdout, false, "a b")));
        check("2016-10-06T00:17:09.669794202+02:00 stderr P:x ", Ok((LogStream::Stderr, true, "")));
        check("2016-10-06T00:17:09Z stdout F", Err(MalformedRecord::Fields));
        check("yesterday stdout F x", Err(MalformedRecord::Time));
        check("2016-10-06T00:17:09Z stdlog F x", Err(MalformedRecord::Stream));
        check("", Err(MalformedRecord::Fields));
    }
}
