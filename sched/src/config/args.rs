//! The arguments of the built-in plugins.

use super::ConfigError;
use crate::Plugin;
use crate::plugins::{
    BalancedAllocation, DefaultConstraint, DefaultPreemption, Defaulting, InterPodAffinity, NodeAffinity,
    NodeResourcesFit, PodTopologySpread, ScoringStrategy, WeightedResource,
};
use k8s_openapi::api::core::v1 as core;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

type Made = Result<Box<dyn Plugin>, Vec<ConfigError>>;

/// Reads arguments; `apiVersion` and `kind` may stand in them.
fn read<T: DeserializeOwned + Default>(args: &Value) -> Result<T, Vec<ConfigError>> {
    let mut args = args.clone();
    if let Some(fields) = args.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    if args.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(args)
        .map_err(|e| vec![ConfigError::new("", format!("strict decoding error: {e}"))])
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct InterPodAffinityArgs {
    hard_pod_affinity_weight: Option<i64>,
    ignore_preferred_terms_of_existing_pods: bool,
}

pub(super) fn inter_pod_affinity(args: &Value) -> Made {
    let args: InterPodAffinityArgs = read(args)?;
    let weight = args.hard_pod_affinity_weight.unwrap_or(1);
    if !(0..=100).contains(&weight) {
        return Err(vec![ConfigError::invalid(
            "hardPodAffinityWeight",
            weight,
            "not in valid range [0-100]",
        )]);
    }
    Ok(Box::new(InterPodAffinity {
        hard_pod_affinity_weight: weight,
        ignore_preferred_of_existing: args.ignore_preferred_terms_of_existing_pods,
    }))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct NodeAffinityArgs {
    added_affinity: Option<core::NodeAffinity>,
}

pub(super) fn node_affinity(args: &Value) -> Made {
    let args: NodeAffinityArgs = read(args)?;
    let plugin = args.added_affinity.as_ref().map(NodeAffinity::with_added);
    Ok(Box::new(plugin.unwrap_or_default()))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct SpreadArgs {
    default_constraints: Vec<core::TopologySpreadConstraint>,
    defaulting_type: Option<String>,
}

pub(super) fn pod_topology_spread(args: &Value) -> Made {
    let args: SpreadArgs = read(args)?;
    let mut errors = Vec::new();
    let defaulting = match args.defaulting_type.as_deref() {
        None | Some("System") => {
            if !args.default_constraints.is_empty() && args.defaulting_type.is_some() {
                errors.push(ConfigError::invalid(
                    "defaultingType",
                    "System",
                    "when .defaultingType is System, .defaultConstraints must be empty",
                ));
            }
            if args.default_constraints.is_empty() {
                Defaulting::System
            } else {
                Defaulting::List(list(&args))
            }
        }
        Some("List") => Defaulting::List(list(&args)),
        Some(other) => {
            let message = format!("Unsupported value: \"{other}\": supported values: \"List\", \"System\"");
            errors.push(ConfigError::new("defaultingType", message));
            Defaulting::System
        }
    };
    for (n, constraint) in args.default_constraints.iter().enumerate() {
        let at = |field: &str| format!("defaultConstraints[{n}].{field}");
        if constraint.max_skew <= 0 {
            errors.push(ConfigError::invalid(
                at("maxSkew"),
                constraint.max_skew,
                "must be greater than zero",
            ));
        }
        if constraint.topology_key.is_empty() {
            errors.push(ConfigError::new(at("topologyKey"), "Required value: can not be empty"));
        }
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&constraint.when_unsatisfiable.as_str()) {
            errors.push(ConfigError::new(at("whenUnsatisfiable"), "Required value: can not be empty"));
        }
        if constraint.label_selector.is_some() {
            let message = "Forbidden: constraint must not define a selector, as they deduced for each pod";
            errors.push(ConfigError::new(at("labelSelector"), message));
        }
    }
    if errors.is_empty() { Ok(Box::new(PodTopologySpread { defaulting })) } else { Err(errors) }
}

fn list(args: &SpreadArgs) -> Vec<DefaultConstraint> {
    let constraints = args.default_constraints.iter();
    constraints
        .map(|c| DefaultConstraint {
            max_skew: i64::from(c.max_skew),
            key: c.topology_key.clone(),
            hard: c.when_unsatisfiable == "DoNotSchedule",
        })
        .collect()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct FitArgs {
    ignored_resources: Vec<String>,
    ignored_resource_groups: Vec<String>,
    scoring_strategy: Option<Strategy>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Strategy {
    r#type: String,
    resources: Vec<ResourceSpec>,
    requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct ResourceSpec {
    name: String,
    weight: i64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Ratio {
    shape: Vec<Point>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Point {
    utilization: i64,
    score: i64,
}

/// Resources to be scored; none means CPU and memory alike.
fn resources(specs: &[ResourceSpec], path: &str, errors: &mut Vec<ConfigError>) -> Vec<WeightedResource> {
    if specs.is_empty() {
        return vec![WeightedResource::new("cpu", 1), WeightedResource::new("memory", 1)];
    }
    let mut read: Vec<WeightedResource> = Vec::new();
    for (n, spec) in specs.iter().enumerate() {
        let weight = if spec.weight == 0 { 1 } else { spec.weight };
        if !(1..=100).contains(&weight) {
            let why = "resource weight of must be in the range [1, 100]";
            errors.push(ConfigError::invalid(format!("{path}[{n}].weight"), weight, why));
        }
        if read.iter().any(|r| r.name == spec.name) {
            errors.push(ConfigError::new(
                format!("{path}[{n}].name"),
                format!("Duplicate value: \"{}\"", spec.name),
            ));
        }
        read.push(WeightedResource::new(&spec.name, weight));
    }
    read
}

pub(super) fn node_resources_fit(args: &Value) -> Made {
    let args: FitArgs = read(args)?;
    let mut errors = Vec::new();
    for (n, group) in args.ignored_resource_groups.iter().enumerate() {
        if group.contains('/') {
            let why = "resource group name can't contain '/'";
            errors.push(ConfigError::invalid(format!("ignoredResourceGroups[{n}]"), group, why));
        }
    }
    let strategy = args.scoring_strategy.unwrap_or_default();
    let resources = resources(&strategy.resources, "scoringStrategy.resources", &mut errors);
    let kind = match strategy.r#type.as_str() {
        "" | "LeastAllocated" => ScoringStrategy::LeastAllocated,
        "MostAllocated" => ScoringStrategy::MostAllocated,
        "RequestedToCapacityRatio" => {
            let shape = strategy.requested_to_capacity_ratio.unwrap_or_default().shape;
            let path = "scoringStrategy.requestedToCapacityRatio.shape";
            ScoringStrategy::RequestedToCapacityRatio(points(&shape, path, &mut errors))
        }
        other => {
            let message = format!(
                "Unsupported value: \"{other}\": supported values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\""
            );
            errors.push(ConfigError::new("scoringStrategy.type", message));
            ScoringStrategy::LeastAllocated
        }
    };
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Box::new(NodeResourcesFit {
        strategy: kind,
        resources,
        ignored: args.ignored_resources,
        ignored_groups: args.ignored_resource_groups,
    }))
}

/// The points of a shape: use must rise, scores are 0 to 10 and count tenfold.
fn points(shape: &[Point], at: &str, errors: &mut Vec<ConfigError>) -> Vec<(i64, i64)> {
    let path = |n: usize| format!("{at}[{n}]");
    if shape.is_empty() {
        errors.push(ConfigError::new(at, "Required value: at least one point must be specified"));
    }
    for (n, point) in shape.iter().enumerate() {
        let at = |field: &str| format!("{}.{field}", path(n));
        if !(0..=100).contains(&point.utilization) {
            errors.push(ConfigError::invalid(
                at("utilization"),
                point.utilization,
                "not in valid range 0-100",
            ));
        }
        if !(0..=10).contains(&point.score) {
            errors.push(ConfigError::invalid(at("score"), point.score, "not in valid range 0-10"));
        }
        if n > 0 && point.utilization <= shape[n - 1].utilization {
            let why = "utilization values must be sorted in increasing order";
            errors.push(ConfigError::invalid(at("utilization"), point.utilization, why));
        }
    }
    shape.iter().map(|p| (p.utilization, p.score * 10)).collect()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct BalancedArgs {
    resources: Vec<ResourceSpec>,
}

pub(super) fn balanced_allocation(args: &Value) -> Made {
    let args: BalancedArgs = read(args)?;
    let mut errors = Vec::new();
    let resources = resources(&args.resources, "resources", &mut errors);
    if errors.is_empty() { Ok(Box::new(BalancedAllocation { resources })) } else { Err(errors) }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct PreemptionArgs {
    min_candidate_nodes_percentage: Option<i64>,
    min_candidate_nodes_absolute: Option<i64>,
}

pub(super) fn default_preemption(args: &Value) -> Made {
    let args: PreemptionArgs = read(args)?;
    let (percentage, absolute) =
        (args.min_candidate_nodes_percentage.unwrap_or(10), args.min_candidate_nodes_absolute.unwrap_or(100));
    let mut errors = Vec::new();
    if !(0..=100).contains(&percentage) {
        let why = "not in valid range [0, 100]";
        errors.push(ConfigError::invalid("minCandidateNodesPercentage", percentage, why));
    }
    if absolute < 0 {
        errors.push(ConfigError::invalid(
            "minCandidateNodesAbsolute",
            absolute,
            "not in valid range (0, inf)",
        ));
    }
    if percentage == 0 && absolute == 0 {
        let message = "minCandidateNodesPercentage and minCandidateNodesAbsolute cannot both be zero";
        errors.push(ConfigError::new("", message));
    }
    let whole = |n: i64| usize::try_from(n).unwrap_or(0);
    let plugin =
        DefaultPreemption { candidates_percentage: whole(percentage), candidates_min: whole(absolute) };
    if errors.is_empty() { Ok(Box::new(plugin)) } else { Err(errors) }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct DynamicResourcesArgs {
    filter_timeout: Option<String>,
    binding_timeout: Option<String>,
}

pub(super) fn dynamic_resources(args: &Value) -> Made {
    let _: DynamicResourcesArgs = read(args)?;
    Ok(Box::new(crate::plugins::DynamicResources::default()))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct VolumeBindingArgs {
    bind_timeout_seconds: Option<i64>,
    shape: Vec<Point>,
}

pub(super) fn volume_binding(args: &Value) -> Made {
    let args: VolumeBindingArgs = read(args)?;
    let mut errors = Vec::new();
    if let Some(seconds) = args.bind_timeout_seconds.filter(|s| *s < 0) {
        errors.push(ConfigError::invalid(
            "bindTimeoutSeconds",
            seconds,
            "invalid BindTimeoutSeconds, should not be a negative value",
        ));
    }
    let shape = match args.shape.is_empty() {
        true => Vec::new(),
        false => points(&args.shape, "shape", &mut errors),
    };
    if errors.is_empty() {
        Ok(Box::new(crate::plugins::VolumeBinding::scored_by(shape)))
    } else {
        Err(errors)
    }
}

/// Arguments of a plugin that takes none.
pub(super) fn none(args: &Value) -> Result<(), Vec<ConfigError>> {
    let empty = args.is_null()
        || args.as_object().is_some_and(|o| o.keys().all(|k| k == "apiVersion" || k == "kind"));
    if empty { Ok(()) } else { Err(vec![ConfigError::new("", "the plugin takes no arguments")]) }
}
