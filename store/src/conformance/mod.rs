//! The conformance suite: what every store must do, as named cases that any implementation can run.
//!
//! Give [`Conformance`] a way to open the store under test; it gives back a [`Report`]. Cases are chosen by what the store says of itself in
//! [`Capabilities`]. Keys are new for every run, so a store that holds other keys already, or is shared, is no obstacle;
//! the suite compacts it, though.
//!
//! ```
//! # use kubewright_store::{MemoryStore, Store, conformance::Conformance};
//! # use std::sync::Arc;
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! let report = Conformance::new(|| async { Ok(Arc::new(MemoryStore::new()) as Arc<dyn Store>) }).run().await;
//! assert!(report.passed(), "{report}");
//! # });
//! ```

mod concurrency;
mod help;
mod history;
mod lifetime;
mod values;
mod watches;

use crate::{Capabilities, Error, Store};
use futures::future::BoxFuture;
use help::Bench;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long one case may take.
const CASE_TIMEOUT: Duration = Duration::from_secs(60);

/// How one case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaseOutcome {
    /// It holds.
    Passed,
    /// It does not hold, and why.
    Failed(String),
    /// The store does not claim it, so it was not asked.
    Skipped(&'static str),
}

/// One case of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseReport {
    /// What must hold, in words with underscores.
    pub name: &'static str,
    /// Whether it does.
    pub outcome: CaseOutcome,
}

/// What a run of the suite found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Every case, in the order run.
    pub cases: Vec<CaseReport>,
}

impl Report {
    /// Whether no case failed and at least one passed.
    pub fn passed(&self) -> bool {
        let passed = |c: &CaseReport| c.outcome == CaseOutcome::Passed;
        self.failures().next().is_none() && self.cases.iter().any(passed)
    }

    /// The cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|c| matches!(c.outcome, CaseOutcome::Failed(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in &self.cases {
            match &case.outcome {
                CaseOutcome::Passed => writeln!(f, "ok      {}", case.name)?,
                CaseOutcome::Failed(why) => writeln!(f, "FAILED  {}: {why}", case.name)?,
                CaseOutcome::Skipped(why) => writeln!(f, "skipped {}: {why}", case.name)?,
            }
        }
        Ok(())
    }
}

type Factory = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Store>, Error>> + Send + Sync>;

/// A run of the suite to be.
pub struct Conformance {
    factory: Factory,
    persistent: Option<bool>,
}

impl fmt::Debug for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conformance(persistent: {:?})", self.persistent)
    }
}

impl Conformance {
    /// A suite that opens the store by `factory`, once or more for each case, after the one opened before was closed.
    pub fn new<F, Fut>(factory: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Arc<dyn Store>, Error>> + Send + 'static,
    {
        Conformance { factory: Arc::new(move || Box::pin(factory())), persistent: None }
    }

    /// Says whether what was written is there when the factory opens the store again; by default as [`Capabilities::durable`] says.
    #[must_use]
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = Some(persistent);
        self
    }

    /// Runs every case.
    ///
    /// # Cancel safety
    /// A dropped run leaves its keys in the store.
    pub async fn run(self) -> Report {
        let mut report = Report::default();
        let run: u64 = rand::random();
        for case in cases() {
            let outcome = self.run_case(&case, run).await;
            report.cases.push(CaseReport { name: case.name, outcome });
        }
        report
    }

    async fn run_case(&self, case: &Case, run: u64) -> CaseOutcome {
        let store = match (self.factory)().await {
            Ok(store) => store,
            Err(error) => return CaseOutcome::Failed(format!("the store did not open: {error}")),
        };
        let capabilities = store.capabilities();
        let persistent = self.persistent.unwrap_or(capabilities.durable);
        if let Some(why) = case.needs.missing(&capabilities, persistent) {
            let _ = store.close().await;
            return CaseOutcome::Skipped(why);
        }
        let prefix = format!("conformance/{run:016x}/{}/", case.name);
        let bench = Bench { store: store.clone(), prefix, factory: self.factory.clone() };
        let outcome = match tokio::time::timeout(CASE_TIMEOUT, (case.check)(bench)).await {
            Ok(Ok(())) => CaseOutcome::Passed,
            Ok(Err(why)) => CaseOutcome::Failed(why),
            Err(_) => CaseOutcome::Failed(format!("it took longer than {CASE_TIMEOUT:?}")),
        };
        let _ = store.close().await;
        outcome
    }
}

/// What a store must claim for a case to be asked.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    History,
    PreviousValues,
    Persistence,
}

impl Needs {
    fn missing(self, has: &Capabilities, persistent: bool) -> Option<&'static str> {
        match self {
            Needs::History if !has.history => Some("the store keeps no history"),
            Needs::PreviousValues if !has.previous_values => Some("the store keeps no previous values"),
            Needs::Persistence if !persistent => Some("the store is gone once it is closed"),
            _ => None,
        }
    }
}

/// Why a case does not hold.
type Why = String;

type Check = fn(Bench) -> BoxFuture<'static, Result<(), Why>>;

struct Case {
    name: &'static str,
    needs: Needs,
    check: Check,
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(values::cases());
    all.extend(history::cases());
    all.extend(watches::cases());
    all.extend(concurrency::cases());
    all.extend(lifetime::cases());
    all
}

/// Lists async functions as cases under their own names.
macro_rules! case_list {
    ($($needs:ident $name:ident),* $(,)?) => {
        pub(super) fn cases() -> Vec<super::Case> {
            vec![$(super::Case {
                name: stringify!($name),
                needs: super::Needs::$needs,
                check: |bench| Box::pin($name(bench)),
            }),*]
        }
    };
}

/// Ends a case with a sentence where a condition does not hold.
macro_rules! ensure {
    ($holds:expr, $($words:tt)*) => {
        if !$holds {
            return Err(format!($($words)*));
        }
    };
}

use {case_list, ensure};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Commit, CommitOutcome, KeyRange, KeyValue, MemoryStore, RangeRequest, RangeResponse, Revision,
        WatchStream,
    };
    use bytes::Bytes;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_memory_store_conforms() {
        let factory = || async { Ok(Arc::new(MemoryStore::new()) as Arc<dyn Store>) };
        let report = Conformance::new(factory).run().await;
        assert!(report.passed(), "{report}");
    }

    /// A store with one thing wrong: it forgets the conditions.
    struct Careless(MemoryStore);

    impl Store for Careless {
        fn capabilities(&self) -> Capabilities {
            self.0.capabilities()
        }
        fn current_revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
            self.0.current_revision()
        }
        fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<KeyValue>, Error>> {
            self.0.get(key)
        }
        fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, Error>> {
            self.0.range(request)
        }
        fn commit(&self, mut commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, Error>> {
            commit.compares.clear();
            Box::pin(async move {
                // Someone else's turn between the reading and the writing, so that the carelessness shows every time.
                tokio::task::yield_now().await;
                self.0.commit(commit).await
            })
        }
        fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<WatchStream, Error>> {
            self.0.watch(range, from)
        }
        fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
            self.0.compact(revision)
        }
        fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
            self.0.close()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_careless_store_is_found_out() {
        let factory = || async { Ok(Arc::new(Careless(MemoryStore::new())) as Arc<dyn Store>) };
        let report = Conformance::new(factory).run().await;
        let failed: Vec<_> = report.failures().map(|c| c.name).collect();
        assert!(failed.contains(&"conditions_are_kept"), "{report}");
        assert!(failed.contains(&"counters_count_exactly"), "{report}");
    }
}
