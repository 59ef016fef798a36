//! What a policy or binding is about: rules, exceptions from them, and selectors.

use crate::admission::AdmissionRequest;
use crate::admission::matching::{self, Rule, equivalents};
use kubewright_core::{ApiError, KindDescriptor, Selector};
use serde_json::Value;
use smol_str::SmolStr;
use std::sync::Arc;

/// `matchConstraints` or `matchResources`.
#[derive(Debug)]
pub(super) struct Target {
    rules: Vec<Rule>,
    except: Vec<Rule>,
    equivalent: bool,
    namespaces: Selector,
    objects: Selector,
}

/// As what a policy sees a request that it is about.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    /// As it is.
    Own,
    /// As one of another resource that holds the same objects.
    As(Arc<KindDescriptor>),
}

impl Target {
    pub(super) fn of(resources: &Value) -> Self {
        let rules = |field: &str| resources[field].as_array().into_iter().flatten().map(Rule::of).collect();
        let selector = |field: &str| {
            // One that does not parse was refused when it was written.
            let found = resources.get(field).filter(|s| !s.is_null());
            found.map_or_else(Selector::everything, |s| {
                Selector::from_value(Some(s)).unwrap_or_else(|_| Selector::nothing())
            })
        };
        Target {
            rules: rules("resourceRules"),
            except: rules("excludeResourceRules"),
            equivalent: resources["matchPolicy"] != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
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

    /// Whether a request is meant, and as what.
    ///
    /// # Errors
    /// 404 where the namespace is not there.
    pub(super) fn matches(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
    ) -> Result<Option<Seen>, ApiError> {
        if !matching::object_matches(&self.objects, request.old, object) {
            return Ok(None);
        }
        if self.find(&self.except, request).is_some() {
            return Ok(None);
        }
        // A binding without rules is about all that its policy is about.
        let seen = if self.rules.is_empty() { Some(Seen::Own) } else { self.find(&self.rules, request) };
        let Some(seen) = seen else { return Ok(None) };
        Ok(matching::namespace_matches(&self.namespaces, request, object)?.then_some(seen))
    }

    fn find(&self, rules: &[Rule], request: &AdmissionRequest<'_>) -> Option<Seen> {
        if rules.is_empty() {
            return None;
        }
        if rules.iter().any(|r| r.matches(request, &request.resource)) {
            return Some(Seen::Own);
        }
        if !self.equivalent {
            return None;
        }
        let others = equivalents(request);
        let found = rules.iter().find_map(|r| others.iter().find(|k| r.matches(request, &k.resource())));
        found.cloned().map(Seen::As)
    }
}
