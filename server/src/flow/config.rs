//! What the objects say, compiled: the schemas in the order in which they are asked, and the levels with their seats.

use super::defaults::{self, CATCH_ALL};
use super::level::{Level, Overflow, Seating};
use super::queues::Shape;
use super::schema::Schema;
use crate::auth::Attributes;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaSpec, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The objects as they are.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) schemas: Vec<Arc<FlowSchema>>,
    pub(super) levels: Vec<Arc<PriorityLevelConfiguration>>,
}

/// The configuration that requests are sorted by.
pub(super) struct Config {
    /// The first one that takes a request counts; the last one takes all.
    pub(super) schemas: Vec<Arc<Schema>>,
    pub(super) levels: BTreeMap<String, Arc<Level>>,
}

impl Config {
    /// The objects compiled; levels whose queues stay as they were are those of `before`.
    pub(super) fn compile(objects: &Objects, seats: i64, before: Option<&Config>) -> Self {
        let specs = level_specs(objects);
        let total: i64 = specs.values().map(|(_, s)| i64::from(shares(s).0)).sum();
        let mut levels = BTreeMap::new();
        for (name, (uid, spec)) in &specs {
            let overflow = overflow(spec);
            let old = before.and_then(|b| b.levels.get(name));
            let same = old.filter(|l| l.overflow == overflow && l.uid == *uid).cloned();
            let level = same.unwrap_or_else(|| Arc::new(Level::new(name, uid, overflow)));
            level.seat(seating(spec, seats, total));
            levels.insert(name.clone(), level);
        }
        let mut schemas = Vec::new();
        for (name, (uid, spec)) in &schema_specs(objects) {
            // One that leads to no level takes nothing.
            let Some(level) = levels.get(&spec.priority_level_configuration.name) else { continue };
            schemas.push(Arc::new(Schema::new(name, uid, spec, level.clone())));
        }
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        Config { schemas, levels }
    }

    /// The schema of a request. Everything has one but for what even the last one refuses, by belonging to no group at all.
    pub(super) fn schema_of(&self, attributes: &Attributes<'_>) -> Option<&Arc<Schema>> {
        self.schemas.iter().find(|s| s.takes(attributes)).or_else(|| self.schemas.last())
    }
}

type LevelSpecs = BTreeMap<String, (String, PriorityLevelConfigurationSpec)>;

/// The levels by name; the mandatory ones are always there, and all of the defaults while there are no objects.
fn level_specs(objects: &Objects) -> LevelSpecs {
    let bare = objects.levels.is_empty();
    let mut specs = LevelSpecs::new();
    for (name, spec) in defaults::levels() {
        if (bare || defaults::is_mandatory(name))
            && let Ok(spec) = serde_json::from_value(spec)
        {
            specs.insert(name.to_owned(), (String::new(), spec));
        }
    }
    for level in &objects.levels {
        let (Some(name), Some(spec)) = (&level.metadata.name, &level.spec) else { continue };
        let fixed = specs.get(name).filter(|_| name == CATCH_ALL).map(|(_, spec)| spec.clone());
        let uid = level.metadata.uid.clone().unwrap_or_default();
        specs.insert(name.clone(), (uid, fixed.unwrap_or_else(|| spec.clone())));
    }
    specs
}

fn schema_specs(objects: &Objects) -> BTreeMap<String, (String, FlowSchemaSpec)> {
    let bare = objects.schemas.is_empty();
    let mut specs = BTreeMap::new();
    for (name, spec) in defaults::schemas() {
        if (bare || defaults::is_mandatory(name))
            && let Ok(spec) = serde_json::from_value(spec)
        {
            specs.insert(name.to_owned(), (String::new(), spec));
        }
    }
    for schema in &objects.schemas {
        let (Some(name), Some(spec)) = (&schema.metadata.name, &schema.spec) else { continue };
        let uid = schema.metadata.uid.clone().unwrap_or_default();
        match specs.get_mut(name).filter(|_| defaults::is_mandatory(name)) {
            Some(fixed) => fixed.0 = uid,
            None => drop(specs.insert(name.clone(), (uid, spec.clone()))),
        }
    }
    specs
}

/// Shares, percent that may be lent, percent that may be borrowed.
fn shares(spec: &PriorityLevelConfigurationSpec) -> (i32, i32, Option<i32>) {
    match (&spec.limited, &spec.exempt) {
        (Some(limited), _) => (
            limited.nominal_concurrency_shares.unwrap_or(30),
            limited.lendable_percent.unwrap_or(0),
            limited.borrowing_limit_percent,
        ),
        (None, exempt) => {
            let of = |f: fn(
                &k8s_openapi::api::flowcontrol::v1::ExemptPriorityLevelConfiguration,
            ) -> Option<i32>| { exempt.as_ref().and_then(f).unwrap_or(0) };
            (of(|e| e.nominal_concurrency_shares), of(|e| e.lendable_percent), None)
        }
    }
}

fn seating(spec: &PriorityLevelConfigurationSpec, seats: i64, total: i64) -> Seating {
    let (shares, lendable, borrowing) = shares(spec);
    let nominal = (seats * i64::from(shares)).div_ceil_by(total.max(1));
    let part = |percent: i32| (nominal as f64 * f64::from(percent) / 100.0).round() as i64;
    Seating {
        nominal,
        lendable: part(lendable).min(nominal),
        ceiling: borrowing.map_or(seats.max(nominal), |percent| nominal + part(percent)),
    }
}

fn overflow(spec: &PriorityLevelConfigurationSpec) -> Overflow {
    if spec.type_ == "Exempt" {
        return Overflow::Exempt;
    }
    let response = spec.limited.as_ref().and_then(|l| l.limit_response.as_ref());
    match response.filter(|r| r.type_ == "Queue") {
        None => Overflow::Reject,
        Some(response) => {
            let queuing = response.queuing.clone().unwrap_or_default();
            let number =
                |n: Option<i32>, default: u32| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
            let queues = number(queuing.queues, 64).max(1);
            Overflow::Queue(Shape {
                queues,
                hand: number(queuing.hand_size, 8).clamp(1, queues),
                length: number(queuing.queue_length_limit, 50) as usize,
            })
        }
    }
}

trait DivCeil {
    fn div_ceil_by(self, by: Self) -> Self;
}

impl DivCeil for i64 {
    /// Rounded up, of numbers that are not negative.
    fn div_ceil_by(self, by: i64) -> i64 {
        (self + by - 1) / by
    }
}

#[cfg(test)]
mod tests {
    use super::super::defaults::EXEMPT;
    use super::*;

    #[test]
    fn the_defaults_share_the_seats_as_upstream_does() {
        let config = Config::compile(&Objects::default(), 600, None);
        let check = |name: &str, nominal: i64, lendable: i64| {
            let seating = config.levels[name].seating();
            assert_eq!((seating.nominal, seating.lendable), (nominal, lendable), "{name}");
        };
        // 600 seats over 245 shares.
        check("exempt", 0, 0);
        check("catch-all", 13, 0);
        check("system", 74, 24);
        check("node-high", 98, 25);
        check("leader-election", 25, 0);
        check("workload-high", 98, 49);
        check("workload-low", 245, 221);
        check("global-default", 49, 25);
        let names: Vec<&str> = config.schemas.iter().map(|s| s.name.as_str()).collect();
        assert_eq!((names[0], names[names.len() - 1], names.len()), (EXEMPT, CATCH_ALL, 13));
    }
}
