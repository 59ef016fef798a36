//! The example cluster as a child process, for the tests that look at it from outside.

#![allow(dead_code, reason = "each test uses its part")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a start, a run or an end may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(90);

/// The example's binary, built beside this test.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    test.parent().and_then(Path::parent).expect("target/<profile>").join("examples/cluster")
}

/// Where `test.sh` puts the foreign clients (tests/clients/install.py): beside the profiles of the target directory.
pub(crate) fn parts() -> PathBuf {
    let beside = || Some(program().parent()?.parent()?.parent()?.join("parts"));
    let chosen = std::env::var_os("KUBEWRIGHT_PARTS").map(PathBuf::from);
    chosen.or_else(beside).expect("target/<profile>/examples/cluster")
}

/// How the example is started: its data below a folder, a free port, its kubeconfig and log in the folder itself.
pub(crate) struct Launch {
    folder: PathBuf,
    /// What stands in front of the program: `setpriv ...`, `unshare ...`.
    through: Vec<String>,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    stdin: String,
}

impl Launch {
    pub(crate) fn new(folder: &Path) -> Self {
        let path = |name: &str| folder.join(name).display().to_string();
        Launch::bare(folder).args(&["--data", &path("data"), "--kubeconfig", &path("kubeconfig")])
    }

    /// With the example's own choice of its folders.
    pub(crate) fn bare(folder: &Path) -> Self {
        let launch = Launch {
            folder: folder.to_owned(),
            through: Vec::new(),
            program: program(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: String::new(),
        };
        launch.args(&["--listen", "127.0.0.1:0"])
    }

    /// More arguments; an option that was given already is replaced.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        for word in args {
            if let Some(at) = self.args.iter().position(|a| a == word && a.starts_with("--")) {
                let value = self.args.get(at + 1).is_some_and(|v| !v.starts_with("--"));
                self.args.drain(at..=at + usize::from(value));
            }
            self.args.push((*word).to_owned());
        }
        self
    }

    pub(crate) fn through(mut self, words: &[&str]) -> Self {
        self.through = words.iter().map(|w| (*w).to_owned()).collect();
        self
    }

    /// Another copy of the program.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &Path) -> Self {
        self.env.push((name.to_owned(), value.display().to_string()));
        self
    }

    pub(crate) fn stdin(mut self, text: &str) -> Self {
        text.clone_into(&mut self.stdin);
        self
    }

    fn command(&self) -> Command {
        let program = self.program.display().to_string();
        let mut words = self.through.iter().chain([&program]).chain(&self.args);
        let mut command = Command::new(words.next().expect("the program at least"));
        command.args(words).envs(self.env.iter().cloned()).env_remove("RUST_LOG");
        command
    }

    /// Runs it to its end.
    pub(crate) fn finish(self) -> Finished {
        let mut command = self.command();
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the example cluster is built");
        let _ = child.stdin.take().expect("piped").write_all(self.stdin.as_bytes());
        let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let stdout = std::thread::spawn(move || text(&mut out));
        let stderr = std::thread::spawn(move || text(&mut err));
        let code = ended(&mut child);
        if code.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let (stdout, stderr) = (stdout.join().expect("read"), stderr.join().expect("read"));
        Finished { code, stdout, stderr }
    }

    /// Starts it to stay up; what it prints goes into `log` of the folder.
    pub(crate) fn spawn(self) -> Running {
        // An old kubeconfig has another port.
        let _ = std::fs::remove_file(self.folder.join("kubeconfig"));
        let log = std::fs::File::create(self.folder.join("log")).expect("a log");
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        Running { child: command.spawn().expect("the example cluster is built"), folder: self.folder }
    }
}

fn text(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The exit code; `None` where it was ended by a signal, or does not end.
fn ended(child: &mut Child) -> Option<i32> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match child.try_wait() {
            Ok(Some(status)) => return status.code(),
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    None
}

/// What a run printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running cluster, stopped when dropped.
pub(crate) struct Running {
    child: Child,
    folder: PathBuf,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Waits until the API answers.
    pub(crate) fn answering(mut self) -> Self {
        let kubeconfig = self.kubeconfig();
        self.wait_until("a kubeconfig", |_| kubeconfig.exists());
        self
    }

    /// Waits until it has printed some words.
    pub(crate) fn printed(mut self, words: &str) -> Self {
        self.wait_until(words, |cluster| cluster.log().contains(words));
        self
    }

    fn wait_until(&mut self, what: &str, done: impl Fn(&Running) -> bool) {
        let start = Instant::now();
        while !done(self) {
            let gone = !matches!(self.child.try_wait(), Ok(None)) && !done(self);
            assert!(!gone && start.elapsed() < PATIENCE, "no {what}; the log ends:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Sends a signal and waits for the end; gives the exit code.
    pub(crate) fn end(mut self, signal: Signal) -> Option<i32> {
        self.send(signal);
        ended(&mut self.child)
    }

    fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.send(Signal::SIGINT);
            if ended(&mut self.child).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// What is left of clusters whose folders lie below this one: processes by their ids and words, mounts, sockets.
pub(crate) fn left_of(folder: &Path) -> Vec<String> {
    let words = folder.display().to_string();
    let processes = processes_of(folder).into_iter().map(|(pid, line)| format!("process {pid}: {line}"));
    let lines = |file: &str, what: &'static str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let found: Vec<String> =
            text.lines().filter(|l| l.contains(&words)).map(|l| format!("{what} {l}")).collect();
        found
    };
    processes.chain(lines("/proc/self/mounts", "mount")).chain(lines("/proc/net/unix", "socket")).collect()
}

fn all_processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

fn command_line(pid: i32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

/// The processes whose command lines name the folder.
pub(crate) fn processes_of(folder: &Path) -> BTreeSet<(i32, String)> {
    let words = folder.display().to_string();
    let all = all_processes().into_iter().map(|pid| (pid, command_line(pid)));
    all.filter(|(_, line)| line.contains(&words)).collect()
}

/// A folder of one test. What a cluster leaves running there is ended with it, also where the test fails.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file; gives its path as text.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The embedded runtime's supervisors end their containers with themselves; others only have their root below the folder.
        let words = self.path().display().to_string();
        let mounts = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let own = mounts(std::process::id().try_into().unwrap_or(0));
        for pid in all_processes() {
            let named = command_line(pid).contains(&words);
            let inside = mounts(pid);
            if named || (inside != own && inside.contains(&words)) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}
