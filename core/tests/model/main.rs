//! Models against the implementation: each says in its own, slower way what patches, applies, selectors, quantities and names mean.
//!
//! The cases are the same in every run; `PROPTEST_RNG_SEED` gives others, `KUBEWRIGHT_MODEL_TIMES` more of them. What such a run
//! finds is kept as a case of its own.

mod apply;
mod documents;
mod names;
mod patches;
mod quantities;
mod selectors;
mod strategic;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::fmt::Debug;

/// Asks `test` about so many cases, or a multiple of them.
fn check<S>(cases: u32, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S: Strategy,
    S::Value: Debug,
{
    let times = std::env::var("KUBEWRIGHT_MODEL_TIMES").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let config = Config { cases: cases * times, failure_persistence: None, ..Config::default() };
    if let Err(error) = TestRunner::new(config).run(&strategy, test) {
        panic!("{error}");
    }
}
