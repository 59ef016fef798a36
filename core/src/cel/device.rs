//! Selectors of devices (`resource.k8s.io`): expressions over one variable, `device`.

use super::cost::Range;
use super::env::Env;
use super::fault::{CompileError, Fault};
use super::opaque::Opaque;
use super::program::Program;
use super::run::Evaluation;
use super::types::{Decl, Field, Object, Type};
use super::value::{Entries, Map, Val};
use crate::Quantity;
use k8s_openapi::api::resource::v1::{DeviceAttribute, DeviceCapacity};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// What the estimate of a selector may be (upstream's figure); a run is held to it too.
pub const DEVICE_COST_MAX: u64 = 1_000_000;

/// A compiled selector.
#[derive(Debug)]
pub struct DeviceSelector {
    program: Program,
}

/// A device as selectors see it, made once and asked by many.
#[derive(Clone, Debug)]
pub struct DeviceFacts {
    value: Val<'static>,
}

impl DeviceSelector {
    /// Compiles a selector.
    ///
    /// # Errors
    /// What is wrong with the expression, or that it is no test.
    pub fn compile(expression: &str) -> Result<Self, CompileError> {
        static ENV: OnceLock<Env> = OnceLock::new();
        let env = ENV.get_or_init(|| Env::new().with("device", device()));
        let program = env.compile(expression)?;
        if !matches!(program.ty(), Type::Bool | Type::Dyn) {
            let found = program.ty().to_string();
            return Err(CompileError::plain(format!(
                "must evaluate to bool or the unknown type, not {found}"
            )));
        }
        Ok(DeviceSelector { program })
    }

    /// What a run costs at least and at most, by the bounds of the API.
    pub fn cost(&self) -> Range {
        self.program.cost()
    }

    /// Whether the device is selected.
    ///
    /// # Errors
    /// What the expression met, a missing attribute for instance; upstream then fails the allocation.
    pub fn matches(&self, device: &DeviceFacts) -> Result<bool, Fault> {
        let mut run = Evaluation::new(DEVICE_COST_MAX);
        run.set(0, device.value.clone());
        run.test(&self.program)
    }
}

impl DeviceFacts {
    /// The facts of a device. Names without a domain belong to the driver's.
    pub fn new(
        driver: &str,
        attributes: &BTreeMap<String, DeviceAttribute>,
        capacity: &BTreeMap<String, DeviceCapacity>,
        allow_multiple_allocations: bool,
    ) -> Self {
        let attributes = attributes.iter().filter_map(|(name, value)| Some((name, attribute(value)?)));
        let capacity = capacity.iter().filter_map(|(name, capacity)| {
            let quantity = Quantity::parse(&capacity.value.0).ok()?;
            Some((name, Val::opaque(Opaque::Quantity(quantity))))
        });
        let mut device = Entries::default();
        device.insert(Val::text("driver"), Val::text(driver));
        device.insert(Val::text("attributes"), by_domain(driver, attributes));
        device.insert(Val::text("capacity"), by_domain(driver, capacity));
        device.insert(Val::text("allowMultipleAllocations"), Val::Bool(allow_multiple_allocations));
        DeviceFacts { value: Val::Map(Map::Own(Arc::new(device))) }
    }
}

fn attribute(value: &DeviceAttribute) -> Option<Val<'static>> {
    if let Some(v) = value.int {
        return Some(Val::Int(v));
    }
    if let Some(v) = value.bool {
        return Some(Val::Bool(v));
    }
    if let Some(v) = &value.string {
        return Some(Val::text(v.as_str()));
    }
    let version = super::lib::parse_semver(value.version.as_deref()?)?;
    Some(Val::opaque(Opaque::Semver(version)))
}

/// Domain, then name; a domain that has nothing is an empty map.
fn by_domain<'n>(driver: &str, values: impl Iterator<Item = (&'n String, Val<'static>)>) -> Val<'static> {
    let mut domains: BTreeMap<String, Entries<'static>> = BTreeMap::new();
    for (name, value) in values {
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        domains.entry(domain.to_owned()).or_default().insert(Val::text(id), value);
    }
    let mut out = Entries::default();
    out.empty_maps = true;
    for (domain, entries) in domains {
        out.insert(Val::text(domain), Val::Map(Map::Own(Arc::new(entries))));
    }
    Val::Map(Map::Own(Arc::new(out)))
}

fn device() -> Decl {
    let bounded = |ty: Type, max: u64| Arc::new(Decl { max, ..Decl::of(ty) });
    // The bounds of the API: 32 attributes and capacities in all, domains of 63 characters, names of 32.
    let by_domain = |value: Type| {
        let names = Type::Map(bounded(Type::Text, 32), bounded(value, 64));
        bounded(Type::Map(bounded(Type::Text, 63), bounded(names, 32)), 32)
    };
    let field = |name: &str, decl: Arc<Decl>| (Box::from(name), Field { property: name.into(), decl });
    let fields = [
        field("driver", bounded(Type::Text, 63)),
        field("attributes", by_domain(Type::Dyn)),
        field("capacity", by_domain(Type::Opaque("kubernetes.Quantity"))),
        field("allowMultipleAllocations", bounded(Type::Bool, 0)),
    ];
    let object = Object { name: "kubernetes.DRADevice".to_owned(), fields: fields.into_iter().collect() };
    Decl { max: 0, ..Decl::of(Type::Object(Arc::new(object))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn facts() -> DeviceFacts {
        let attributes =
            from_value(json!({"model": {"string": "a100"}, "other.example.com/slots": {"int": 4},
            "fast": {"bool": true}, "firmware": {"version": "1.2.3"}}))
            .unwrap();
        let capacity = from_value(json!({"memory": {"value": "40Gi"}})).unwrap();
        DeviceFacts::new("gpu.example.com", &attributes, &capacity, false)
    }

    #[test]
    fn selectors_see_the_device() {
        let check = |expression: &str, wanted: Result<bool, &str>| {
            let selector = DeviceSelector::compile(expression).unwrap();
            let found = selector.matches(&facts()).map_err(|e| e.to_string());
            assert_eq!(found, wanted.map_err(str::to_owned), "{expression}");
        };
        check("device.driver == 'gpu.example.com'", Ok(true));
        check("device.attributes['gpu.example.com'].model == 'a100'", Ok(true));
        check("device.attributes['other.example.com'].slots > 3", Ok(true));
        check("device.attributes['gpu.example.com'].fast && !device.allowMultipleAllocations", Ok(true));
        check("device.capacity['gpu.example.com'].memory.compareTo(quantity('30Gi')) > 0", Ok(true));
        check("device.attributes['gpu.example.com'].firmware.isGreaterThan(semver('1.2.0'))", Ok(true));
        check("'model' in device.attributes['gpu.example.com']", Ok(true));
        check("has(device.attributes['nobody.example.com'].model)", Ok(false));
        check("device.attributes['gpu.example.com'].size > 3", Err("no such key: size"));
        check(
            "cel.bind(a, device.attributes['gpu.example.com'], a.?size.orValue(1) == 1 && a.model.startsWith('a'))",
            Ok(true),
        );
    }

    #[test]
    fn selectors_are_tests_of_what_a_device_has() {
        let error = |text: &str| DeviceSelector::compile(text).unwrap_err().to_string();
        assert!(error("device.color == 'red'").contains("undefined field 'color'"));
        assert!(error("device.driver").contains("must evaluate to bool"));
        assert!(error("1 +").contains("Syntax error"));
    }
}
