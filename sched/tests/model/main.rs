//! A slow, obviously right scheduler against the fast one, on random clusters: the feasible nodes, every score and the winner must be the
//! same. The model is written from the documented semantics, over the objects themselves, and keeps nothing between pods.

mod cluster;
mod rules;
mod scores;

use cluster::{Case, Step, case};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kubewright_sched::{ClusterObject, Decision, PodKey, Scheduler};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rules::World;
use std::sync::Arc;

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// Both schedulers side by side.
struct Pair {
    fast: Scheduler,
    world: World,
    pods: usize,
}

impl Pair {
    fn new(case: &Case) -> Self {
        let mut pair = Pair { fast: Scheduler::with_defaults(case.seed), world: World::default(), pods: 0 };
        pair.fast.attempts_mut().keep(1, usize::MAX);
        for namespace in &case.namespaces {
            let read: Namespace = serde_json::from_value(namespace.clone()).expect("a namespace");
            pair.fast.apply_object(&ClusterObject::Namespace(Arc::new(read.clone())), now());
            pair.world.namespaces.push(read);
        }
        pair
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Node(node) => {
                let node: Node = serde_json::from_value(node.clone()).expect("a node");
                self.fast.apply_node(Arc::new(node.clone()), now());
                self.world.apply_node(node);
            }
            Step::RemoveNode(n) => {
                let Some(name) = self.world.nodes.get(*n).and_then(|n| n.metadata.name.clone()) else {
                    return Ok(());
                };
                self.fast.remove_node(&name, now());
                self.world.nodes.remove(*n);
            }
            Step::RemovePod(n) => {
                if self.world.placed.is_empty() {
                    return Ok(());
                }
                let (pod, _) = self.world.placed.remove(*n % self.world.placed.len());
                self.fast.remove_pod(&PodKey::of(&pod), now());
            }
            Step::Pod(pod) => self.schedule(pod)?,
        }
        Ok(())
    }

    fn schedule(&mut self, pod: &serde_json::Value) -> Result<(), TestCaseError> {
        let mut pod = pod.clone();
        self.pods += 1;
        pod["metadata"]["name"] = serde_json::json!(format!("p{}", self.pods));
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let expected = self.world.judge(&pod);
        self.fast.apply_pod(Arc::new(pod.clone()), now());
        let decision = self.fast.schedule_one(now());
        let attempt = self.fast.attempts().of(&PodKey::of(&pod)).cloned();
        match decision {
            Some(Decision::Bind { pod: info, node, .. }) => {
                self.fast.bound(&info.key);
                self.compare(&expected, &node, attempt.as_ref())?;
                self.world.placed.push((pod, node.to_string()));
            }
            Some(Decision::Unschedulable { pod: info, diagnosis, nominated }) => {
                prop_assert!(nominated.is_none(), "nothing is preempted here");
                self.fast.remove_pod(&info.key, now());
                prop_assert!(
                    expected.feasible.is_empty(),
                    "{diagnosis}, but {:?} are feasible",
                    expected.feasible
                );
                let said: std::collections::BTreeMap<String, usize> =
                    diagnosis.refused.iter().fold(Default::default(), |mut counts, (r, n)| {
                        *counts.entry(r.plugin.to_owned()).or_default() += n;
                        counts
                    });
                prop_assert_eq!(&said, &expected.refused_by, "{}", diagnosis);
            }
            other => prop_assert!(false, "{other:?}"),
        }
        Ok(())
    }

    fn compare(
        &self,
        expected: &rules::Judgement,
        node: &str,
        attempt: Option<&kubewright_sched::Attempt>,
    ) -> Result<(), TestCaseError> {
        let attempt = attempt.expect("every try is kept");
        prop_assert!(
            expected.feasible.iter().any(|n| n == node),
            "{node} is not feasible: {:?}",
            expected.feasible
        );
        prop_assert_eq!(attempt.feasible, expected.feasible.len());
        if expected.feasible.len() == 1 {
            return Ok(());
        }
        let (_, scores) = attempt.chosen.as_ref().expect("it was chosen");
        prop_assert_eq!(scores.len(), expected.feasible.len(), "all feasible nodes are scored");
        for scored in scores {
            let want = &expected.scores[scored.node.as_str()];
            for (plugin, score) in want {
                let got = scored.plugins.iter().find(|(p, _)| p == plugin).map_or(0, |(_, s)| *s);
                prop_assert_eq!(got, *score, "{} of {}", plugin, scored.node);
            }
            // Plugins that the model knows to have nothing to say add the same to all nodes.
            let total: i64 = scored.plugins.iter().map(|(_, s)| s).sum();
            prop_assert_eq!(scored.total, total, "the total is the sum");
        }
        let best = scores.iter().map(|s| s.total).max().unwrap_or(0);
        let won = scores.iter().find(|s| s.node == node).map_or(i64::MIN, |s| s.total);
        prop_assert_eq!(won, best, "the best wins");
        Ok(())
    }
}

fn check(cases: u32, further: usize) {
    let times = std::env::var("KUBEWRIGHT_MODEL_TIMES").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let config = Config { cases: cases * times, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&case(further), |case| {
        let mut pair = Pair::new(&case);
        for step in &case.steps {
            pair.step(step)?;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn the_fast_scheduler_agrees_with_the_model() {
    check(200, 0);
}

/// With this many nodes host names are too many to be told apart by value: nodes are grouped by what is counted.
#[test]
fn they_agree_where_a_label_has_many_values() {
    check(12, 140);
}
