//! A slow, obviously right scheduler against the fast one, on random clusters: the feasible nodes, every score and the winner must be the
//! same. The model is written from the documented semantics, over the objects themselves, and keeps nothing between pods.

mod cluster;
mod preemption;
mod rules;
mod scores;

use cluster::{Case, SERVED, Step, VOLUMES, case};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubewright_sched::{ClusterObject, Decision, PodKey, Scheduler};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rules::World;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// Both schedulers side by side.
struct Pair {
    fast: Scheduler,
    world: World,
    pods: usize,
    met: Arc<Met>,
}

impl Pair {
    fn new(case: &Case, met: Arc<Met>) -> Self {
        let fast = Scheduler::with_defaults(case.seed);
        let mut pair = Pair { fast, world: World::default(), pods: 0, met };
        pair.fast.attempts_mut().keep(1, usize::MAX);
        for namespace in &case.namespaces {
            let read: Namespace = serde_json::from_value(namespace.clone()).expect("a namespace");
            pair.fast.apply_object(&ClusterObject::Namespace(Arc::new(read.clone())), now());
            pair.world.namespaces.push(read);
        }
        pair.furnish();
        pair
    }

    /// The service, and volumes with a bound claim in each namespace.
    fn furnish(&mut self) {
        let (namespace, colour) = SERVED;
        let mut objects = vec![(
            "services",
            json!({"metadata": {"namespace": namespace, "name": "s"},
            "spec": {"selector": {"colour": colour}}}),
        )];
        for (name, zones) in VOLUMES {
            let mut volume = json!({"metadata": {"name": name},
                "spec": {"accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"}}});
            if !zones.is_empty() {
                let zone = json!({"key": "topology.kubernetes.io/zone", "operator": "In", "values": zones});
                volume["spec"]["nodeAffinity"] =
                    json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [zone]}]}});
            }
            objects.push(("persistentvolumes", volume));
            for namespace in ["a", "b"] {
                let done = json!({"pv.kubernetes.io/bind-completed": "yes"});
                let meta = json!({"namespace": namespace, "name": name, "annotations": done});
                let spec = json!({"accessModes": ["ReadWriteMany"], "volumeName": name});
                objects.push(("persistentvolumeclaims", json!({"metadata": meta, "spec": spec})));
            }
        }
        for (resource, object) in objects {
            let object = ClusterObject::from_value(resource, &object).expect("valid").expect("known");
            self.fast.apply_object(&object, now());
        }
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
        match self.fast.schedule_one(now()) {
            Some(Decision::Unschedulable { pod: info, nominated: Some((node, victims)), .. }) => {
                prop_assert!(expected.feasible.is_empty(), "{:?} are feasible", expected.feasible);
                self.preempt(&pod, &info.key, &node, &victims)
            }
            Some(Decision::Unschedulable { pod: info, diagnosis, nominated: None, .. }) => {
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
                let room = self.world.candidates(&pod);
                prop_assert!(room.is_empty(), "room could be made: {room:?}, but {diagnosis}");
                Ok(())
            }
            Some(Decision::Bind { pod: info, node, .. }) => self.bind(pod, &info.key, &node, &expected),
            other => {
                prop_assert!(false, "{other:?}");
                Ok(())
            }
        }
    }

    fn bind(
        &mut self,
        pod: Pod,
        key: &PodKey,
        node: &str,
        expected: &rules::Judgement,
    ) -> Result<(), TestCaseError> {
        let attempt = self.fast.attempts().of(key).cloned();
        self.fast.bound(key);
        if rules::claims(&pod).is_empty() {
            self.compare(expected, node, attempt.as_ref())?;
        } else {
            self.met.claims.fetch_add(1, Ordering::Relaxed);
            self.compare_totals(expected, node)?;
        }
        self.place(pod, node);
        Ok(())
    }

    /// The pod runs; each started a second after the one before.
    fn place(&mut self, mut pod: Pod, node: &str) {
        let started = Timestamp::from_second(i64::try_from(self.pods).unwrap()).unwrap();
        pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
        pod.status.get_or_insert_default().start_time = Some(Time(started));
        self.fast.apply_pod(Arc::new(pod.clone()), now());
        self.world.placed.push((pod, node.to_owned()));
    }

    /// The victims must be those of the model, on the node where the least is lost; once they are gone the pod must go there.
    fn preempt(
        &mut self,
        pod: &Pod,
        key: &PodKey,
        node: &str,
        victims: &[PodKey],
    ) -> Result<(), TestCaseError> {
        self.met.preemptions.fetch_add(1, Ordering::Relaxed);
        let candidates = self.world.candidates(pod);
        let Some(chosen) = candidates.iter().find(|c| c.node == node) else {
            prop_assert!(false, "no room can be made on {node}: {candidates:?}");
            return Ok(());
        };
        let least = candidates.iter().map(preemption::Candidate::loss).min();
        prop_assert_eq!(Some(chosen.loss()), least, "the least is lost elsewhere: {:?}", candidates);
        let mut said: Vec<String> = victims.iter().map(|v| v.name.to_string()).collect();
        said.sort_unstable();
        prop_assert_eq!(&said, &chosen.names(), "the victims on {}", node);
        for victim in victims {
            self.world.placed.retain(|(p, _)| PodKey::of(p) != *victim);
            self.fast.remove_pod(victim, now());
        }
        match self.fast.schedule_one(now()) {
            Some(Decision::Bind { node: on, .. }) => {
                prop_assert_eq!(on.as_str(), node, "it goes where room was made");
                self.fast.bound(key);
                self.place(pod.clone(), node);
            }
            other => prop_assert!(false, "room was made, but {other:?}"),
        }
        Ok(())
    }

    /// For pods whose volumes decide: the fast one does not look at all nodes, but it must find a best one.
    fn compare_totals(&self, expected: &rules::Judgement, node: &str) -> Result<(), TestCaseError> {
        prop_assert!(
            expected.feasible.iter().any(|n| n == node),
            "{node} is not feasible: {:?}",
            expected.feasible
        );
        let total = |n: &str| expected.scores.get(n).map_or(0, |plugins| plugins.values().sum::<i64>());
        let best = expected.feasible.iter().map(|n| total(n)).max();
        prop_assert_eq!(Some(total(node)), best, "the best wins: {:?}", expected.scores);
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

/// How often the model was asked about what not every case has.
#[derive(Debug, Default)]
struct Met {
    preemptions: AtomicUsize,
    claims: AtomicUsize,
}

fn run(case: &Case, met: &Arc<Met>) -> Result<(), TestCaseError> {
    let mut pair = Pair::new(case, met.clone());
    case.steps.iter().try_for_each(|step| pair.step(step))
}

/// A number of the environment.
fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// The same cases each time; `KUBEWRIGHT_MODEL_SEED` gives others, `KUBEWRIGHT_MODEL_TIMES` more.
fn check(cases: u32, further: usize) -> Arc<Met> {
    let met = Arc::new(Met::default());
    let times = setting("KUBEWRIGHT_MODEL_TIMES").unwrap_or(1);
    let seed: u64 = setting("KUBEWRIGHT_MODEL_SEED").unwrap_or(0);
    let config = Config { cases: cases * times, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    if let Err(error) = TestRunner::new_with_rng(config, rng).run(&case(further), |case| run(&case, &met)) {
        panic!("seed {seed}: {error}");
    }
    met
}

#[test]
fn the_fast_scheduler_agrees_with_the_model() {
    let met = check(200, 0);
    let few = |n: &AtomicUsize| n.load(Ordering::Relaxed) < 20;
    assert!(!few(&met.preemptions) && !few(&met.claims), "the cases say too little: {met:?}");
}

/// With this many nodes host names are too many to be told apart by value: nodes are grouped by what is counted.
#[test]
fn they_agree_where_a_label_has_many_values() {
    check(12, 140);
}

/// Found at random: the pods that were put back on the node tried first were not counted any more while the second was tried, so that
/// room seemed to be there on the second, where an anti-affinity over both nodes can't be met.
#[test]
fn evicting_on_one_node_does_not_free_the_zone_of_two() {
    let node = |name: &str| {
        Step::Node(json!({
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "z2"}},
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "1"}},
        }))
    };
    let pod = |priority: i32, anti_affinity: serde_json::Value| {
        Step::Pod(json!({
            "metadata": {"namespace": "a", "labels": {"revision": "1"}},
            "spec": {
                "containers": [{"name": "c", "image": "a"}],
                "priority": priority,
                "affinity": {"podAntiAffinity": anti_affinity},
            },
        }))
    };
    let apart = json!({"requiredDuringSchedulingIgnoredDuringExecution": [{
        "topologyKey": "topology.kubernetes.io/zone",
        "namespaceSelector": {},
        "labelSelector": {"matchExpressions": [{"key": "colour", "operator": "NotIn", "values": ["blue"]}]},
    }]});
    let low = || pod(0, serde_json::Value::Null);
    let steps = vec![node("n2"), node("n0"), low(), low(), pod(5, apart)];
    let case = Case { seed: 0, namespaces: vec![json!({"metadata": {"name": "a"}})], steps };
    run(&case, &Arc::default()).unwrap();
}
