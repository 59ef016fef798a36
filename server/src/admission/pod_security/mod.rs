//! The pod security standards: what pods may do is said by the labels of their namespace.

mod checks;
mod policy;

pub use policy::{Level, LevelVersion, Policy, Version};

use super::json::{at, containers, list, sub, text};
use super::{Admission, AdmissionRequest, Operation, forbidden};
use checks::{Found, evaluate, told};
use futures::future::BoxFuture;
use kubewright_core::{ApiError, ErrorList, GroupVersionResource, LabelMap, meta};
use serde_json::Value;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// The most pods of a namespace that a new level is tried on.
const PODS_TRIED_MAX: usize = 3000;

/// Upstream's plugin of this name. Namespaces without labels are held to the default policy, which forbids nothing unless set.
#[derive(Clone, Debug, Default)]
pub struct PodSecurity {
    default: Policy,
    users: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    runtime_classes: BTreeSet<String>,
}

impl PodSecurity {
    /// Forbids nothing but what namespaces ask for.
    pub fn new() -> Self {
        Self::default()
    }

    /// What namespaces are held to that don't say otherwise.
    #[must_use]
    pub fn default_policy(mut self, policy: Policy) -> Self {
        self.default = policy;
        self
    }

    /// What this user does is not looked at.
    #[must_use]
    pub fn exempt_user(mut self, name: &str) -> Self {
        self.users.insert(name.to_owned());
        self
    }

    /// What happens in this namespace is not looked at.
    #[must_use]
    pub fn exempt_namespace(mut self, name: &str) -> Self {
        self.namespaces.insert(name.to_owned());
        self
    }

    /// Pods of this runtime class are not looked at.
    #[must_use]
    pub fn exempt_runtime_class(mut self, name: &str) -> Self {
        self.runtime_classes.insert(name.to_owned());
        self
    }
}

/// What a request is about, as far as this plugin cares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Concern {
    Pod,
    /// A workload, whose template is at this place.
    Template(&'static [&'static str]),
    Namespace,
}

const PLAIN: &[&str] = &["template"];
const SPEC: &[&str] = &["spec", "template"];
const CRON: &[&str] = &["spec", "jobTemplate", "spec", "template"];

fn concern(request: &AdmissionRequest<'_>) -> Option<Concern> {
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return None;
    }
    let (group, resource) = (request.resource.group.as_str(), request.resource.resource.as_str());
    let whole = request.subresource.is_none();
    Some(match (group, resource) {
        ("", "pods") if whole || matches!(request.subresource, Some("ephemeralcontainers" | "resize")) => {
            Concern::Pod
        }
        ("", "namespaces") if whole => Concern::Namespace,
        ("", "podtemplates") if whole => Concern::Template(PLAIN),
        ("", "replicationcontrollers") if whole => Concern::Template(SPEC),
        ("apps", "deployments" | "replicasets" | "daemonsets" | "statefulsets") if whole => {
            Concern::Template(SPEC)
        }
        ("batch", "jobs") if whole => Concern::Template(SPEC),
        ("batch", "cronjobs") if whole => Concern::Template(CRON),
        _ => return None,
    })
}

impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn mutates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        concern(request).is_some()
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let done = match (concern(request), object) {
            (Some(Concern::Namespace), Some(object)) => self.check_namespace(request, object),
            (Some(concern), Some(object)) => self.check_pod(request, concern, object),
            _ => Ok(()),
        };
        Box::pin(std::future::ready(done))
    }
}

fn labels_of(request: &AdmissionRequest<'_>) -> Result<LabelMap, ApiError> {
    let namespaces = GroupVersionResource::new("", "v1", "namespaces");
    match request.reader.get(&namespaces, "", request.namespace) {
        Ok(Some(namespace)) if has_policy(namespace.header().labels.keys().map(SmolStr::as_str)) => {
            Ok(namespace.header().labels.clone())
        }
        Ok(_) => Ok(LabelMap::default()),
        Err(e) if e.is_not_found() => Ok(LabelMap::default()),
        Err(e) => Err(e),
    }
}

fn has_policy<'a>(mut keys: impl Iterator<Item = &'a str>) -> bool {
    keys.any(|key| key.starts_with(policy::PREFIX))
}

impl PodSecurity {
    fn policy_of(&self, namespace: &Value) -> (Policy, ErrorList) {
        let labels = meta::labels(namespace);
        self.default.labelled(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str))
    }

    fn check_pod(
        &self,
        request: &AdmissionRequest<'_>,
        concern: Concern,
        object: &Value,
    ) -> Result<(), ApiError> {
        let labels = labels_of(request)?;
        let (policy, errors) = self.default.labelled(|key| labels.get(key).map(SmolStr::as_str));
        if errors.is_empty() && policy.is_idle() {
            return Ok(());
        }
        let note = |key: &str, text: String| request.notes.annotate(format!("{}{key}", policy::PREFIX), text);
        let user = request.user.username.as_deref().unwrap_or("");
        if self.namespaces.contains(request.namespace) || self.users.contains(user) {
            let why = if self.users.contains(user) { "user" } else { "namespace" };
            note("exempt", why.to_owned());
            return Ok(());
        }
        let pod = match concern {
            Concern::Template(path) => at(object, path),
            _ => object,
        };
        if pod.is_null() || request.old.is_some_and(|old| concern == Concern::Pod && !matters(object, old)) {
            return Ok(());
        }
        if self.runtime_classes.contains(text(sub(pod, "spec"), "runtimeClassName")) {
            note("exempt", "runtimeClass".to_owned());
            return Ok(());
        }
        if !errors.is_empty() {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            note("error", format!("Failed to parse policy: {}", all.join(", ")));
        }
        let mut refusal = None;
        if concern == Concern::Pod {
            note("enforce-policy", policy.enforce.to_string());
            let found = evaluate(policy.enforce, pod);
            if !found.is_empty() {
                let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, told(&found));
                refusal = Some(forbidden(request, object, &why));
            }
        }
        let would = |level: LevelVersion, found: &[Found]| {
            format!("would violate PodSecurity \"{level}\": {}", told(found))
        };
        let found = evaluate(policy.audit, pod);
        if !found.is_empty() {
            note("audit-violations", would(policy.audit, &found));
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let found = evaluate(policy.warn, pod);
        if !found.is_empty() {
            request.notes.warn(would(policy.warn, &found));
        }
        Ok(())
    }

    fn check_namespace(&self, request: &AdmissionRequest<'_>, namespace: &Value) -> Result<(), ApiError> {
        let keys = meta::labels(namespace).into_iter().flat_map(|l| l.keys().map(String::as_str));
        if !has_policy(keys) && request.old.is_none() {
            return Ok(());
        }
        let (new, errors) = self.policy_of(namespace);
        let before = request.old.map(|old| self.policy_of(old));
        let unchanged = before.as_ref().is_some_and(|(_, old)| *old == errors);
        if !errors.is_empty() && !unchanged {
            return Err(ApiError::invalid("", "Namespace", meta::name(namespace), &errors));
        }
        let Some((old, _)) = before else { return Ok(()) };
        let relaxed = new.enforce.version == old.enforce.version && new.enforce.level <= old.enforce.level;
        if new.enforce == old.enforce || new.enforce.level == Level::Privileged || relaxed {
            return Ok(());
        }
        if !self.namespaces.contains(meta::name(namespace)) {
            self.try_on_pods(request, meta::name(namespace), new.enforce)?;
        }
        Ok(())
    }

    /// Warns of the pods that are there already and would be refused now.
    fn try_on_pods(
        &self,
        request: &AdmissionRequest<'_>,
        namespace: &str,
        wanted: LevelVersion,
    ) -> Result<(), ApiError> {
        let pods = match request.reader.list(&GroupVersionResource::new("", "v1", "pods"), namespace) {
            Err(e) if e.is_not_found() => return Ok(()),
            other => other?,
        };
        let mut warnings: BTreeMap<String, Vec<SmolStr>> = BTreeMap::new();
        for pod in pods.iter().take(PODS_TRIED_MAX) {
            let value = pod.value()?;
            if self.runtime_classes.contains(text(sub(&value, "spec"), "runtimeClassName")) {
                continue;
            }
            let found = evaluate(wanted, &value);
            if !found.is_empty() {
                let reasons: Vec<&str> = found.iter().map(|(reason, _)| *reason).collect();
                warnings.entry(reasons.join(", ")).or_default().push(pod.header().name.clone());
            }
        }
        if pods.len() > PODS_TRIED_MAX {
            request.notes.warn(format!(
                "new PodSecurity enforce level only checked against the first {PODS_TRIED_MAX} of {} existing pods",
                pods.len()
            ));
        }
        if !warnings.is_empty() {
            request.notes.warn(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{wanted}\""
            ));
        }
        let mut told: Vec<String> = warnings.into_iter().map(|(why, pods)| of_pods(&why, &pods)).collect();
        told.sort();
        told.into_iter().for_each(|warning| request.notes.warn(warning));
        Ok(())
    }
}

/// `a (and 2 other pods): privileged`.
fn of_pods(why: &str, pods: &[SmolStr]) -> String {
    let first = pods.iter().min().map_or("", SmolStr::as_str);
    match pods.len() {
        0 | 1 => format!("{first}: {why}"),
        2 => format!("{first} (and 1 other pod): {why}"),
        n => format!("{first} (and {} other pods): {why}", n - 1),
    }
}

/// Whether an update of a pod changes anything that checks look at: images do not, but only they and a few other fields can change.
fn matters(pod: &Value, old: &Value) -> bool {
    let annotations = |pod| {
        let all = meta::annotations(pod).into_iter().flatten();
        let looked_at =
            |key: &str| key.contains("seccomp.security.alpha.") || key.contains("apparmor.security.beta.");
        all.filter(|(key, _)| looked_at(key)).map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>()
    };
    if annotations(pod) != annotations(old) {
        return true;
    }
    let (new, old) = (sub(pod, "spec"), sub(old, "spec"));
    let count = |spec: &Value, kind: &str| list(spec, kind).len();
    if ["containers", "initContainers"].iter().any(|kind| count(new, kind) != count(old, kind)) {
        return true;
    }
    let looked_at = |container: &Value| {
        let mut rest = container.clone();
        if let Some(fields) = rest.as_object_mut() {
            fields.retain(|name, _| matches!(name.as_str(), "name" | "image" | "securityContext"));
        }
        rest
    };
    containers(new).any(|container| {
        let before = containers(old).find(|c| text(c, "name") == text(container, "name"));
        before.is_none_or(|before| looked_at(before) != looked_at(container))
    })
}
