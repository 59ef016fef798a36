//! ServiceCIDR: a range that Services get their addresses of.

use crate::api::BuiltinOptions;
use crate::api::kit::checks::{drop_status, keep_other_half, stay};
use crate::api::kit::columns::{age_column, joined};
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::network::{Network, parse_cidr};
use crate::api::kit::{ErrorSink, Path, column, describe, list, name_column, sub};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of ServiceCIDR.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        status: true,
        strategy: Arc::new(RangeRules),
        columns: vec![
            name_column(),
            column("CIDRs", "string", "The range, and that of the other family.", |o, _| {
                joined(list(sub(o, "spec"), "cidrs").iter().filter_map(Value::as_str)).into()
            }),
            age_column(),
        ],
        ..describe::<ServiceCIDR>(Scope::Cluster)
    }
}

struct RangeRules;

impl Strategy for RangeRules {
    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        drop_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        keep_other_half(object, old, cx);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let spec = Path::Root.child("spec");
        let path = spec.child("cidrs");
        let cidrs: Vec<&str> =
            list(sub(object, "spec"), "cidrs").iter().map(|c| c.as_str().unwrap_or("")).collect();
        let whole = || sub(object, "spec").clone();
        match cidrs[..] {
            [] => {
                errors.required(&path, "at least one CIDR required");
                return errors;
            }
            [_] => {}
            [a, b] => {
                let family = |text: &str| Network::parse(text).map(|n| n.address.is_ipv4());
                if !matches!((family(a), family(b)), (Some(a), Some(b)) if a != b) {
                    let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
                    errors.invalid(&path, whole(), detail);
                    return errors;
                }
            }
            _ => {
                errors.invalid(&path, whole(), "may only hold up to 2 values");
                return errors;
            }
        }
        for (i, cidr) in cidrs.iter().enumerate() {
            if let Some(network) = parse_cidr(cidr, &path.index(i), &mut errors)
                && !network.is_masked()
            {
                let detail = "must not have bits set beyond the prefix length";
                errors.invalid(&path.index(i), *cidr, detail);
            }
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        stay(&["cidrs"], object, old, &mut errors);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{texts, write};
    use serde_json::json;

    #[test]
    fn ranges_are_checked_and_stay() {
        let range = |cidrs: Value| json!({"metadata": {"name": "r"}, "spec": {"cidrs": cidrs}});
        let check = |cidrs: Value, wanted: &[&str]| {
            assert_eq!(texts(&RangeRules.validate(&range(cidrs))), wanted);
        };
        check(json!(["10.96.0.0/16"]), &[]);
        check(json!(["10.96.0.0/16", "fd00::/112"]), &[]);
        check(json!([]), &["spec.cidrs: Required value: at least one CIDR required"]);
        check(
            json!(["10.96.0.1/16"]),
            &[
                "spec.cidrs[0]: Invalid value: \"10.96.0.1/16\": must not have bits set beyond the prefix length",
            ],
        );
        check(
            json!(["10.96.0.0/33"]),
            &[
                "spec.cidrs[0]: Invalid value: \"10.96.0.0/33\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ],
        );
        assert_eq!(RangeRules.validate(&range(json!(["10.0.0.0/8", "11.0.0.0/8"]))).len(), 1);
        assert_eq!(RangeRules.validate(&range(json!(["1", "2", "3"]))).len(), 1);
        let (old, new) = (range(json!(["10.0.0.0/8"])), range(json!(["11.0.0.0/8"])));
        assert_eq!(RangeRules.validate_update(&new, &old, write(None)).len(), 1);
    }
}
