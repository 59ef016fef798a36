//! KubeSchedulerConfiguration v1: read, checked and turned into profiles as upstream does it.

mod args;
mod build;
mod duration;
mod registry;

pub use registry::{Make, Registry};

use serde::Deserialize;
use serde_json::Value;
use std::fmt;
use std::time::Duration;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";

/// A mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where: `profiles[0].plugins.filter.enabled[1]`; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl ConfigError {
    fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        ConfigError { path: path.into(), message: message.into() }
    }

    fn invalid(path: impl Into<String>, value: impl fmt::Display, why: &str) -> Self {
        Self::new(path, format!("Invalid value: {value}: {why}"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl std::error::Error for ConfigError {}

/// The configuration, as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Configuration {
    api_version: String,
    kind: String,
    /// Ignored: a cycle needs one thread.
    #[serde(default)]
    pub parallelism: Option<i32>,
    /// For the program around the scheduler.
    #[serde(default)]
    pub leader_election: Option<Value>,
    /// For the program around the scheduler.
    #[serde(default)]
    pub client_connection: Option<Value>,
    /// For the program around the scheduler.
    #[serde(default)]
    pub enable_profiling: Option<bool>,
    /// For the program around the scheduler.
    #[serde(default)]
    pub enable_contention_profiling: Option<bool>,
    /// Checked and otherwise ignored: every node is scored.
    #[serde(default)]
    pub percentage_of_nodes_to_score: Option<i32>,
    /// After the first failed try, in seconds.
    #[serde(default)]
    pub pod_initial_backoff_seconds: Option<i64>,
    /// At most, in seconds.
    #[serde(default)]
    pub pod_max_backoff_seconds: Option<i64>,
    /// Ignored: nothing of a cycle waits for an answer of the API.
    #[serde(default)]
    pub delay_cache_until_active: Option<bool>,
    /// The profiles; one with the default name where there are none.
    #[serde(default)]
    pub profiles: Vec<ProfileConfig>,
    /// Schedulers that are asked over HTTP.
    #[serde(default)]
    pub extenders: Vec<ExtenderConfig>,
}

/// A profile.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ProfileConfig {
    /// `spec.schedulerName` of its pods.
    #[serde(default)]
    pub scheduler_name: Option<String>,
    /// Checked and otherwise ignored.
    #[serde(default)]
    pub percentage_of_nodes_to_score: Option<i32>,
    /// Changes of the default plugins.
    #[serde(default)]
    pub plugins: Option<PluginsConfig>,
    /// Arguments of plugins.
    #[serde(default)]
    pub plugin_config: Vec<PluginArgs>,
}

/// Arguments of a plugin.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PluginArgs {
    /// The plugin.
    pub name: String,
    /// Its arguments, as it knows them.
    #[serde(default)]
    pub args: Value,
}

/// What is switched on and off, by extension point.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the names of the extension points say it")]
pub struct PluginsConfig {
    pub pre_enqueue: PluginSet,
    pub queue_sort: PluginSet,
    pub pre_filter: PluginSet,
    pub filter: PluginSet,
    pub post_filter: PluginSet,
    pub pre_score: PluginSet,
    pub score: PluginSet,
    pub reserve: PluginSet,
    pub permit: PluginSet,
    pub pre_bind: PluginSet,
    pub bind: PluginSet,
    pub post_bind: PluginSet,
    /// All points that a plugin has.
    pub multi_point: PluginSet,
}

/// What is switched on and off at a point.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct PluginSet {
    /// Plugins to add, or to give another weight.
    pub enabled: Vec<PluginRef>,
    /// Default plugins to leave out; `*` for all.
    pub disabled: Vec<PluginRef>,
}

/// A plugin with its weight.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct PluginRef {
    /// Name.
    pub name: String,
    /// Weight of its scores; 0 for the default.
    pub weight: i64,
}

/// A scheduler that is asked over HTTP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExtenderConfig {
    /// Where it is.
    pub url_prefix: String,
    /// The path of its filter, where it has one.
    #[serde(default)]
    pub filter_verb: String,
    /// The path of its preemption.
    #[serde(default)]
    pub preempt_verb: String,
    /// The path of its scores.
    #[serde(default)]
    pub prioritize_verb: String,
    /// Weight of its scores (0 to 10 each).
    #[serde(default)]
    pub weight: i64,
    /// The path of its binding.
    #[serde(default)]
    pub bind_verb: String,
    /// Whether to speak TLS.
    #[serde(default, rename = "enableHTTPS")]
    pub enable_https: bool,
    /// How, for the program that speaks.
    #[serde(default)]
    pub tls_config: Option<ExtenderTls>,
    /// How long a call may take (`30s`); five seconds where it is not said.
    #[serde(default, rename = "httpTimeout", deserialize_with = "duration::optional")]
    pub http_timeout: Option<Duration>,
    /// Whether names of nodes suffice.
    #[serde(default)]
    pub node_cache_capable: bool,
    /// Only pods that ask for one of these are its business; none means all pods.
    #[serde(default)]
    pub managed_resources: Vec<ManagedResource>,
    /// Whether pods go on without it when it fails.
    #[serde(default)]
    pub ignorable: bool,
}

/// How an extender's server and the scheduler trust each other. Without an authority any server is trusted, as upstream has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ExtenderTls {
    /// Takes any certificate.
    pub insecure: bool,
    /// The name to expect in the certificate.
    pub server_name: String,
    /// The file of the scheduler's certificate, as PEM.
    pub cert_file: String,
    /// The file of its key.
    pub key_file: String,
    /// The file of the authority's certificates.
    pub ca_file: String,
    /// The scheduler's certificate itself, in base64.
    pub cert_data: String,
    /// Its key itself, in base64.
    pub key_data: String,
    /// The authority's certificates themselves, in base64.
    pub ca_data: String,
}

/// An extended resource that an extender looks after.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ManagedResource {
    /// The resource.
    pub name: String,
    /// Whether NodeResourcesFit leaves it alone.
    #[serde(default)]
    pub ignored_by_scheduler: bool,
}

impl Configuration {
    /// Reads a configuration.
    ///
    /// # Errors
    /// The first thing that does not fit the format, or another version or kind.
    pub fn from_value(value: Value) -> Result<Self, ConfigError> {
        let read: Configuration = serde_json::from_value(value)
            .map_err(|e| ConfigError::new("", format!("strict decoding error: {e}")))?;
        if read.api_version != API_VERSION || read.kind != "KubeSchedulerConfiguration" {
            let message =
                format!("no kind \"{}\" is registered for version \"{}\"", read.kind, read.api_version);
            return Err(ConfigError::new("", message));
        }
        Ok(read)
    }
}
