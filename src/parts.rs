//! What a control plane can be composed of: every part goes in through the same `.with(...)`.
//!
//! Any `FnOnce(&mut Builder)` is a part, and so are tuples and vectors of parts; a bundle is nothing but a function.

#[cfg(feature = "reconcile")]
mod controllers;
#[cfg(feature = "controllers")]
mod scheduler;

#[cfg(feature = "reconcile")]
pub use controllers::controller;
#[cfg(feature = "controllers")]
pub use scheduler::{scheduler, scheduler_from, scheduler_with};

use crate::plane::Builder;
use crate::{BuildError, Https};
use kubewright_core::{ApiError, ApiRequest, ApiResponse, Described, Entropy, KindDescriptor, SharedClock};
use kubewright_server::VirtualResource;
use kubewright_server::admission::{Admission, historic};
use kubewright_server::audit::Audit;
use kubewright_server::auth::{Access, Authorizer};
use kubewright_server::flow::MaxInFlight;
use kubewright_store::Store;
use std::path::PathBuf;
use std::sync::Arc;
use tower::Service;
use tower::util::BoxCloneSyncService;

/// The API as layers see it.
pub type ApiService = BoxCloneSyncService<ApiRequest, ApiResponse, ApiError>;

/// Something that can be added to a control plane.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no part of a control plane",
    note = "see `kubewright::parts`; a closure `|builder: &mut Builder| ...`, a `Controller` and tuples of parts are parts too"
)]
pub trait Part {
    /// Adds itself. Mistakes are noted in the builder and reported together by [`Builder::build`].
    fn add(self, builder: &mut Builder);
}

impl<F: FnOnce(&mut Builder)> Part for F {
    fn add(self, builder: &mut Builder) {
        self(builder);
    }
}

impl Part for Https {
    fn add(self, builder: &mut Builder) {
        builder.https = Some(self);
        builder.once("the HTTPS server");
    }
}

macro_rules! tuples {
    ($($name:ident)+) => {
        impl<$($name: Part),+> Part for ($($name,)+) {
            #[expect(non_snake_case, reason = "the names of the types serve as names of the values")]
            fn add(self, builder: &mut Builder) {
                let ($($name,)+) = self;
                $($name.add(builder);)+
            }
        }
    };
}
tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);

/// Where the plane keeps its objects.
pub fn store(store: impl Store) -> impl Part {
    shared_store(Arc::new(store))
}

/// Where the plane keeps its objects, shared with others.
pub fn shared_store(store: Arc<dyn Store>) -> impl Part {
    |builder: &mut Builder| {
        builder.store = Some(store);
        builder.once("the store");
    }
}

/// Keeps the objects of a resource (its group and plural) in memory only, beside a store on disk; see
/// [`kubewright_server::ApiServerBuilder::in_memory`].
pub fn in_memory(group: &str, resource: &str) -> impl Part {
    let id = (group.to_owned(), resource.to_owned());
    move |builder: &mut Builder| builder.in_memory.push(id)
}

/// Leases and Events in memory only: heartbeats then cost no disk. After a restart leaders are elected anew and nodes beat again.
pub fn heartbeats_in_memory() -> impl Part {
    (
        in_memory("coordination.k8s.io", "leases"),
        in_memory("", "events"),
        in_memory("events.k8s.io", "events"),
    )
}

/// How long events are kept after their last write; an hour by default, zero for ever.
pub fn event_ttl(ttl: std::time::Duration) -> impl Part {
    move |builder: &mut Builder| {
        builder.event_ttl = Some(ttl);
        builder.once("how long events are kept");
    }
}

/// Serves a kind of the host.
pub fn kind<K: Described>() -> impl Part {
    descriptor(K::descriptor())
}

/// Serves a kind by its descriptor.
pub fn descriptor(kind: KindDescriptor) -> impl Part {
    |builder: &mut Builder| {
        let resource = crate::checks::told(&kind.resource());
        if builder.registry.insert(kind).is_err() {
            builder.errors.push(BuildError::DuplicateKind(resource));
        }
    }
}

/// An admission plugin, after the built-in ones.
pub fn admission(plugin: impl Admission) -> impl Part {
    move |builder: &mut Builder| builder.admission.push(Arc::new(plugin))
}

/// An admission plugin that asks the plane's authorizer, such as `PodSecurityPolicyAdmission`; made when that is there.
pub fn admission_with<A: Admission>(
    make: impl FnOnce(Arc<dyn Authorizer>) -> A + Send + 'static,
) -> impl Part {
    move |builder: &mut Builder| {
        builder.late_admission.push(Box::new(move |authorizer| Arc::new(make(authorizer))));
    }
}

/// PodPresets, which Kubernetes once had: the kind and its admission.
pub fn pod_presets() -> impl Part {
    (kind::<historic::PodPreset>(), admission(historic::PodPresetAdmission))
}

/// PodSecurityPolicies, which Kubernetes once had: the kind and its admission.
pub fn pod_security_policies() -> impl Part {
    (kind::<historic::PodSecurityPolicy>(), admission_with(historic::PodSecurityPolicyAdmission::new))
}

/// A computed resource.
pub fn virtual_resource(resource: impl VirtualResource) -> impl Part {
    move |builder: &mut Builder| builder.virtuals.push(Arc::new(resource))
}

/// A layer around the whole API, outside of authorization; later ones are outside of earlier ones.
pub fn layer<S>(layer: impl FnOnce(ApiService) -> S + Send + 'static) -> impl Part
where
    S: Service<ApiRequest, Response = ApiResponse, Error = ApiError> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    move |builder: &mut Builder| {
        builder.layers.push(Box::new(move |inner| BoxCloneSyncService::new(layer(inner))));
    }
}

/// API priority and fairness: FlowSchemas and PriorityLevelConfigurations are made, kept and enforced.
pub fn priority_and_fairness() -> impl Part {
    |builder: &mut Builder| {
        builder.flow_control = true;
        builder.once("the limit of requests at once");
    }
}

/// A plain limit of requests at once, instead of priority and fairness. Without either, a plane with HTTPS has upstream's limits.
pub fn max_in_flight(limit: MaxInFlight) -> impl Part {
    move |builder: &mut Builder| {
        builder.in_flight = Some(limit);
        builder.once("the limit of requests at once");
    }
}

/// Tells of every request that the audit's policy names. Its policy sees callers of the same process as well.
pub fn audit(audit: Audit) -> impl Part {
    move |builder: &mut Builder| {
        builder.audit = Some(audit);
        builder.once("the audit");
    }
}

/// Changes how callers are known: `access(|access| Ok(access.bootstrap_tokens()))`, issuers of tokens, authenticators of the host's.
pub fn access(
    change: impl FnOnce(Access) -> Result<Access, Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
) -> impl Part {
    move |builder: &mut Builder| builder.access.push(Box::new(change))
}

/// Encrypts objects at rest, as an `EncryptionConfiguration` says; [`crate::RunningPlane::rewrite_encrypted`] brings what is stored already
/// into the form that is written now.
#[cfg(feature = "encryption")]
pub fn encryption(rules: Vec<kubewright_server::EncryptionRule>) -> impl Part {
    move |builder: &mut Builder| {
        builder.encryption = rules;
        builder.once("the encryption");
    }
}

/// Encrypts objects at rest, as the `EncryptionConfiguration` in this file says. It is read again when it changes, within a minute; one with
/// mistakes changes nothing, but at the start, which fails then.
#[cfg(feature = "encryption")]
pub fn encryption_file(path: impl Into<PathBuf>) -> impl Part {
    let path = path.into();
    move |builder: &mut Builder| {
        builder.encryption_file = Some(path);
        builder.once("the encryption");
    }
}

/// Who may do what, instead of RBAC.
pub fn authorizer(authorizer: impl Authorizer) -> impl Part {
    move |builder: &mut Builder| {
        builder.authorizer = Some(Arc::new(authorizer));
        builder.once("the authorizer");
    }
}

/// Where the time comes from.
pub fn clock(clock: SharedClock) -> impl Part {
    move |builder: &mut Builder| {
        builder.clock = clock;
        builder.once("the clock");
    }
}

/// Where names, uids and tie-breaks come from: equal seeds give equal planes.
pub fn seed(seed: u64) -> impl Part {
    move |builder: &mut Builder| {
        builder.entropy = Arc::new(Entropy::from_seed(seed));
        builder.once("the seed");
    }
}

/// The folder in which the authority and the keys of the plane are kept (mode 0700); without one they are made anew at each start.
pub fn keys(folder: impl Into<PathBuf>) -> impl Part {
    let folder = folder.into();
    move |builder: &mut Builder| {
        builder.keys = Some(folder);
        builder.once("the folder of keys");
    }
}

/// The range of cluster IPs.
pub fn service_cidr(cidr: &str) -> impl Part {
    let cidr = cidr.to_owned();
    move |builder: &mut Builder| {
        builder.service_cidr = Some(cidr);
        builder.once("the range of cluster IPs");
    }
}
