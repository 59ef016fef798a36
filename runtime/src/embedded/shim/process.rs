//! A program in a container as its supervisor holds it: the process, its pipes or its terminal.

use super::super::socket;
use super::super::spec::Spec;
use super::super::stage::{self, StageResult};
use crate::logs::LogStream;
use bytes::Bytes;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const INPUT_FRAMES_MAX: usize = 16;
/// How long a dead helper's socket is listened to.
const SILENCE_TIME_MAX: Duration = Duration::from_secs(1);
/// The words of a failed start are cut there.
const FAILURE_BYTES_MAX: u64 = 4096;

/// What is sent to a program.
pub(crate) enum Input {
    Bytes(Bytes),
    Resize { columns: u16, rows: u16 },
    Close,
}

/// Where a program's output is read from.
pub(super) enum Output {
    Stdout(ChildStdout),
    Stderr(ChildStderr),
    Terminal(pipe::Receiver),
}

impl Output {
    /// Reads what there is; 0 at the end.
    pub(super) async fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        match self {
            Output::Stdout(pipe) => pipe.read(block).await,
            Output::Stderr(pipe) => pipe.read(block).await,
            Output::Terminal(terminal) => match terminal.read(block).await {
                // The last process that had it open is gone.
                Err(e) if e.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => Ok(0),
                other => other,
            },
        }
    }
}

/// The supervisor's end of a pseudo terminal, for reading and for writing.
///
/// tokio's pipes are made of it since they only need a descriptor that can be polled.
struct Terminal {
    reader: pipe::Receiver,
    writer: pipe::Sender,
    /// The program's end.
    program_end: File,
}

impl Terminal {
    fn open() -> io::Result<Self> {
        use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = openpt(flags)?;
        grantpt(&controller)?;
        unlockpt(&controller)?;
        let program_end: OwnedFd = ioctl_tiocgptpeer(&controller, flags)?;
        rustix::io::ioctl_fionbio(&controller, true)?;
        let controller = File::from(controller);
        Ok(Terminal {
            reader: pipe::Receiver::from_file_unchecked(controller.try_clone()?)?,
            writer: pipe::Sender::from_file_unchecked(controller)?,
            program_end: File::from(program_end),
        })
    }
}

fn resize(terminal: &pipe::Sender, columns: u16, rows: u16) {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // A terminal that is gone has no size.
    let _ = rustix::termios::tcsetwinsize(terminal, size);
}

/// A started program.
pub(super) struct Program {
    pub(super) child: Child,
    pub(super) pid: i32,
    /// Where its input is sent; `None` where it has none.
    pub(super) input: Option<mpsc::Sender<Input>>,
    from_clients: Option<mpsc::Receiver<Input>>,
    stdin: Option<ChildStdin>,
    terminal: Option<pipe::Receiver>,
    terminal_input: Option<pipe::Sender>,
}

impl Program {
    /// Starts a container's first program.
    pub(super) async fn start(dir: &Path, spec: &Spec) -> StageResult<Self> {
        launch(dir, "start", &[], spec.tty, spec.stdin).await
    }

    /// Starts a further program beside the process `pid`.
    pub(super) async fn exec(
        dir: &Path,
        pid: i32,
        command: Vec<String>,
        tty: bool,
        stdin: bool,
    ) -> StageResult<Self> {
        let mut args = vec![pid.to_string(), if tty { "tty" } else { "-" }.to_owned()];
        args.extend(command);
        launch(dir, "exec", &args, tty, stdin).await
    }

    /// A task that carries input to the program; ends with the program or its input.
    pub(super) fn pump_input(&mut self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if let Some(from) = self.from_clients.take() {
            tasks.spawn(carry_input(from, self.stdin.take(), self.terminal_input.take()));
        }
        tasks
    }

    /// Its outputs, each to be read to the end.
    pub(super) fn outputs(&mut self) -> Vec<(LogStream, Output)> {
        let mut outputs = Vec::new();
        if let Some(terminal) = self.terminal.take() {
            outputs.push((LogStream::Stdout, Output::Terminal(terminal)));
        }
        outputs.extend(self.child.stdout.take().map(|pipe| (LogStream::Stdout, Output::Stdout(pipe))));
        outputs.extend(self.child.stderr.take().map(|pipe| (LogStream::Stderr, Output::Stderr(pipe))));
        outputs
    }
}

async fn launch(dir: &Path, stage: &str, args: &[String], tty: bool, stdin: bool) -> StageResult<Program> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("start-{}.sock", NEXT.fetch_add(1, Ordering::Relaxed));
    let path = dir.join(&name);
    let listener = socket::bind(&path).map_err(|e| format!("start socket: {e}"))?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(|e| e.to_string())?;
    let mut command = stage::command(stage, dir);
    command.arg(name).args(args);
    let mut terminal = None;
    if tty {
        let opened = Terminal::open().map_err(|e| format!("terminal: {e}"))?;
        let end = || opened.program_end.try_clone().map(Stdio::from).map_err(|e| format!("terminal: {e}"));
        command.stdin(end()?).stdout(end()?).stderr(end()?);
        terminal = Some((opened.reader, opened.writer));
    } else {
        command.stdin(if stdin { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let mut command = tokio::process::Command::from(command);
    let spawned = command.spawn();
    drop(command);
    let mut child = spawned.map_err(|e| format!("unable to start helper: {e}"))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or("the helper has no process id")?;
    // Waiting for a child closes its input, so that is taken before.
    let (stdin, takes_input) = (child.stdin.take(), stdin || tty);
    let told = {
        let heard = hear(&listener);
        tokio::pin!(heard);
        tokio::select! {
            told = &mut heard => told,
            // A program may have taken over and ended in the meantime: then the helper's silence is on its way.
            _ = child.wait() => match tokio::time::timeout(SILENCE_TIME_MAX, heard).await {
                Ok(told) => told,
                Err(_) => Err(format!("the helper died: {}", last_words(&mut child).await)),
            },
        }
    };
    let _ = std::fs::remove_file(path);
    told?;
    let (input, from_clients) = mpsc::channel(INPUT_FRAMES_MAX);
    let (terminal, terminal_input) = terminal.unzip();
    Ok(Program {
        child,
        pid,
        input: takes_input.then_some(input),
        from_clients: takes_input.then_some(from_clients),
        stdin,
        terminal,
        terminal_input,
    })
}

/// The end of the helper's socket without a word means that the program has taken over.
async fn hear(listener: &tokio::net::UnixListener) -> StageResult<()> {
    let (stream, _) = listener.accept().await.map_err(|e| format!("start socket: {e}"))?;
    let mut words = String::new();
    stream.take(FAILURE_BYTES_MAX).read_to_string(&mut words).await.map_err(|e| e.to_string())?;
    if words.is_empty() { Ok(()) } else { Err(words) }
}

async fn last_words(child: &mut Child) -> String {
    let mut words = String::new();
    if let Some(pipe) = child.stderr.take() {
        let _ = pipe.take(FAILURE_BYTES_MAX).read_to_string(&mut words).await;
    }
    words.trim().to_owned()
}

async fn carry_input(
    mut from: mpsc::Receiver<Input>,
    mut stdin: Option<ChildStdin>,
    mut terminal: Option<pipe::Sender>,
) {
    const END_OF_TRANSMISSION: &[u8] = &[4];
    while let Some(input) = from.recv().await {
        let result = match (input, &mut terminal, &mut stdin) {
            (Input::Bytes(bytes), Some(terminal), _) => terminal.write_all(&bytes).await,
            (Input::Bytes(bytes), None, Some(pipe)) => pipe.write_all(&bytes).await,
            (Input::Resize { columns, rows }, Some(terminal), _) => {
                resize(terminal, columns, rows);
                Ok(())
            }
            (Input::Close, Some(terminal), _) => terminal.write_all(END_OF_TRANSMISSION).await,
            (Input::Close, None, pipe) => {
                pipe.take();
                Ok(())
            }
            (Input::Bytes(_) | Input::Resize { .. }, None, _) => Ok(()),
        };
        if result.is_err() {
            // The program closed its input; what is still sent is thrown away, as a pipe's reader would have it.
            stdin = None;
        }
    }
}

/// The code that the specification wants: the program's own, or 128 and the signal that ended it.
pub(super) fn exit_code(status: io::Result<ExitStatus>) -> i32 {
    match status {
        Ok(status) => status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255),
        Err(_) => 255,
    }
}

/// Sends a signal to a program; SIGKILL reaches its whole process group.
pub(super) fn signal(pid: i32, number: i32) -> StageResult<()> {
    let signal = Signal::try_from(number).map_err(|_| format!("{number} is no signal"))?;
    if signal == Signal::SIGKILL {
        kill_group(pid);
    }
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(e) => Err(format!("signal {number}: {e}")),
    }
}

/// Kills a program's process group.
pub(super) fn kill_group(pid: i32) {
    // Gone is what it should be.
    let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Whether the kernel counted a kill for lack of memory: `oom_kill 1` in cgroup v1 and v2 alike.
pub(super) fn ran_out_of_memory(file: &Path) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
}
