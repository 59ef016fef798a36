//! What pods and claims ask for stays within the limit ranges of their namespace, which also say what is asked for by default.

use super::json::{list, sub, text};
use super::{Admission, AdmissionRequest, Operation, forbidden};
use futures::future::BoxFuture;
use kubewright_core::quota::{Amounts, Half, pod_total};
use kubewright_core::{ApiError, GroupVersionResource, Quantity, meta};
use serde_json::{Value, json};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Above it thousandths no longer fit into 64 bits.
const MILLI_MAX: i64 = i64::MAX / 1000;

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitRanger;

fn ranges() -> GroupVersionResource {
    GroupVersionResource::new("", "v1", "limitranges")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Limited {
    Pod,
    Claim,
}

fn limited(request: &AdmissionRequest<'_>) -> Option<Limited> {
    if !request.resource.group.is_empty() {
        return None;
    }
    let found = match (request.resource.resource.as_str(), request.subresource, request.operation) {
        ("pods", None, Operation::Create) | ("pods", Some("resize"), Operation::Update) => Limited::Pod,
        ("persistentvolumeclaims", None, Operation::Create | Operation::Update) => Limited::Claim,
        _ => return None,
    };
    // What is going may still lose its finalizers.
    let going = request.old.is_some_and(meta::is_deleting);
    (!going && request.reader.has_any(&ranges(), request.namespace)).then_some(found)
}

impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        limited(request) == Some(Limited::Pod)
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        limited(request).is_some()
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let done = object.map_or(Ok(()), |pod| default(request, pod));
        Box::pin(std::future::ready(done))
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let done = object.map_or(Ok(()), |object| check(request, object));
        Box::pin(std::future::ready(done))
    }
}

fn read(request: &AdmissionRequest<'_>) -> Result<Vec<Value>, ApiError> {
    request.reader.list(&ranges(), request.namespace)?.iter().map(|range| range.value()).collect()
}

fn default(request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<(), ApiError> {
    for range in read(request)? {
        let (mut requests, mut limits) = (Amounts::default(), Amounts::default());
        for limit in list(sub(&range, "spec"), "limits").iter().filter(|l| text(l, "type") == "Container") {
            requests.0.extend(Amounts::parse(sub(limit, "defaultRequest")).0);
            limits.0.extend(Amounts::parse(sub(limit, "default")).0);
        }
        fill(pod, &requests, &limits);
    }
    Ok(())
}

/// Gives every container what it does not state, and tells so in an annotation.
fn fill(pod: &mut Value, requests: &Amounts, limits: &Amounts) {
    let mut told = Vec::new();
    for (kind, called) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(containers) = pod["spec"].get_mut(kind).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter(|c| c.is_object()) {
            let name = text(container, "name").to_owned();
            for (half, amounts, what) in [("requests", requests, "request"), ("limits", limits, "limit")] {
                let set = fill_half(container, half, amounts);
                if !set.is_empty() {
                    told.push(format!("{} {what} for {called} {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty()
        && let Some(metadata) = meta::metadata_mut(pod)
    {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if !annotations.is_object() {
            *annotations = json!({});
        }
        annotations[ANNOTATION] = json!(format!("LimitRanger plugin set: {}", told.join("; ")));
    }
}

fn fill_half(container: &mut Value, half: &str, amounts: &Amounts) -> Vec<String> {
    let stated = |c: &Value, name: &str| !c["resources"][half][name].is_null();
    let missing: Vec<String> =
        amounts.names().filter(|name| !stated(container, name)).map(str::to_owned).collect();
    for name in &missing {
        if !container["resources"].is_object() {
            container["resources"] = json!({});
        }
        if !container["resources"][half].is_object() {
            container["resources"][half] = json!({});
        }
        container["resources"][half][name] =
            json!(amounts.get(name).copied().unwrap_or_default().to_string());
    }
    missing
}

fn check(request: &AdmissionRequest<'_>, object: &Value) -> Result<(), ApiError> {
    let is_claim = limited(request) == Some(Limited::Claim);
    for range in read(request)? {
        let mut broken = Vec::new();
        for limit in list(sub(&range, "spec"), "limits") {
            let limit = Limit::read(limit);
            match (limit.kind.as_str(), is_claim) {
                ("PersistentVolumeClaim", true) => limit.check_claim(object, &mut broken),
                ("Container" | "Pod", false) => limit.check_pod(object, &mut broken),
                _ => {}
            }
        }
        if !broken.is_empty() {
            return Err(forbidden(request, object, &aggregate(broken)));
        }
    }
    Ok(())
}

/// As upstream writes several errors: each once, in brackets.
fn aggregate(broken: Vec<String>) -> String {
    if broken.len() == 1 {
        return broken.into_iter().next().unwrap_or_default();
    }
    let mut told: Vec<String> = Vec::with_capacity(broken.len());
    for text in broken {
        if !told.contains(&text) {
            told.push(text);
        }
    }
    if told.len() == 1 { told.remove(0) } else { format!("[{}]", told.join(", ")) }
}

/// One item of a limit range.
struct Limit {
    kind: String,
    min: Amounts,
    max: Amounts,
    ratio: Amounts,
}

impl Limit {
    fn read(limit: &Value) -> Self {
        Limit {
            kind: text(limit, "type").to_owned(),
            min: Amounts::parse(sub(limit, "min")),
            max: Amounts::parse(sub(limit, "max")),
            ratio: Amounts::parse(sub(limit, "maxLimitRequestRatio")),
        }
    }

    fn check_pod(&self, pod: &Value, broken: &mut Vec<String>) {
        if self.kind == "Pod" {
            let mut bare = pod.clone();
            // What the runtime needs beside is not the user's business.
            if let Some(spec) = bare.get_mut("spec").and_then(Value::as_object_mut) {
                spec.remove("overhead");
            }
            return self.check_all(
                &pod_total(&bare, Half::Requests),
                &pod_total(&bare, Half::Limits),
                broken,
            );
        }
        for container in
            list(sub(pod, "spec"), "containers").iter().chain(list(sub(pod, "spec"), "initContainers"))
        {
            let half = |half: &str| Amounts::parse(sub(sub(container, "resources"), half));
            self.check_all(&half("requests"), &half("limits"), broken);
        }
    }

    fn check_all(&self, requests: &Amounts, limits: &Amounts, broken: &mut Vec<String>) {
        for (name, bound) in &self.min.0 {
            broken.extend(self.below(name, bound, requests.get(name), limits.get(name)));
        }
        for (name, bound) in &self.max.0 {
            broken.extend(self.above(name, bound, requests.get(name), limits.get(name)));
        }
        for (name, bound) in &self.ratio.0 {
            broken.extend(self.stretched(name, bound, requests.get(name), limits.get(name)));
        }
    }

    fn check_claim(&self, claim: &Value, broken: &mut Vec<String>) {
        let requests = Amounts::parse(&claim["spec"]["resources"]["requests"]);
        for (name, bound) in &self.min.0 {
            broken.extend(self.below(name, bound, requests.get(name), None));
        }
        for (name, bound) in &self.max.0 {
            let say = |rest: String| Some(format!("maximum {name} usage per {} is {bound}{rest}", self.kind));
            broken.extend(match requests.get(name) {
                None => say(".  No request is specified".to_owned()),
                Some(request) if exceeds(request, bound) => say(format!(", but request is {request}")),
                Some(_) => None,
            });
        }
    }

    fn below(
        &self,
        name: &str,
        bound: &Quantity,
        request: Option<&Quantity>,
        limit: Option<&Quantity>,
    ) -> Option<String> {
        let say = |rest: String| Some(format!("minimum {name} usage per {} is {bound}{rest}", self.kind));
        match (request, limit) {
            (None, _) => say(".  No request is specified".to_owned()),
            (Some(request), _) if exceeds(bound, request) => say(format!(", but request is {request}")),
            (_, Some(limit)) if exceeds(bound, limit) => say(format!(", but limit is {limit}")),
            _ => None,
        }
    }

    fn above(
        &self,
        name: &str,
        bound: &Quantity,
        request: Option<&Quantity>,
        limit: Option<&Quantity>,
    ) -> Option<String> {
        let say = |rest: String| Some(format!("maximum {name} usage per {} is {bound}{rest}", self.kind));
        match (request, limit) {
            (_, None) => say(".  No limit is specified".to_owned()),
            (_, Some(limit)) if exceeds(limit, bound) => say(format!(", but limit is {limit}")),
            (Some(request), _) if exceeds(request, bound) => say(format!(", but request is {request}")),
            _ => None,
        }
    }

    fn stretched(
        &self,
        name: &str,
        bound: &Quantity,
        request: Option<&Quantity>,
        limit: Option<&Quantity>,
    ) -> Option<String> {
        let say = |rest: String| {
            Some(format!("{name} max limit to request ratio per {} is {bound}, but {rest}", self.kind))
        };
        let given = |amount: Option<&Quantity>| amount.filter(|a| !a.is_zero()).map(Quantity::as_f64);
        let Some(request) = given(request) else {
            return say("no request is specified or request is 0".to_owned());
        };
        let Some(limit) = given(limit) else { return say("no limit is specified or limit is 0".to_owned()) };
        let ratio = limit / request;
        if ratio > bound.as_f64() { say(format!("provided ratio is {ratio:.6}")) } else { None }
    }
}

/// Whether one amount is more than another, in thousandths as far as these fit.
fn exceeds(amount: &Quantity, bound: &Quantity) -> bool {
    if amount.value() <= MILLI_MAX && bound.value() <= MILLI_MAX {
        amount.milli_value() > bound.milli_value()
    } else {
        amount.value() > bound.value()
    }
}
