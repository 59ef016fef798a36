//! One webhook, compiled.

use crate::admission::matching::Rule;
use crate::admission::policy::MatchConditions;
use crate::outbound::Endpoint;
use kubewright_core::Selector;
use serde_json::Value;
use smol_str::SmolStr;
use std::time::Duration;

/// The time that a webhook without one gets, in seconds, as upstream's default.
const TIMEOUT_SECONDS: u64 = 10;

/// The version of the review that a webhook is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReviewVersion {
    V1,
    V1Beta1,
}

impl ReviewVersion {
    pub(super) fn api_version(self) -> &'static str {
        match self {
            ReviewVersion::V1 => "admission.k8s.io/v1",
            ReviewVersion::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// A webhook of a configuration.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) configuration: SmolStr,
    pub(super) name: String,
    /// What tells it from all others, for the second run.
    pub(super) uid: String,
    pub(super) rules: Vec<Rule>,
    /// Whether it is also asked about the same objects in other versions.
    pub(super) equivalent: bool,
    pub(super) namespaces: Selector,
    pub(super) objects: Selector,
    /// Where it is, or why that can't be told.
    pub(super) endpoint: Result<Endpoint, String>,
    pub(super) timeout: Duration,
    /// Whether a failed call lets the request through.
    pub(super) ignores_failure: bool,
    /// Whether it may be asked in a dry run; `None` where it does not say.
    pub(super) dry_runs: Option<bool>,
    /// The first version that it knows; `None` where it knows none of ours.
    pub(super) version: Option<ReviewVersion>,
    /// Whether it is asked again when others changed the object after it.
    pub(super) reinvoked: bool,
    /// What has to hold of a request for it to be asked.
    pub(super) conditions: MatchConditions,
}

impl Hook {
    pub(super) fn of(configuration: &str, place: usize, hook: &Value) -> Self {
        let text = |field: &str| hook[field].as_str().unwrap_or("");
        let items = |field: &str| hook[field].as_array().into_iter().flatten();
        let selector = |field: &str| {
            // One that does not parse was refused when it was written.
            let found = hook.get(field).filter(|s| !s.is_null());
            found.map_or_else(Selector::everything, |s| {
                Selector::from_value(Some(s)).unwrap_or_else(|_| Selector::nothing())
            })
        };
        let version = items("admissionReviewVersions").find_map(|v| match v.as_str() {
            Some("v1") => Some(ReviewVersion::V1),
            Some("v1beta1") => Some(ReviewVersion::V1Beta1),
            _ => None,
        });
        Hook {
            configuration: SmolStr::new(configuration),
            name: text("name").to_owned(),
            uid: format!("{configuration}/{}/{place}", text("name")),
            rules: items("rules").map(Rule::of).collect(),
            equivalent: text("matchPolicy") != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            endpoint: Endpoint::of_client_config(&hook["clientConfig"]),
            timeout: Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS)),
            ignores_failure: text("failurePolicy") == "Ignore",
            dry_runs: match text("sideEffects") {
                "" => None,
                effects => Some(matches!(effects, "None" | "NoneOnDryRun")),
            },
            version,
            reinvoked: text("reinvocationPolicy") == "IfNeeded",
            conditions: MatchConditions::compile(hook),
        }
    }

    /// The plurals that its rules name; `None` where one names all.
    pub(super) fn plurals(&self) -> Option<Vec<SmolStr>> {
        let mut plurals = Vec::new();
        for rule in &self.rules {
            plurals.extend(rule.plurals()?.cloned());
        }
        Some(plurals)
    }
}
