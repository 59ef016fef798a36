//! From a configuration to a scheduler: defaults merged with what is switched on and off, every mistake reported.

use super::{
    ConfigError, Configuration, PluginArgs, PluginRef, PluginSet, PluginsConfig, ProfileConfig, Registry,
};
use crate::framework::Points;
use crate::masked::Masked;
use crate::profile::{Profile, ProfileBuilder};
use crate::queue::QueueOptions;
use crate::scheduler::Scheduler;
use serde_json::Value;
use std::time::Duration;

/// Upstream's default plugins with their weights, in order.
const DEFAULTS: [(&str, i64); 20] = [
    ("SchedulingGates", 0),
    ("PrioritySort", 0),
    ("NodeUnschedulable", 0),
    ("NodeName", 0),
    ("TaintToleration", 3),
    ("NodeAffinity", 2),
    ("NodePorts", 0),
    ("NodeResourcesFit", 1),
    ("VolumeRestrictions", 0),
    ("NodeVolumeLimits", 0),
    ("VolumeBinding", 0),
    ("VolumeZone", 0),
    ("PodTopologySpread", 2),
    ("InterPodAffinity", 2),
    ("DynamicResources", 0),
    ("NodeDeclaredFeatures", 0),
    ("DefaultPreemption", 0),
    ("NodeResourcesBalancedAllocation", 1),
    ("ImageLocality", 1),
    ("DefaultBinder", 0),
];

impl PluginsConfig {
    /// The sets of the single points.
    fn points(&self) -> [(Points, &'static str, &PluginSet); 12] {
        [
            (Points::PRE_ENQUEUE, "preEnqueue", &self.pre_enqueue),
            (Points::QUEUE_SORT, "queueSort", &self.queue_sort),
            (Points::PRE_FILTER, "preFilter", &self.pre_filter),
            (Points::FILTER, "filter", &self.filter),
            (Points::POST_FILTER, "postFilter", &self.post_filter),
            (Points::PRE_SCORE, "preScore", &self.pre_score),
            (Points::SCORE, "score", &self.score),
            (Points::RESERVE, "reserve", &self.reserve),
            (Points::PERMIT, "permit", &self.permit),
            (Points::PRE_BIND, "preBind", &self.pre_bind),
            (Points::BIND, "bind", &self.bind),
            (Points::POST_BIND, "postBind", &self.post_bind),
        ]
    }
}

/// A plugin of a profile before it is made.
struct Wanted {
    name: String,
    weight: i64,
    points: Points,
}

fn disables(set: &PluginSet, name: &str) -> bool {
    set.disabled.iter().any(|p| p.name == "*" || p.name == name)
}

/// The plugins of a profile: the defaults that are not switched off, then the additions; each with the points that are left of it.
fn merge(config: &PluginsConfig) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = DEFAULTS
        .iter()
        .filter(|(name, _)| !disables(&config.multi_point, name))
        .map(|(name, weight)| Wanted { name: (*name).to_owned(), weight: *weight, points: Points::ALL })
        .collect();
    for plugin in &config.multi_point.enabled {
        add(&mut wanted, plugin, Points::ALL);
    }
    for (point, _, set) in config.points() {
        for plugin in &mut wanted {
            if disables(set, &plugin.name) {
                plugin.points = plugin.points.without(point);
            }
        }
        for plugin in &set.enabled {
            add(&mut wanted, plugin, point);
        }
    }
    wanted.retain(|w| w.points != Points::NONE);
    wanted
}

fn add(wanted: &mut Vec<Wanted>, plugin: &PluginRef, points: Points) {
    match wanted.iter_mut().find(|w| w.name == plugin.name) {
        Some(known) => {
            known.points = known.points | points;
            if plugin.weight != 0 {
                known.weight = plugin.weight;
            }
        }
        None => wanted.push(Wanted { name: plugin.name.clone(), weight: plugin.weight, points }),
    }
}

impl ProfileConfig {
    /// The profile.
    ///
    /// # Errors
    /// Every mistake in it, with paths that begin at `path`.
    pub fn build(&self, registry: &Registry, path: &str) -> Result<Profile, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let at = |rest: &str| format!("{path}.{rest}");
        percentage(self.percentage_of_nodes_to_score, &at("percentageOfNodesToScore"), &mut errors);
        let name = self.scheduler_name.as_deref().unwrap_or("default-scheduler");
        if name.is_empty() {
            errors.push(ConfigError::new(at("schedulerName"), "Required value"));
        }
        let plugins = self.plugins.clone().unwrap_or_default();
        for (n, args) in self.plugin_config.iter().enumerate() {
            let at = at(&format!("pluginConfig[{n}]"));
            if !registry.has(&args.name) {
                errors.push(ConfigError::invalid(at.clone(), &args.name, "no such plugin"));
            }
            if self.plugin_config[..n].iter().any(|other| other.name == args.name) {
                errors.push(ConfigError::new(at, format!("Duplicate value: \"{}\"", args.name)));
            }
        }
        let mut builder = Profile::builder(name);
        for wanted in merge(&plugins) {
            builder = self.make(wanted, registry, path, builder, &mut errors);
        }
        match builder.build() {
            Ok(profile) if errors.is_empty() => Ok(profile),
            Ok(_) => Err(errors),
            Err(mistakes) => {
                errors.extend(mistakes.iter().map(|m| ConfigError::new(at("plugins"), m.to_string())));
                Err(errors)
            }
        }
    }

    fn make(
        &self,
        wanted: Wanted,
        registry: &Registry,
        path: &str,
        builder: ProfileBuilder,
        errors: &mut Vec<ConfigError>,
    ) -> ProfileBuilder {
        let given = self.plugin_config.iter().position(|a| a.name == wanted.name);
        let args = given.map_or(&Value::Null, |n| &self.plugin_config[n].args);
        match registry.make(&wanted.name, args) {
            None => {
                let message = format!("plugin \"{}\" does not exist in the registry", wanted.name);
                errors.push(ConfigError::new(format!("{path}.plugins"), message));
                builder
            }
            Some(Err(mistakes)) => {
                let at = format!("{path}.pluginConfig[{}].args", given.unwrap_or(0));
                errors.extend(mistakes.into_iter().map(|m| {
                    let path = if m.path.is_empty() { at.clone() } else { format!("{at}.{}", m.path) };
                    ConfigError::new(path, m.message)
                }));
                builder
            }
            // Nothing is left of it.
            Some(Ok(plugin)) if plugin.points().and(wanted.points) == Points::NONE => builder,
            Some(Ok(plugin)) => {
                let scores = plugin.points().contains(Points::SCORE) && wanted.points.contains(Points::SCORE);
                let name = plugin.name();
                let builder = builder.boxed(Masked::wrap(plugin, wanted.points));
                if scores && wanted.weight > 0 { builder.weight(name, wanted.weight) } else { builder }
            }
        }
    }
}

fn percentage(value: Option<i32>, path: &str, errors: &mut Vec<ConfigError>) {
    if let Some(n) = value.filter(|n| !(0..=100).contains(n)) {
        errors.push(ConfigError::invalid(path, n, "not in valid range [0-100]"));
    }
}

impl Configuration {
    /// The profiles.
    ///
    /// # Errors
    /// Every mistake in the configuration.
    pub fn profiles(&self, registry: &Registry) -> Result<Vec<Profile>, Vec<ConfigError>> {
        let mut errors = self.check();
        let list = self.effective_profiles();
        let mut profiles: Vec<Profile> = Vec::new();
        for (n, config) in list.iter().enumerate() {
            match config.build(registry, &format!("profiles[{n}]")) {
                Err(mistakes) => errors.extend(mistakes),
                Ok(profile) => {
                    if profiles.iter().any(|p| p.name() == profile.name()) {
                        let message = format!("Duplicate value: \"{}\"", profile.name());
                        errors.push(ConfigError::new(format!("profiles[{n}].schedulerName"), message));
                    }
                    let sorter = |p: &Profile| p.sorter().map(crate::Plugin::name);
                    if profiles.first().is_some_and(|first| sorter(first) != sorter(&profile)) {
                        let message = "Invalid value: has to match for all profiles";
                        errors.push(ConfigError::new(format!("profiles[{n}].plugins.queueSort"), message));
                    }
                    profiles.push(profile);
                }
            }
        }
        if errors.is_empty() { Ok(profiles) } else { Err(errors) }
    }

    /// The profiles with what extenders look after taken from NodeResourcesFit.
    fn effective_profiles(&self) -> Vec<ProfileConfig> {
        const FIT: &str = "NodeResourcesFit";
        let mut profiles = self.profiles.clone();
        if profiles.is_empty() {
            profiles.push(ProfileConfig::default());
        }
        let managed = self.extenders.iter().flat_map(|e| &e.managed_resources);
        let ignored: Vec<Value> =
            managed.filter(|m| m.ignored_by_scheduler).map(|m| Value::from(m.name.as_str())).collect();
        if ignored.is_empty() {
            return profiles;
        }
        for profile in &mut profiles {
            if !profile.plugin_config.iter().any(|a| a.name == FIT) {
                profile.plugin_config.push(PluginArgs { name: FIT.to_owned(), args: Value::Null });
            }
            for args in profile.plugin_config.iter_mut().filter(|a| a.name == FIT) {
                if args.args.is_null() {
                    args.args = Value::Object(serde_json::Map::new());
                }
                let known = args.args.get("ignoredResources").and_then(Value::as_array).cloned();
                let all: Vec<Value> = known.unwrap_or_default().into_iter().chain(ignored.clone()).collect();
                if let Value::Object(map) = &mut args.args {
                    map.insert("ignoredResources".to_owned(), Value::Array(all));
                }
            }
        }
        profiles
    }

    /// How the queue backs off.
    pub fn queue(&self) -> QueueOptions {
        let seconds = |n: Option<i64>, default: u64| {
            Duration::from_secs(n.and_then(|n| u64::try_from(n).ok()).unwrap_or(default))
        };
        QueueOptions {
            initial_backoff: seconds(self.pod_initial_backoff_seconds, 1),
            max_backoff: seconds(self.pod_max_backoff_seconds, 10),
            ..QueueOptions::default()
        }
    }

    /// The scheduler; equal seeds make equal choices among equal nodes.
    ///
    /// # Errors
    /// Every mistake in the configuration.
    pub fn scheduler(&self, registry: &Registry, seed: u64) -> Result<Scheduler, Vec<ConfigError>> {
        let profiles = self.profiles(registry)?;
        Scheduler::new(profiles, self.queue(), seed)
            .map(|scheduler| scheduler.with_extenders(self.extenders.clone()))
            .map_err(|e| vec![ConfigError::new("profiles", e.to_string())])
    }

    fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        percentage(self.percentage_of_nodes_to_score, "percentageOfNodesToScore", &mut errors);
        if let Some(n) = self.parallelism.filter(|n| *n <= 0) {
            errors.push(ConfigError::invalid(
                "parallelism",
                n,
                "should be an integer value greater than zero",
            ));
        }
        let initial = self.pod_initial_backoff_seconds.unwrap_or(1);
        if initial <= 0 {
            errors.push(ConfigError::invalid("podInitialBackoffSeconds", initial, "must be greater than 0"));
        }
        let most = self.pod_max_backoff_seconds.unwrap_or(10);
        if most < initial {
            let why = "must be greater than or equal to PodInitialBackoffSeconds";
            errors.push(ConfigError::invalid("podMaxBackoffSeconds", most, why));
        }
        for (n, extender) in self.extenders.iter().enumerate() {
            if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
                let at = format!("extenders[{n}].weight");
                let why = "must have a positive weight applied to it";
                errors.push(ConfigError::invalid(at, extender.weight, why));
            }
        }
        let binders = self.extenders.iter().filter(|e| !e.bind_verb.is_empty()).count();
        if binders > 1 {
            errors.push(ConfigError::invalid(
                "extenders",
                binders,
                "found multiple extenders implementing bind",
            ));
        }
        errors
    }
}
