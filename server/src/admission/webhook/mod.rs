//! Admission webhooks: what MutatingWebhookConfigurations and ValidatingWebhookConfigurations have others asked.
//!
//! The configurations are compiled when they change; a write that none of them names pays one look into a table.

mod call;
mod hook;
mod mutating;
mod review;
mod validating;

pub use mutating::MutatingWebhook;
pub use validating::ValidatingWebhook;

use super::matching::{self, equivalents};
use super::policy::AuthorizerSlot;
use super::{Admission, AdmissionRequest};
use crate::cache::{CacheEvent, Listener, ObjectCache, ResourceCache, Snapshot};
use crate::conversion::Converter;
use crate::keys::ResourceId;
use crate::outbound::Outbound;
use arc_swap::ArcSwap;
use hook::Hook;
use kubewright_core::{ApiError, Entropy, KindDescriptor, meta};
use rustc_hash::FxHashMap;
use serde_json::Value;
use smol_str::SmolStr;
use std::sync::Arc;

const GROUP: &str = "admissionregistration.k8s.io";
const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

/// The webhooks of one kind of configuration, as they are now.
#[derive(Default)]
struct Hooks {
    /// By the names of their configurations, then in the order in which they stand there.
    all: Vec<Arc<Hook>>,
    /// The places of those that name a plural, or every plural.
    by_plural: FxHashMap<SmolStr, Vec<usize>>,
    /// The places of those that name every plural.
    every: Vec<usize>,
}

impl Hooks {
    fn of(snapshot: &Snapshot) -> Self {
        let mut configurations: Vec<Value> =
            snapshot.range(b"", b"").filter_map(|(_, entry)| entry.shape.object.value().ok()).collect();
        configurations.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
        let mut hooks = Hooks::default();
        for configuration in &configurations {
            let listed = configuration["webhooks"].as_array().into_iter().flatten();
            for (i, hook) in listed.enumerate() {
                hooks.all.push(Arc::new(Hook::of(meta::name(configuration), i, hook)));
            }
        }
        hooks.index();
        hooks
    }

    fn index(&mut self) {
        let mut named: Vec<(usize, SmolStr)> = Vec::new();
        for (at, hook) in self.all.iter().enumerate() {
            match hook.plurals() {
                None => self.every.push(at),
                Some(plurals) => named.extend(plurals.into_iter().map(|plural| (at, plural))),
            }
        }
        for (at, plural) in named {
            self.by_plural.entry(plural).or_insert_with(|| self.every.clone()).push(at);
        }
        for places in self.by_plural.values_mut() {
            places.sort_unstable();
            places.dedup();
        }
    }

    /// The webhooks that may concern a resource, with their places among all.
    fn concerning(&self, plural: &str) -> &[usize] {
        self.by_plural.get(plural).map_or(&self.every, Vec::as_slice)
    }
}

/// The configurations, followed as they change.
pub(crate) struct Webhooks {
    mutating: ArcSwap<Hooks>,
    validating: ArcSwap<Hooks>,
    outbound: Arc<Outbound>,
    converter: Arc<Converter>,
    entropy: Arc<Entropy>,
    authorizer: Arc<AuthorizerSlot>,
}

impl Webhooks {
    pub(crate) fn new(
        outbound: Arc<Outbound>,
        converter: Arc<Converter>,
        entropy: Arc<Entropy>,
        authorizer: Arc<AuthorizerSlot>,
    ) -> Self {
        Webhooks {
            mutating: ArcSwap::default(),
            validating: ArcSwap::default(),
            outbound,
            converter,
            entropy,
            authorizer,
        }
    }

    /// An object as another kind that holds the same objects.
    async fn converted(
        &self,
        from: &KindDescriptor,
        to: &KindDescriptor,
        object: Option<&Value>,
    ) -> Result<Option<Value>, ApiError> {
        match object {
            None => Ok(None),
            Some(object) => self.converter.between(from, to, object).await.map(Some),
        }
    }

    /// The two plugins.
    pub(crate) fn plugins(self: &Arc<Self>) -> [Arc<dyn Admission>; 2] {
        [Arc::new(MutatingWebhook::new(self.clone())), Arc::new(ValidatingWebhook::new(self.clone()))]
    }

    fn take(&self, id: &ResourceId, snapshot: &Snapshot) {
        let place = match id.resource.as_str() {
            MUTATING => &self.mutating,
            VALIDATING => &self.validating,
            _ => return,
        };
        place.store(Arc::new(Hooks::of(snapshot)));
    }
}

impl Listener for Webhooks {
    fn changed(&self, resource: &ResourceCache, events: &[Arc<CacheEvent>]) {
        if resource.id.group == GROUP && !events.is_empty() {
            self.take(&resource.id, &resource.snapshot());
        }
    }

    fn reloaded(&self, cache: &ObjectCache) {
        for plural in [MUTATING, VALIDATING] {
            let id = ResourceId { group: GROUP.into(), resource: plural.into() };
            self.take(&id, &cache.resource(&id).snapshot());
        }
    }
}

/// A webhook that is to be asked, and as what kind it wants the object.
struct Invocation {
    hook: Arc<Hook>,
    /// Its place among all webhooks, as audit annotations tell it.
    index: usize,
    /// `None` for the kind of the request.
    kind: Option<Arc<KindDescriptor>>,
}

impl Webhooks {
    /// Whether a webhook is to be asked about a request.
    ///
    /// # Errors
    /// 404 where the namespace is not there, 403 where a condition fails.
    async fn invocation(
        &self,
        (index, hook): (usize, &Arc<Hook>),
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
    ) -> Result<Option<Invocation>, ApiError> {
        let Some(invocation) = invocation((index, hook), request, object)? else { return Ok(None) };
        if hook.conditions.is_empty() {
            return Ok(Some(invocation));
        }
        let (conditions, ignores) = (&hook.conditions, hook.ignores_failure);
        let holds = match invocation.kind.as_deref() {
            None => {
                let (kind, old) = (request.kind, request.old);
                conditions.check(request, kind, object, old, &self.authorizer, ignores).await
            }
            Some(kind) => {
                let own = self.converted(request.kind, kind, object).await?;
                let old = self.converted(request.kind, kind, request.old).await?;
                let (own, old) = (own.as_ref(), old.as_ref());
                conditions.check(request, kind, own, old, &self.authorizer, ignores).await
            }
        };
        match holds {
            Ok(true) => Ok(Some(invocation)),
            Ok(false) => Ok(None),
            Err(why) => {
                let resource = &request.resource;
                Err(ApiError::forbidden(&resource.group, &resource.resource, request.name, &why))
            }
        }
    }
}

/// Whether rules and selectors of a webhook take a request.
///
/// # Errors
/// 404 where the namespace is not there.
fn invocation(
    (index, hook): (usize, &Arc<Hook>),
    request: &AdmissionRequest<'_>,
    object: Option<&Value>,
) -> Result<Option<Invocation>, ApiError> {
    let namespace = matching::namespace_matches(&hook.namespaces, request, object);
    if matches!(namespace, Ok(false)) || !matching::object_matches(&hook.objects, request.old, object) {
        return Ok(None);
    }
    let kind = if hook.rules.iter().any(|r| r.matches(request, &request.resource)) {
        None
    } else if hook.equivalent {
        let others = equivalents(request);
        let fits = hook.rules.iter().find_map(|r| others.iter().find(|k| r.matches(request, &k.resource())));
        match fits {
            Some(kind) => Some(kind.clone()),
            None => return Ok(None),
        }
    } else {
        return Ok(None);
    };
    namespace?;
    Ok(Some(Invocation { hook: hook.clone(), index, kind }))
}
