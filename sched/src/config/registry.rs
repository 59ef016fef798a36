//! The plugins that a configuration can name.

use super::{ConfigError, args};
use crate::Plugin;
use crate::plugins;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Makes a plugin from its arguments (null where there are none).
pub type Make = Box<dyn Fn(&Value) -> Result<Box<dyn Plugin>, Vec<ConfigError>> + Send + Sync>;

/// The plugins by name.
pub struct Registry {
    makers: BTreeMap<String, Make>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.makers.keys()).finish()
    }
}

fn plain<P: Plugin>(make: fn() -> P) -> Make {
    Box::new(move |given| {
        args::none(given)?;
        Ok(Box::new(make()))
    })
}

impl Registry {
    /// The built-in plugins.
    pub fn builtin() -> Self {
        let makers: Vec<(&str, Make)> = vec![
            ("DefaultBinder", plain(|| plugins::DefaultBinder)),
            ("DefaultPreemption", Box::new(args::default_preemption)),
            ("DynamicResources", Box::new(args::dynamic_resources)),
            ("ImageLocality", plain(|| plugins::ImageLocality)),
            ("InterPodAffinity", Box::new(args::inter_pod_affinity)),
            ("NodeAffinity", Box::new(args::node_affinity)),
            ("NodeDeclaredFeatures", plain(|| plugins::NodeDeclaredFeatures)),
            ("NodeName", plain(|| plugins::NodeName)),
            ("NodePorts", plain(|| plugins::NodePorts)),
            ("NodeResourcesBalancedAllocation", Box::new(args::balanced_allocation)),
            ("NodeResourcesFit", Box::new(args::node_resources_fit)),
            ("NodeUnschedulable", plain(|| plugins::NodeUnschedulable)),
            ("NodeVolumeLimits", plain(|| plugins::NodeVolumeLimits)),
            ("PodTopologySpread", Box::new(args::pod_topology_spread)),
            ("PrioritySort", plain(|| plugins::PrioritySort)),
            ("SchedulingGates", plain(|| plugins::SchedulingGates)),
            ("TaintToleration", plain(|| plugins::TaintToleration)),
            ("VolumeBinding", Box::new(args::volume_binding)),
            ("VolumeRestrictions", plain(|| plugins::VolumeRestrictions)),
            ("VolumeZone", plain(|| plugins::VolumeZone)),
        ];
        Registry { makers: makers.into_iter().map(|(name, make)| (name.to_owned(), make)).collect() }
    }

    /// Adds a plugin, or replaces one of its name.
    #[must_use]
    pub fn with(
        mut self,
        name: &str,
        make: impl Fn(&Value) -> Result<Box<dyn Plugin>, Vec<ConfigError>> + Send + Sync + 'static,
    ) -> Self {
        self.makers.insert(name.to_owned(), Box::new(make));
        self
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.makers.contains_key(name)
    }

    pub(super) fn make(&self, name: &str, args: &Value) -> Option<Result<Box<dyn Plugin>, Vec<ConfigError>>> {
        self.makers.get(name).map(|make| make(args))
    }
}
