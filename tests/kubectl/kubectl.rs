//! Runs one kubectl binary in one namespace.

use crate::common::parts;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long one command may take.
const COMMAND_SECONDS_MAX: u64 = 90;

/// A check's outcome: why it failed.
pub(crate) type Outcome = Result<(), String>;

/// The kubectl binaries from 1.27 on, by minor version.
pub(crate) fn installed() -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    let folders = ["/usr/lib/google-cloud-sdk/bin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from);
    for folder in folders.into_iter().chain([parts().join("bin")]) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.strip_prefix("kubectl.").is_some_and(|v| v.starts_with("1.")) {
                found.push((name["kubectl.".len()..].to_owned(), entry.path()));
            }
        }
    }
    if found.is_empty()
        && let Some(version) = version_of(Path::new("kubectl"))
    {
        found.push((version, PathBuf::from("kubectl")));
    }
    found.retain(|(version, _)| minor(version) >= 27);
    found.sort_by_key(|(version, _)| minor(version));
    found.dedup_by_key(|(version, _)| minor(version));
    match std::env::var("KUBECTL_VERSIONS") {
        Ok(only) => found.into_iter().filter(|(v, _)| only.split(',').any(|o| o == v)).collect(),
        Err(_) => found,
    }
}

fn minor(version: &str) -> u32 {
    version.split('.').nth(1).and_then(|m| m.parse().ok()).unwrap_or(0)
}

fn version_of(binary: &Path) -> Option<String> {
    let output = Command::new(binary).args(["version", "--client", "-o", "json"]).output().ok()?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let client = &version["clientVersion"];
    Some(format!("1.{}", client["minor"].as_str()?.trim_end_matches('+')))
}

/// What a command printed.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) ok: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// One kubectl in one namespace.
pub(crate) struct Kubectl {
    binary: PathBuf,
    /// Its version, 1.`minor`.
    pub(crate) minor: u32,
    kubeconfig: PathBuf,
    pub(crate) namespace: String,
    /// Discovery caches and the like.
    home: tempfile::TempDir,
}

impl Kubectl {
    pub(crate) fn new(version: &str, binary: &Path, kubeconfig: &Path) -> Self {
        Kubectl {
            binary: binary.to_owned(),
            minor: minor(version),
            kubeconfig: kubeconfig.to_owned(),
            namespace: format!("kubectl-{}", version.replace('.', "-")),
            home: tempfile::tempdir().expect("a folder"),
        }
    }

    /// The command, ready to run, in this kubectl's namespace.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .args(["--kubeconfig", &self.kubeconfig.display().to_string()])
            .args(["--cache-dir", &self.home.path().display().to_string()])
            .env("HOME", self.home.path())
            .env_remove("KUBECONFIG")
            .env("TERM", "dumb");
        if !args.contains(&"-A") && !args.contains(&"-n") {
            command.args(["-n", &self.namespace]);
        }
        command
    }

    /// Runs a command with something on its standard input.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &str) -> Output {
        let mut command = self.command_reordered(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl runs");
        if let Some(mut input) = child.stdin.take() {
            let _ = input.write_all(stdin.as_bytes());
        }
        finish(child)
    }

    /// The global flags stand before `--`, after which everything belongs to the container.
    fn command_reordered(&self, args: &[&str]) -> Command {
        match args.iter().position(|a| *a == "--") {
            None => self.command(args),
            Some(at) => {
                let mut command = self.command(&args[..at]);
                command.args(&args[at..]);
                command
            }
        }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, "")
    }

    /// Runs a command that must succeed; gives its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> Result<String, String> {
        self.ok_with(args, "")
    }

    pub(crate) fn ok_with(&self, args: &[&str], stdin: &str) -> Result<String, String> {
        let output = self.run_with(args, stdin);
        if output.ok {
            return Ok(output.stdout);
        }
        Err(format!("`kubectl {}` failed: {} {}", args.join(" "), output.stderr.trim(), output.stdout.trim()))
    }

    /// Runs a command that must fail with these words on its standard error.
    pub(crate) fn fails(&self, args: &[&str], words: &str) -> Outcome {
        self.fails_with(args, "", words)
    }

    pub(crate) fn fails_with(&self, args: &[&str], stdin: &str, words: &str) -> Outcome {
        let output = self.run_with(args, stdin);
        if output.ok {
            return Err(format!("`kubectl {}` succeeded: {}", args.join(" "), output.stdout.trim()));
        }
        has(&output.stderr, words).map_err(|e| format!("`kubectl {}`: {e}", args.join(" ")))
    }

    /// Runs a command that must succeed and print all of these.
    pub(crate) fn shows(&self, args: &[&str], words: &[&str]) -> Outcome {
        let output = self.ok(args)?;
        words
            .iter()
            .try_for_each(|word| has(&output, word))
            .map_err(|e| format!("`kubectl {}`: {e}", args.join(" ")))
    }

    /// Repeats a command until it prints the words.
    pub(crate) fn until(&self, args: &[&str], words: &str) -> Outcome {
        let start = Instant::now();
        loop {
            let output = self.run(args);
            if output.ok && output.stdout.contains(words) {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(60) {
                let (out, err) = (output.stdout.trim(), output.stderr.trim());
                return Err(format!(
                    "`kubectl {}` never printed {words:?}; last: {out} {err}",
                    args.join(" ")
                ));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Fails where a text lacks the words.
pub(crate) fn has(text: &str, words: &str) -> Outcome {
    if text.contains(words) { Ok(()) } else { Err(format!("{words:?} is not in:\n{text}")) }
}

fn finish(mut child: Child) -> Output {
    let mut out = child.stdout.take().expect("piped");
    let mut err = child.stderr.take().expect("piped");
    let stdout = std::thread::spawn(move || read(&mut out));
    let stderr = std::thread::spawn(move || read(&mut err));
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            _ if start.elapsed() > Duration::from_secs(COMMAND_SECONDS_MAX) => {
                let _ = child.kill();
                break child.wait().ok().filter(|_| false);
            }
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let stdout = stdout.join().unwrap_or_default();
    let mut stderr = stderr.join().unwrap_or_default();
    if status.is_none() {
        stderr.push_str(" (killed: it took too long)");
    }
    Output { ok: status.is_some_and(|s| s.success()), stdout, stderr }
}

fn read(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
