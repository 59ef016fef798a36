//! What a fake container does: decided by the image's name, then by annotations of the container or its sandbox.

use crate::port::{ExecSyncResult, Labels};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Annotation: how long the container runs before it ends by itself, in seconds (`2`, `0.5`).
pub(super) const RUN_SECONDS: &str = "fake.kubewright.io/run-seconds";
/// Annotation: with which code it ends.
pub(super) const EXIT_CODE: &str = "fake.kubewright.io/exit-code";
/// Annotation: how long starting takes, in seconds.
pub(super) const START_SECONDS: &str = "fake.kubewright.io/start-seconds";
/// Annotation: a sentence; starting fails with it.
pub(super) const START_ERROR: &str = "fake.kubewright.io/start-error";

/// What a container of some image does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// How long the start call takes.
    pub start_latency: Duration,
    /// It ends by itself after this time; `None` runs until stopped.
    pub run_for: Option<Duration>,
    /// The code it ends with by itself.
    pub exit_code: i32,
    /// How long it takes to end after the stop signal; longer than the grace period means it is killed (137).
    pub stop_latency: Duration,
    /// The code it ends with after the stop signal.
    pub stop_exit_code: i32,
    /// Starting fails with this sentence.
    pub start_error: Option<String>,
    /// Lines of its log, written when it starts.
    pub log_lines: Vec<String>,
}

impl Behaviour {
    /// Ends by itself.
    pub fn exits_after(run_for: Duration, exit_code: i32) -> Self {
        Behaviour { run_for: Some(run_for), exit_code, ..Behaviour::default() }
    }

    /// Changed by what the annotations say; values that can't be read count as absent.
    pub(super) fn with_annotations(mut self, annotations: &Labels) -> Self {
        let seconds = |key: &str| {
            let value = annotations.get(key)?.parse::<f64>().ok()?;
            Duration::try_from_secs_f64(value).ok()
        };
        self.run_for = seconds(RUN_SECONDS).or(self.run_for);
        self.start_latency = seconds(START_SECONDS).unwrap_or(self.start_latency);
        if let Some(code) = annotations.get(EXIT_CODE).and_then(|code| code.parse().ok()) {
            self.exit_code = code;
        }
        if let Some(sentence) = annotations.get(START_ERROR) {
            self.start_error = Some(sentence.clone());
        }
        self
    }
}

/// A program run in a fake container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecCall {
    /// The container.
    pub container_id: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// All of the standard input, where it was connected.
    pub stdin: Vec<u8>,
}

/// What a program run in a fake container says.
pub type ExecHandler = Arc<dyn Fn(&ExecCall) -> ExecSyncResult + Send + Sync>;

/// How a fake runtime behaves.
#[derive(Clone)]
pub struct FakeConfig {
    /// The first address of the pods' network; the addresses after it are given out in turn.
    pub pod_network: Ipv4Addr,
    /// How many addresses there are (a /24 has 254).
    pub pod_addresses: u32,
    /// The address of pods on the node's network.
    pub node_ip: String,
    /// How long making a sandbox takes.
    pub sandbox_latency: Duration,
    /// How long a pull takes.
    pub pull_latency: Duration,
    /// What containers do, by the longest matching beginning of the image's name; `""` is the default.
    pub behaviours: BTreeMap<String, Behaviour>,
    /// Images (by beginning of their name) whose pull fails.
    pub unpullable: Vec<String>,
    /// Whether logs are written to files.
    pub write_logs: bool,
    /// What programs run in containers say; `None`: `true`, `false`, `cat`, `echo`, and the command's words for others.
    pub exec: Option<ExecHandler>,
}

impl Default for FakeConfig {
    fn default() -> Self {
        FakeConfig {
            pod_network: Ipv4Addr::new(10, 64, 0, 1),
            pod_addresses: 65_000,
            node_ip: "127.0.0.1".to_owned(),
            sandbox_latency: Duration::ZERO,
            pull_latency: Duration::ZERO,
            behaviours: BTreeMap::new(),
            unpullable: Vec::new(),
            write_logs: true,
            exec: None,
        }
    }
}

impl FakeConfig {
    /// Gives containers of images whose name begins so a behaviour; the longest beginning wins.
    pub fn with_behaviour(mut self, image: &str, behaviour: Behaviour) -> Self {
        self.behaviours.insert(image.to_owned(), behaviour);
        self
    }

    pub(super) fn behaviour(&self, image: &str) -> Behaviour {
        let matching = self.behaviours.iter().filter(|(prefix, _)| image.starts_with(prefix.as_str()));
        matching.max_by_key(|(prefix, _)| prefix.len()).map(|(_, found)| found.clone()).unwrap_or_default()
    }

    pub(super) fn run(&self, call: &ExecCall) -> ExecSyncResult {
        if let Some(handler) = &self.exec {
            return handler(call);
        }
        let words = call.command.iter().map(String::as_str).collect::<Vec<_>>();
        let line = |words: &[&str]| format!("{}\n", words.join(" ")).into_bytes();
        let (stdout, exit_code) = match words.as_slice() {
            ["true"] => (Vec::new(), 0),
            ["false"] => (Vec::new(), 1),
            ["cat"] => (call.stdin.clone(), 0),
            ["echo", rest @ ..] => (line(rest), 0),
            all => (line(all), 0),
        };
        ExecSyncResult { stdout, stderr: Vec::new(), exit_code }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_wins_and_annotations_change_it() {
        let config = FakeConfig::default()
            .with_behaviour("", Behaviour::exits_after(Duration::from_secs(1), 1))
            .with_behaviour("job", Behaviour::exits_after(Duration::from_secs(2), 0));
        assert_eq!(config.behaviour("job:1").run_for, Some(Duration::from_secs(2)));
        assert_eq!(config.behaviour("web").exit_code, 1);
        let said = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        let check = |key, value, want: Behaviour| {
            assert_eq!(Behaviour::default().with_annotations(&said(key, value)), want, "{key}={value}");
        };
        let half = Some(Duration::from_millis(500));
        check(RUN_SECONDS, "0.5", Behaviour { run_for: half, ..Behaviour::default() });
        check(RUN_SECONDS, "-1", Behaviour::default());
        check(EXIT_CODE, "x", Behaviour::default());
        check(EXIT_CODE, "7", Behaviour { exit_code: 7, ..Behaviour::default() });
    }
}
