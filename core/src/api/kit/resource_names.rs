//! The names of resources (cpu, memory, ...) wherever amounts of them stand.

use super::quantities::{nanos, validate_non_negative};
use super::{ErrorSink, Path, names};
use crate::ErrorList;
use serde_json::Value;

/// What a quota may count, beside huge pages, extended resources and `count/` of anything.
const QUOTA: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// What is counted in whole numbers.
const WHOLE: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

/// Whether a resource is one of Kubernetes' own.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/')
        || name.split('/').next().is_some_and(|p| p == "kubernetes.io" || p.ends_with(".kubernetes.io"))
}

/// Whether more may be promised than there is: of Kubernetes' own resources, but huge pages.
pub(crate) fn overcommits(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

/// Whether a name is a standard one of quotas.
pub(crate) fn is_quota_name(name: &str) -> bool {
    QUOTA.contains(&name) || is_huge_pages(name)
}

/// Validates a name of any resource.
pub(crate) fn validate(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let problems = names::qualified(name);
    for problem in &problems {
        errors.invalid(path, name, problem);
    }
    if problems.is_empty() && !name.contains('/') && !is_quota_name(name) && name != "storage" {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    }
}

/// Validates a name of what containers ask for.
pub(crate) fn validate_container(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    validate(name, path, errors);
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        errors.invalid(path, name, "must be a standard resource for containers");
    }
}

/// Validates a name of what a quota counts.
pub(crate) fn validate_quota(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    validate(name, path, errors);
    if !name.contains('/') && !is_quota_name(name) {
        errors.invalid(path, name, "must be a standard resource for quota");
    }
}

/// Validates an amount of a resource: not negative, and whole where it counts things.
pub(crate) fn validate_amount(name: &str, amount: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_non_negative(amount, path, errors);
    let extended = name.contains('/') && !is_native(name) && !name.starts_with("requests.");
    let whole = nanos(amount).is_none_or(|n| n % 1_000_000_000 == 0);
    if (WHOLE.contains(&name) || extended) && !whole {
        errors.invalid(path, amount.clone(), "must be an integer");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        type Rule = fn(&str, &Path<'_>, &mut ErrorList);
        let check = |rule: Rule, name: &str, wanted: usize| {
            let mut errors = ErrorList::new();
            rule(name, &Path::Root.child("x"), &mut errors);
            assert_eq!(errors.len(), wanted, "{name} {errors:?}");
        };
        check(validate_container, "cpu", 0);
        check(validate_container, "example.com/gpu", 0);
        check(validate_container, "hugepages-2Mi", 0);
        check(validate_container, "pods", 1);
        check(validate_container, "gpu", 2);
        check(validate_quota, "pods", 0);
        check(validate_quota, "count/jobs.batch", 0);
        check(validate_quota, "requests.example.com/gpu", 0);
        check(validate_quota, "storage", 1);
        check(validate_quota, "a b", 2);
    }

    #[test]
    fn things_are_counted_whole() {
        let check = |name: &str, amount: &str, wanted: usize| {
            let mut errors = ErrorList::new();
            validate_amount(name, &Value::from(amount), &Path::Root.child("x"), &mut errors);
            assert_eq!(errors.len(), wanted, "{name} {errors:?}");
        };
        check("pods", "5", 0);
        check("pods", "500m", 1);
        check("example.com/gpu", "1.5", 1);
        check("cpu", "500m", 0);
        check("cpu", "-1", 1);
    }
}
