//! One write against the quotas of its namespace.

use jiff::Timestamp;
use kubewright_core::quota::{Amounts, Counter, ScopeTerm};
use kubewright_core::{ApiError, ApiObject, meta};
use serde_json::Value;
use std::sync::Arc;

/// A quota as far as it is spent now.
#[derive(Clone, Debug)]
pub(super) struct Quota {
    pub(super) name: String,
    pub(super) revision: u64,
    /// The object as it was read, into which what is used goes back.
    pub(super) object: Arc<Value>,
    scopes: Arc<[ScopeTerm]>,
    hard: Arc<Amounts>,
    pub(super) used: Amounts,
}

impl Quota {
    pub(super) fn read(object: &ApiObject) -> Result<Quota, ApiError> {
        let value = object.value()?;
        let status = value.get("status").unwrap_or(&Value::Null);
        Ok(Quota {
            name: meta::name(&value).to_owned(),
            revision: object.resource_version(),
            scopes: ScopeTerm::of(value.get("spec").unwrap_or(&Value::Null)).into(),
            hard: Arc::new(Amounts::parse(&status["hard"])),
            used: Amounts::parse(&status["used"]),
            object: Arc::new(value),
        })
    }

    fn matches(&self, counter: &Counter, object: &Value) -> bool {
        self.hard.names().any(|n| counter.counts(n)) && counter.in_scopes(&self.scopes, object)
    }
}

/// What is about to be written.
#[derive(Debug)]
pub(super) struct Charge {
    pub(super) counter: Counter,
    /// For refusals: group, plural and name.
    pub(super) group: String,
    pub(super) plural: String,
    pub(super) name: String,
    pub(super) object: Value,
    pub(super) old: Option<Value>,
    /// Through `status`, what is there already is told; it can't be refused.
    pub(super) of_status: bool,
    pub(super) dry_run: bool,
    pub(super) now: Timestamp,
}

impl Charge {
    fn refuse(&self, why: &str) -> ApiError {
        ApiError::forbidden(&self.group, &self.plural, &self.name, why)
    }

    /// What the quotas would have spent after this; `None` where nothing changes.
    ///
    /// # Errors
    /// 403 in upstream's words.
    pub(super) fn against(&self, quotas: &[Quota]) -> Result<Option<Vec<Quota>>, ApiError> {
        let mut concerned = Vec::new();
        for (at, quota) in quotas.iter().enumerate() {
            if !quota.matches(&self.counter, &self.object) {
                continue;
            }
            let counted: Vec<&str> = quota.hard.names().filter(|n| self.counter.counts(n)).collect();
            if let Some(why) = self.counter.unstated(&counted, &self.object) {
                return Err(self.refuse(&format!("failed quota: {}: {why}", quota.name)));
            }
            if counted.iter().any(|n| quota.used.get(n).is_none()) {
                let (name, names) = (&quota.name, counted.join(","));
                return Err(self.refuse(&format!("status unknown for quota: {name}, resources: {names}")));
            }
            concerned.push(at);
        }
        let usage = self.counter.usage(&self.object, self.now);
        let negative: Vec<&str> =
            usage.0.iter().filter(|(_, amount)| amount.signum() < 0).map(|(n, _)| n.as_str()).collect();
        if !negative.is_empty() {
            let why = format!("quota usage is negative for resource(s): {}", negative.join(","));
            return Err(self.refuse(&why));
        }
        let before = self.old.as_ref().map(|old| self.counter.usage(old, self.now));
        let mut after = quotas.to_vec();
        let mut changed = false;
        for at in concerned {
            let quota = &mut after[at];
            let had = self.old.as_ref().filter(|old| quota.matches(&self.counter, old));
            let delta = match (had, &before) {
                (Some(_), Some(before)) => usage.above(before),
                _ => usage.clone(),
            };
            let delta = delta.without_zeros().only(|name| quota.hard.get(name).is_some());
            if !delta.is_empty() {
                changed |= self.spend(quota, &delta)?;
            }
        }
        Ok(changed.then_some(after))
    }

    fn spend(&self, quota: &mut Quota, delta: &Amounts) -> Result<bool, ApiError> {
        let mut used = quota.used.clone();
        used.add(delta);
        let touched = used.only(|name| delta.get(name).is_some());
        let exceeded = touched.exceeding(&quota.hard);
        if !self.of_status && !exceeded.is_empty() {
            let of = |amounts: &Amounts| amounts.only(|name| exceeded.contains(&name)).to_string();
            return Err(self.refuse(&format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                quota.name,
                of(delta),
                of(&quota.used),
                of(&quota.hard)
            )));
        }
        let changed = used != quota.used;
        quota.used = used;
        Ok(changed)
    }
}
