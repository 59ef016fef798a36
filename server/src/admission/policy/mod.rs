//! Admission policies: ValidatingAdmissionPolicy and MutatingAdmissionPolicy with their bindings, evaluated in process.
//!
//! Policies are compiled when they change, each once, and held by the plurals that they name; a write that none names pays one look into
//! a table. Expressions run without waiting: where one asks the authorizer something new, its evaluation ends, the authorizer is asked,
//! and it runs again with the answer at hand (`evaluate.rs`).
//!
//! Webhooks have match conditions of the same language: [`MatchConditions::compile`] takes what holds `matchConditions` (a webhook of a
//! configuration), once when the configuration changes; [`MatchConditions::check`] says for a write whether they hold, or why that can't be
//! told. An empty set holds at no cost.

mod conditions;
mod evaluate;
mod input;
mod mutating;
mod params;
mod table;
mod target;
mod type_check;
mod validating;

pub(crate) use conditions::MatchConditions;
pub use mutating::MutatingPolicy;
pub(crate) use type_check::{is_checked, settle};
pub use validating::ValidatingPolicy;

use super::Admission;
use crate::auth::Authorizer;
use crate::cache::{CacheEvent, Listener, ObjectCache, ResourceCache};
use crate::conversion::Converter;
use crate::server::Reader;
use arc_swap::{ArcSwap, ArcSwapOption};
use kubewright_core::{ApiError, KindDescriptor};
use serde_json::Value;
use std::sync::Arc;
use table::Table;

const GROUP: &str = "admissionregistration.k8s.io";

/// The two resources of one kind of policy: the policies and their bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    policies: &'static str,
    bindings: &'static str,
}

const VALIDATING: Kind =
    Kind { policies: "validatingadmissionpolicies", bindings: "validatingadmissionpolicybindings" };
const MUTATING: Kind =
    Kind { policies: "mutatingadmissionpolicies", bindings: "mutatingadmissionpolicybindings" };

/// Who answers the checks of expressions; nobody allows everything, as the server itself does.
pub(crate) type AuthorizerSlot = ArcSwapOption<Arc<dyn Authorizer>>;

/// The policies, followed as they change.
pub(crate) struct Policies {
    validating: ArcSwap<Table>,
    mutating: ArcSwap<Table>,
    reader: Reader,
    converter: Arc<Converter>,
    authorizer: Arc<AuthorizerSlot>,
}

impl Policies {
    pub(crate) fn new(reader: Reader, converter: Arc<Converter>, authorizer: Arc<AuthorizerSlot>) -> Self {
        let (validating, mutating) = (ArcSwap::default(), ArcSwap::default());
        Policies { validating, mutating, reader, converter, authorizer }
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

    /// The two plugins: what changes, and what checks.
    pub(crate) fn plugins(self: &Arc<Self>) -> (Arc<dyn Admission>, Arc<dyn Admission>) {
        (Arc::new(MutatingPolicy::new(self.clone())), Arc::new(ValidatingPolicy::new(self.clone())))
    }

    fn follow(&self, kind: Kind) {
        let place = if kind == VALIDATING { &self.validating } else { &self.mutating };
        let before = place.load_full();
        place.store(Arc::new(Table::of(kind, &self.reader, &before)));
    }
}

impl Listener for Policies {
    fn changed(&self, resource: &ResourceCache, events: &[Arc<CacheEvent>]) {
        if resource.id.group != GROUP || events.is_empty() {
            return;
        }
        for kind in [VALIDATING, MUTATING] {
            if resource.id.resource == kind.policies || resource.id.resource == kind.bindings {
                self.follow(kind);
            }
        }
    }

    fn reloaded(&self, _: &ObjectCache) {
        self.follow(VALIDATING);
        self.follow(MUTATING);
    }
}
