//! The audit policy: how much is told of which request. `audit.k8s.io/v1` Policy, read from YAML or JSON.

use crate::auth::Attributes;
use serde::Deserialize;
use std::fmt;

/// How much of a request is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who did what, when, and how it ended.
    Metadata,
    /// The body of the request too.
    Request,
    /// The body of the answer too.
    RequestResponse,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// When something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// The request came in.
    RequestReceived,
    /// A stream began.
    ResponseStarted,
    /// All was answered.
    ResponseComplete,
    /// The server failed in the middle.
    Panic,
}

impl Stage {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// Why a policy is not usable: every mistake, each with its field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError(pub Vec<String>);

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the audit policy is invalid: {}", self.0.join("; "))
    }
}

impl std::error::Error for PolicyError {}

/// Which requests are told of, and how much of each. The first rule that fits a request counts; one that none fits is not told of.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    api_version: String,
    kind: String,
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    level: Option<Level>,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What a policy says of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) level: Level,
    /// A bit for each stage that is left out.
    omitted: u8,
    pub(super) omit_managed_fields: bool,
}

impl Verdict {
    pub(super) fn tells(self, stage: Stage) -> bool {
        self.omitted & (1 << stage as u8) == 0
    }
}

impl Policy {
    /// A policy out of its YAML or JSON.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy: Policy = serde_saphyr::from_str(text).map_err(|e| PolicyError(vec![e.to_string()]))?;
        let mut wrong = Vec::new();
        let version = policy.api_version.as_str();
        if version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            wrong.push(format!(
                "apiVersion, kind: {version:?} {:?} is no audit.k8s.io/v1 Policy",
                policy.kind
            ));
        }
        if policy.rules.is_empty() {
            wrong.push("rules: Required value: a policy without rules tells nothing".to_owned());
        }
        for (i, rule) in policy.rules.iter().enumerate() {
            rule.check(&format!("rules[{i}]"), &mut wrong);
        }
        if wrong.is_empty() { Ok(policy) } else { Err(PolicyError(wrong)) }
    }

    /// A policy for a start: writes with their bodies, reads without, secrets and tokens never with more than who and when; probes,
    /// documents, and what the system's own parts do to events and leases all the time, not at all.
    pub fn recommended() -> Self {
        let rule = |level: Level| Rule { level: Some(level), ..Rule::default() };
        let of = |group: &str, resources: &[&str]| GroupResources {
            group: group.to_owned(),
            resources: resources.iter().map(|r| (*r).to_owned()).collect(),
            resource_names: Vec::new(),
        };
        let texts = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let silent = texts(&[
            "/healthz*",
            "/livez*",
            "/readyz*",
            "/version",
            "/openapi*",
            "/api",
            "/apis*",
            "/metrics*",
        ]);
        let system = texts(&["system:nodes", "system:masters", "system:serviceaccounts:kube-system"]);
        let secret = [
            of("", &["secrets", "configmaps", "serviceaccounts/token"]),
            of("authentication.k8s.io", &["tokenreviews"]),
            of("certificates.k8s.io", &["certificatesigningrequests"]),
        ];
        Policy {
            api_version: "audit.k8s.io/v1".to_owned(),
            kind: "Policy".to_owned(),
            rules: vec![
                Rule { non_resource_urls: silent, ..rule(Level::None) },
                Rule { resources: secret.into(), ..rule(Level::Metadata) },
                Rule {
                    resources: vec![of("", &["events"]), of("events.k8s.io", &["events"])],
                    ..rule(Level::None)
                },
                Rule {
                    user_groups: system,
                    resources: vec![of("coordination.k8s.io", &["leases"])],
                    ..rule(Level::None)
                },
                Rule { verbs: texts(&["get", "list", "watch"]), ..rule(Level::Metadata) },
                rule(Level::Request),
            ],
            omit_stages: vec![Stage::RequestReceived],
            omit_managed_fields: true,
        }
    }

    /// Tells everything of everything: for tests, and for hosts that filter by themselves.
    pub fn everything() -> Self {
        let rules = vec![Rule { level: Some(Level::RequestResponse), ..Rule::default() }];
        Policy {
            api_version: "audit.k8s.io/v1".to_owned(),
            kind: "Policy".to_owned(),
            rules,
            ..Policy::default()
        }
    }

    pub(super) fn verdict(&self, a: &Attributes<'_>) -> Verdict {
        let Some(rule) = self.rules.iter().find(|r| r.fits(a)) else { return Verdict::default() };
        let bits = |stages: &[Stage]| stages.iter().fold(0, |bits, stage| bits | (1 << *stage as u8));
        Verdict {
            level: rule.level.unwrap_or_default(),
            omitted: bits(&rule.omit_stages) | bits(&self.omit_stages),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn check(&self, path: &str, wrong: &mut Vec<String>) {
        if self.level.is_none() {
            wrong.push(format!(
                "{path}.level: Required value: supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\""
            ));
        }
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if !self.non_resource_urls.is_empty() && of_resources {
            wrong.push(format!(
                "{path}.nonResourceURLs: Invalid value: rules cannot apply to both regular resources and non-resource URLs"
            ));
        }
        for (i, url) in self.non_resource_urls.iter().enumerate() {
            let at = format!("{path}.nonResourceURLs[{i}]: Invalid value: {url:?}");
            if url != "*" && !url.starts_with('/') {
                wrong.push(format!("{at}: non-resource URL rules must begin with a '/' character"));
            } else if url.trim_end_matches('*').contains('*') || url.ends_with("**") {
                wrong.push(format!(
                    "{at}: non-resource URL wildcards '*' must be the final character of the rule"
                ));
            }
        }
        for (i, of) in self.resources.iter().enumerate() {
            if of.group.contains('/') {
                let group = &of.group;
                wrong.push(format!(
                    "{path}.resources[{i}].group: Invalid value: {group:?}: a group has no version"
                ));
            }
            if !of.resource_names.is_empty() && of.resources.is_empty() {
                let why = "using resourceNames requires at least one resource";
                wrong.push(format!("{path}.resources[{i}].resourceNames: Invalid value: {why}"));
            }
        }
    }

    fn fits(&self, a: &Attributes<'_>) -> bool {
        let user = a.user.username.as_deref().unwrap_or("");
        if !self.users.is_empty() && !self.users.iter().any(|u| u == user) {
            return false;
        }
        let in_group = |g: &String| a.user.groups.iter().flatten().any(|own| own == g);
        if !self.user_groups.is_empty() && !self.user_groups.iter().any(in_group) {
            return false;
        }
        if !self.verbs.is_empty() && !self.verbs.iter().any(|v| v == "*" || v == a.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return a.path.is_none() && self.fits_resource(a);
        }
        if !self.non_resource_urls.is_empty() {
            let Some(path) = a.path else { return false };
            return self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => url == path,
            });
        }
        true
    }

    fn fits_resource(&self, a: &Attributes<'_>) -> bool {
        if !self.namespaces.is_empty() && !self.namespaces.iter().any(|n| n == a.namespace) {
            return false;
        }
        self.resources.is_empty()
            || self.resources.iter().any(|of| {
                of.group == a.group
                    && (of.resources.is_empty() || of.resources.iter().any(|r| of.names(r, a)))
            })
    }
}

impl GroupResources {
    fn names(&self, wanted: &str, a: &Attributes<'_>) -> bool {
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|n| n == a.name) {
            return false;
        }
        match wanted.split_once('/') {
            None => wanted == "*" || (a.subresource.is_empty() && wanted == a.resource),
            Some(("*", subresource)) => subresource == a.subresource,
            Some((resource, "*")) => resource == a.resource,
            Some((resource, subresource)) => resource == a.resource && subresource == a.subresource,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authenticated;
    use kubewright_core::{ApiRequest, GroupVersionResource, Target, Verb};

    fn request(verb: Verb, resource: &str, name: Option<&str>, subresource: Option<&str>) -> ApiRequest {
        let (group, plural) = resource.split_once('/').unwrap_or(("", resource));
        let resource = GroupVersionResource::new(group, "v1", plural);
        let mut request = ApiRequest::resource(verb, resource, Some("a"), name);
        if let Some(subresource) = subresource {
            request = request.subresource(subresource);
        }
        request.user = authenticated("jane", &["dev"]).into();
        request
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let policy = Policy::parse(
            r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [joe]
- level: RequestResponse
  resources: [{group: "", resources: [pods, pods/status], resourceNames: [x]}]
  omitManagedFields: true
- level: Request
  userGroups: [dev]
  verbs: [create]
  resources: [{group: apps}]
- level: Metadata
  resources: [{group: "", resources: ["*/scale", "nodes/*"]}]
  omitStages: [ResponseStarted]
- level: None
  nonResourceURLs: ["/healthz*", "/version"]
- level: Metadata
  namespaces: [kube-system]
"#,
        )
        .unwrap();
        let check = |request: &ApiRequest, want: Level| {
            let got = policy.verdict(&Attributes::of(request));
            assert_eq!(got.level, want, "{:?} {:?}", request.verb, request.target);
            got
        };
        let got = check(&request(Verb::Get, "pods", Some("x"), None), Level::RequestResponse);
        assert!(
            got.omit_managed_fields
                && !got.tells(Stage::RequestReceived)
                && got.tells(Stage::ResponseStarted)
        );
        check(&request(Verb::Get, "pods", Some("x"), Some("log")), Level::None);
        check(&request(Verb::Get, "pods", Some("y"), None), Level::None);
        check(&request(Verb::Create, "apps/deployments", None, None), Level::Request);
        check(&request(Verb::Update, "apps/deployments", Some("x"), None), Level::None);
        let got = check(&request(Verb::Update, "things", Some("x"), Some("scale")), Level::Metadata);
        assert!(!got.tells(Stage::ResponseStarted) && !got.tells(Stage::RequestReceived));
        check(&request(Verb::Get, "nodes", Some("x"), Some("proxy")), Level::Metadata);
        let path = |p: &str| ApiRequest::new(Verb::Get, Target::Path(p.to_owned()));
        check(&path("/healthz/etcd?verbose"), Level::None);
        check(&path("/metrics"), Level::None);
        let mut joe = request(Verb::Get, "pods", Some("x"), None);
        joe.user = authenticated("joe", &[]).into();
        check(&joe, Level::None);
    }

    #[test]
    fn secrets_are_never_told_with_their_bodies() {
        let policy = Policy::recommended();
        for (verb, resource, subresource) in [
            (Verb::Create, "secrets", None),
            (Verb::Update, "secrets", None),
            (Verb::Create, "serviceaccounts", Some("token")),
            (Verb::Create, "authentication.k8s.io/tokenreviews", None),
        ] {
            let request = request(verb, resource, Some("x"), subresource);
            assert_eq!(policy.verdict(&Attributes::of(&request)).level, Level::Metadata, "{resource}");
        }
        let pods = request(Verb::Create, "pods", None, None);
        assert_eq!(policy.verdict(&Attributes::of(&pods)).level, Level::Request);
    }

    #[test]
    fn mistakes_are_told_together() {
        let check = |text: &str, wanted: &[&str]| {
            let wrong = Policy::parse(text).unwrap_err().0.join("\n");
            assert!(wanted.iter().all(|w| wrong.contains(w)), "{wrong}");
        };
        check("apiVersion: v1\nkind: Pod", &["no audit.k8s.io/v1 Policy", "rules: Required value"]);
        check(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- nonResourceURLs: [a, '/*/b']\n  namespaces: [x]\n- level: None\n  resources: [{group: apps/v1, resourceNames: [x]}]",
            &[
                "rules[0].level: Required",
                "rules cannot apply to both",
                "nonResourceURLs[0]",
                "must be the final character",
                "rules[1].resources[0].group",
                "resourceNames requires",
            ],
        );
        check("rules: [{level: Loud}]", &["Loud"]);
        check("][", &[""]);
    }
}
