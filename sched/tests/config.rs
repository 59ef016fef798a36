//! KubeSchedulerConfiguration v1: what it makes, and what it refuses with which words.

use kubewright_sched::framework::Points;
use kubewright_sched::{Configuration, Plugin, Profile, Registry};
use serde_json::{Value, json};

fn config(more: Value) -> Value {
    let mut config =
        json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// A plugin of the host's own.
struct Mine;

impl Plugin for Mine {
    fn name(&self) -> &'static str {
        "Mine"
    }
    fn points(&self) -> Points {
        Points::FILTER | Points::SCORE
    }
}

fn registry() -> Registry {
    Registry::builtin().with("Mine", |_| Ok(Box::new(Mine)))
}

fn profiles(more: Value) -> Result<Vec<Profile>, String> {
    let config = Configuration::from_value(config(more)).map_err(|e| e.to_string())?;
    config.profiles(&registry()).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

fn plugins(profile: &Profile) -> Vec<(&str, i64)> {
    profile.plugins().map(|(p, weight)| (p.name(), weight)).collect()
}

#[test]
fn an_empty_configuration_is_the_default_profile() {
    let made = profiles(json!({})).unwrap();
    let default = Profile::defaults("default-scheduler").build().unwrap();
    assert_eq!((made.len(), made[0].name().as_str()), (1, "default-scheduler"));
    assert_eq!(plugins(&made[0]), plugins(&default));
}

#[test]
fn plugins_are_switched_on_and_off_as_upstream_does() {
    let made = profiles(json!({"profiles": [
        {"schedulerName": "a", "plugins": {
            "multiPoint": {"disabled": [{"name": "ImageLocality"}], "enabled": [{"name": "Mine", "weight": 7}]},
            "score": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit", "weight": 5}]},
            "postFilter": {"disabled": [{"name": "DefaultPreemption"}]},
        }},
        {"schedulerName": "b"},
    ]}))
    .unwrap();
    let a: Vec<(&str, i64)> = plugins(&made[0]);
    assert!(!a.iter().any(|(name, _)| ["ImageLocality", "DefaultPreemption"].contains(name)), "{a:?}");
    assert!(a.contains(&("NodeResourcesFit", 5)), "{a:?}");
    let points = |name: &str| made[0].plugins().find(|(p, _)| p.name() == name).unwrap().0.points();
    assert!(!points("TaintToleration").contains(Points::SCORE));
    assert!(points("TaintToleration").contains(Points::FILTER));
    assert!(points("Mine").contains(Points::FILTER) && !points("Mine").contains(Points::SCORE));
    assert!(points("NodeResourcesFit").contains(Points::SCORE));
    assert_eq!(plugins(&made[1]).len(), 20);
}

#[track_caller]
fn refused(more: Value, expected: &str) {
    let got = profiles(more.clone()).map(|_| ()).expect_err("a mistake");
    assert!(got.contains(expected), "{more}: {got}");
}

#[test]
fn mistakes_are_named_with_their_place() {
    refused(json!({"kind": "Pod"}), "no kind \"Pod\" is registered");
    refused(json!({"profile": []}), "strict decoding error: unknown field `profile`");
    refused(json!({"percentageOfNodesToScore": 101}), "percentageOfNodesToScore: Invalid value: 101");
    refused(
        json!({"podInitialBackoffSeconds": 9, "podMaxBackoffSeconds": 3}),
        "podMaxBackoffSeconds: Invalid value: 3",
    );
    refused(
        json!({"profiles": [{"schedulerName": "a"}, {"schedulerName": "a"}]}),
        "profiles[1].schedulerName: Duplicate value: \"a\"",
    );
    refused(
        json!({"profiles": [{"plugins": {"filter": {"enabled": [{"name": "Nobody"}]}}}]}),
        "plugin \"Nobody\" does not exist in the registry",
    );
    refused(
        json!({"profiles": [{"plugins": {"queueSort": {"disabled": [{"name": "*"}]}}}]}),
        "no plugin orders the queue",
    );
    let args =
        |name: &str, args: Value| json!({"profiles": [{"pluginConfig": [{"name": name, "args": args}]}]});
    refused(
        args("InterPodAffinity", json!({"hardPodAffinityWeight": 101})),
        "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101: not in valid range [0-100]",
    );
    refused(
        args(
            "PodTopologySpread",
            json!({"defaultingType": "List", "defaultConstraints": [
            {"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}]}),
        ),
        "defaultConstraints[0].maxSkew: Invalid value: 0",
    );
    refused(
        args(
            "NodeResourcesFit",
            json!({"scoringStrategy": {"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": {
            "shape": [{"utilization": 50, "score": 1}, {"utilization": 50, "score": 11}]}}}),
        ),
        "utilization values must be sorted in increasing order",
    );
    refused(args("NodeName", json!({"x": 1})), "the plugin takes no arguments");
    refused(
        json!({"extenders": [{"urlPrefix": "http://x", "prioritizeVerb": "score"}]}),
        "extenders[0].weight: Invalid value: 0: must have a positive weight",
    );
}
