//! The policies as they are now, compiled, with their bindings.

use super::target::Target;
use super::{GROUP, Kind};
use crate::server::Reader;
use kubewright_core::cel::admission::{PolicyCode, compile_policy};
use kubewright_core::{GroupVersionResource, Selector, meta};
use rustc_hash::FxHashMap;
use serde_json::Value;
use smol_str::SmolStr;
use std::sync::Arc;

/// A policy that has bindings.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) definition: Arc<Definition>,
    pub(super) bindings: Vec<Binding>,
}

/// What a policy says.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) name: String,
    version: String,
    pub(super) target: Target,
    pub(super) code: PolicyCode,
    /// Whether a policy that fails lets the request through.
    pub(super) ignores_failure: bool,
    /// API version and kind of its parameters.
    pub(super) param_kind: Option<(String, String)>,
    /// Whether it runs again when others changed the object after it.
    pub(super) reinvoked: bool,
}

/// Where a policy is in force, and with which parameters.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) name: String,
    /// `None` for all that the policy is about.
    pub(super) target: Option<Target>,
    pub(super) params: Option<ParamRef>,
    pub(super) deny: bool,
    pub(super) warn: bool,
    pub(super) audit: bool,
    pub(super) actions: Value,
}

/// Which parameters a binding brings.
#[derive(Debug)]
pub(super) struct ParamRef {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) selector: Option<Selector>,
    /// Whether a request without parameters goes through.
    pub(super) allows_none: bool,
}

/// All policies of one kind.
#[derive(Default)]
pub(crate) struct Table {
    /// By name.
    pub(super) all: Vec<Arc<Policy>>,
    by_plural: FxHashMap<SmolStr, Vec<usize>>,
    every: Vec<usize>,
    /// All that were compiled, bound or not.
    compiled: FxHashMap<String, Arc<Definition>>,
}

impl Table {
    /// The table now; what did not change since `before` is not compiled again.
    pub(super) fn of(kind: Kind, reader: &Reader, before: &Table) -> Self {
        let read = |plural: &str| -> Vec<Value> {
            let resource = GroupVersionResource::new(GROUP, "v1", plural);
            let objects = reader.list(&resource, "").unwrap_or_default();
            objects.iter().filter_map(|o| o.value().ok()).collect()
        };
        let mut bound: FxHashMap<String, Vec<Binding>> = FxHashMap::default();
        for binding in read(kind.bindings) {
            let policy = binding["spec"]["policyName"].as_str().unwrap_or("").to_owned();
            bound.entry(policy).or_default().push(Binding::of(&binding));
        }
        let mut table = Table::default();
        for policy in read(kind.policies) {
            let name = meta::name(&policy).to_owned();
            let version = policy["metadata"]["resourceVersion"].as_str().unwrap_or("");
            let known = before.compiled.get(&name).filter(|d| d.version == version && !version.is_empty());
            let definition = known.cloned().unwrap_or_else(|| Arc::new(Definition::of(&policy, version)));
            table.compiled.insert(name.clone(), definition.clone());
            if let Some(mut bindings) = bound.remove(&name) {
                bindings.sort_by(|a, b| a.name.cmp(&b.name));
                table.all.push(Arc::new(Policy { definition, bindings }));
            }
        }
        table.all.sort_by(|a, b| a.definition.name.cmp(&b.definition.name));
        table.index();
        table
    }

    fn index(&mut self) {
        let mut named: Vec<(usize, SmolStr)> = Vec::new();
        for (at, policy) in self.all.iter().enumerate() {
            match policy.definition.target.plurals() {
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

    /// The places of the policies that may concern a resource.
    pub(super) fn concerning(&self, plural: &str) -> &[usize] {
        self.by_plural.get(plural).map_or(&self.every, Vec::as_slice)
    }
}

impl Definition {
    fn of(policy: &Value, version: &str) -> Self {
        let spec = &policy["spec"];
        let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
        let param_kind = spec.get("paramKind").filter(|k| !k.is_null());
        Definition {
            name: meta::name(policy).to_owned(),
            version: version.to_owned(),
            target: Target::of(&spec["matchConstraints"]),
            code: compile_policy(spec),
            ignores_failure: spec["failurePolicy"] == "Ignore",
            param_kind: param_kind.map(|k| (text(&k["apiVersion"]), text(&k["kind"]))),
            reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
        }
    }

    /// Why the policy cannot be evaluated at all.
    pub(super) fn problem(&self) -> Option<&str> {
        self.code.problems.first().map(|p| p.detail.as_str())
    }
}

impl Binding {
    fn of(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let has = |action: &str| {
            spec["validationActions"].as_array().is_some_and(|a| a.iter().any(|v| v == action))
        };
        let some = |field: &str| spec.get(field).filter(|v| !v.is_null());
        Binding {
            name: meta::name(binding).to_owned(),
            target: some("matchResources").map(Target::of),
            params: some("paramRef").map(ParamRef::of),
            deny: has("Deny"),
            warn: has("Warn"),
            audit: has("Audit"),
            actions: spec["validationActions"].clone(),
        }
    }
}

impl ParamRef {
    fn of(reference: &Value) -> Self {
        let text = |field: &str| reference[field].as_str().unwrap_or("").to_owned();
        let selector = reference.get("selector").filter(|s| !s.is_null());
        ParamRef {
            name: text("name"),
            namespace: text("namespace"),
            selector: selector.map(|s| Selector::from_value(Some(s)).unwrap_or_else(|_| Selector::nothing())),
            allows_none: text("parameterNotFoundAction") == "Allow",
        }
    }
}
