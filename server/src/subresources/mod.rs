//! What stands below an object: status, scale, and the calls of single kinds.

mod binding;
mod eviction;
mod node_calls;
mod proxy;
mod scale;
mod status;
mod token;

pub(crate) use status::is_bare;

use crate::handlers::Call;
use crate::server::method_not_allowed;
use kubewright_core::{ApiError, ApiResponse, KindDescriptor, Verb};

/// What discovery says of a subresource.
pub(crate) struct Subresource {
    pub(crate) name: &'static str,
    /// `(group, version, kind)` of what it takes; none means the kind itself.
    pub(crate) kind: Option<(&'static str, &'static str, &'static str)>,
    pub(crate) verbs: &'static [Verb],
}

const PROXIED: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];
const READ_WRITE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

/// The subresources of a kind, in discovery's order.
pub(crate) fn of(kind: &KindDescriptor) -> Vec<Subresource> {
    let sub = |name, kind, verbs| Subresource { name, kind, verbs };
    let mut all = Vec::new();
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => {
            let options = |kind| Some(("", "v1", kind));
            all.push(sub("attach", options("PodAttachOptions"), &[Verb::Create, Verb::Get]));
            all.push(sub("binding", options("Binding"), &[Verb::Create]));
            all.push(sub("ephemeralcontainers", None, READ_WRITE));
            all.push(sub("eviction", Some(("policy", "v1", "Eviction")), &[Verb::Create]));
            all.push(sub("exec", options("PodExecOptions"), &[Verb::Create, Verb::Get]));
            all.push(sub("log", None, &[Verb::Get]));
            all.push(sub("portforward", options("PodPortForwardOptions"), &[Verb::Create, Verb::Get]));
            all.push(sub("proxy", options("PodProxyOptions"), PROXIED));
            all.push(sub("resize", None, READ_WRITE));
        }
        ("certificates.k8s.io", "certificatesigningrequests") => {
            all.push(sub("approval", None, READ_WRITE));
        }
        ("", "namespaces") => all.push(sub("finalize", None, &[Verb::Update])),
        ("", "serviceaccounts") => {
            let request = Some(("authentication.k8s.io", "v1", "TokenRequest"));
            all.push(sub("token", request, &[Verb::Create]));
        }
        ("", "services") => all.push(sub("proxy", Some(("", "v1", "ServiceProxyOptions")), PROXIED)),
        ("", "nodes") => all.push(sub("proxy", Some(("", "v1", "NodeProxyOptions")), PROXIED)),
        _ => {}
    }
    if kind.scale.is_some() {
        all.push(sub("scale", Some(("autoscaling", "v1", "Scale")), READ_WRITE));
    }
    if kind.status {
        all.push(sub("status", None, READ_WRITE));
    }
    all
}

/// Answers a request for a subresource.
pub(crate) async fn handle(call: Call, subresource: &str) -> Result<ApiResponse, ApiError> {
    let kind = call.kind.descriptor.clone();
    let Some(known) =
        of(&kind).into_iter().find(|s| s.name == subresource.split('/').next().unwrap_or(subresource))
    else {
        return Err(ApiError::no_such_path());
    };
    if !known.verbs.contains(&call.verb) {
        return Err(method_not_allowed());
    }
    match known.name {
        "status" | "finalize" | "approval" | "ephemeralcontainers" | "resize" => {
            status::handle(call, known.name).await
        }
        "scale" => scale::handle(call).await,
        "binding" => binding::create(call).await,
        "eviction" => eviction::create(call).await,
        "token" => token::create(call).await,
        "log" => node_calls::log(call).await,
        "exec" => node_calls::exec(call).await,
        "attach" => node_calls::attach(call).await,
        "proxy" => proxy::handle(call).await,
        _ => node_calls::port_forward(call).await,
    }
}
