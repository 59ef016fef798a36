//! A suite that any [`ContainerRuntime`] can run: a factory of subjects in, a report out, cases chosen by what it says it can do.
//!
//! Each case makes what it needs and removes it again, so that a runtime with other pods on it can be tested as well.

mod cases;
mod processes;
mod streams;

use crate::port::{ContainerRuntime, ImageService};
use futures::future::BoxFuture;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The longest time for one case.
const CASE_TIME_MAX: Duration = Duration::from_secs(60);

/// What a runtime says it can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Containers are processes: they have exit codes, logs and streams of their own.
    pub processes: bool,
    /// Containers have a root file system and a host name of their own.
    pub isolated: bool,
    /// Containers may run as another user than root.
    pub users: bool,
    /// The use of resources is told.
    pub stats: bool,
}

/// A runtime under test.
#[derive(Clone)]
pub struct Subject {
    /// The runtime.
    pub runtime: Arc<dyn ContainerRuntime>,
    /// Its images.
    pub images: Arc<dyn ImageService>,
    /// What it says it can do.
    pub capabilities: Capabilities,
    /// An image that is there or can be pulled: with `sh`, `cat`, `sleep`, `id`, `hostname` and `touch` where containers are processes.
    pub image: String,
    /// A program of the image that answers on a TCP port given as its last argument with what it is sent; empty for none.
    pub echo_server: Vec<String>,
    /// A directory for logs and volumes that the runtime can use.
    pub directory: PathBuf,
}

/// Makes a fresh subject for each case; the same one may be given again.
pub type Factory = Arc<dyn Fn() -> BoxFuture<'static, Subject> + Send + Sync>;

/// What came of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Not as it should be, and how.
    Failed(String),
    /// The subject does not say that it can do this.
    Skipped,
}

/// What came of all cases.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each case with its outcome, in the order in which they ran.
    pub cases: Vec<(&'static str, Outcome)>,
}

impl Report {
    /// Whether nothing failed, and something passed.
    pub fn is_success(&self) -> bool {
        let failed = self.cases.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
        !failed && self.cases.iter().any(|(_, outcome)| *outcome == Outcome::Passed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in &self.cases {
            match outcome {
                Outcome::Passed => writeln!(f, "passed   {name}")?,
                Outcome::Failed(why) => writeln!(f, "FAILED   {name}: {why}")?,
                Outcome::Skipped => writeln!(f, "skipped  {name}")?,
            }
        }
        Ok(())
    }
}

/// What a case says when it is not as it should be.
type CaseResult = Result<(), String>;

struct Case {
    name: &'static str,
    needs: fn(&Capabilities, &Subject) -> bool,
    run: for<'a> fn(&'a Subject) -> BoxFuture<'a, CaseResult>,
}

/// Runs every case that fits what the subject says it can do.
///
/// # Cancel safety
/// What the case in progress made is left.
pub async fn run(factory: Factory) -> Report {
    let mut report = Report::default();
    for case in [cases::ALL, processes::ALL, streams::ALL].concat() {
        let subject = factory().await;
        let outcome = if (case.needs)(&subject.capabilities, &subject) {
            let work = futures::FutureExt::catch_unwind(AssertUnwindSafe((case.run)(&subject)));
            match tokio::time::timeout(CASE_TIME_MAX, work).await {
                Ok(Ok(Ok(()))) => Outcome::Passed,
                Ok(Ok(Err(why))) => Outcome::Failed(why),
                Ok(Err(_)) => Outcome::Failed("panicked".to_owned()),
                Err(_) => Outcome::Failed(format!("took longer than {CASE_TIME_MAX:?}")),
            }
        } else {
            Outcome::Skipped
        };
        report.cases.push((case.name, outcome));
    }
    report
}

impl Clone for Case {
    fn clone(&self) -> Self {
        *self
    }
}

impl Copy for Case {}

/// Fails a case with both values.
fn same<T: PartialEq + fmt::Debug>(what: &str, got: T, want: T) -> CaseResult {
    if got == want { Ok(()) } else { Err(format!("{what}: got {got:?}, want {want:?}")) }
}

/// Fails a case unless it holds.
fn holds(what: &str, is: bool) -> CaseResult {
    if is { Ok(()) } else { Err(what.to_owned()) }
}
