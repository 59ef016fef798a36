//! The arithmetic of rollouts, free of I/O: how many pods each ReplicaSet may have now.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kubewright_core::Resource;
use std::sync::Arc;

/// How many replicas the Deployment wants.
pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// `spec.replicas` of a ReplicaSet.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// `status.availableReplicas` of a ReplicaSet.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// Whether the strategy is `Recreate`.
pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// `maxSurge` and `maxUnavailable` as numbers; both zero would be a standstill, so the second is then one.
pub(super) fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let of =
        |value: Option<&IntOrString>, up: bool| scaled(value.unwrap_or(&quarter), wanted(deployment), up);
    let surge = of(rolling.and_then(|r| r.max_surge.as_ref()), true);
    let unavailable = of(rolling.and_then(|r| r.max_unavailable.as_ref()), false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(wanted(deployment))) }
}

/// A number, or a percentage of `total`, rounded up or down.
fn scaled(value: &IntOrString, total: i32, up: bool) -> i32 {
    let percent = match value {
        IntOrString::Int(n) => return (*n).max(0),
        IntOrString::String(text) => text.trim_end_matches('%').parse::<i64>().unwrap_or(0),
    };
    let product = i64::from(total) * percent;
    let number = if up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
    i32::try_from(number).unwrap_or(i32::MAX).max(0)
}

/// How many replicas the new ReplicaSet shall have now, given all that exist.
pub(super) fn new_set_replicas(deployment: &Deployment, all: &[Arc<ReplicaSet>], present: i32) -> i32 {
    let want = wanted(deployment);
    if present > want {
        return want;
    }
    if is_recreate(deployment) {
        return want;
    }
    let (surge, _) = fenceposts(deployment);
    let total: i32 = all.iter().map(|s| replicas(s)).sum();
    let room = want + surge - total;
    if room <= 0 { present } else { (present + room).min(want) }
}

/// To how many replicas each old ReplicaSet shall go down now; those that keep theirs are left out.
pub(super) fn scale_down_old(
    deployment: &Deployment,
    new: &ReplicaSet,
    old: &[Arc<ReplicaSet>],
) -> Vec<(Arc<ReplicaSet>, i32)> {
    let (_, unavailable) = fenceposts(deployment);
    let min_available = wanted(deployment) - unavailable;
    let total: i32 = old.iter().map(|s| replicas(s)).sum::<i32>() + replicas(new);
    let mut spare = total - min_available - (replicas(new) - available(new));
    let mut sizes: Vec<(Arc<ReplicaSet>, i32)> =
        by_creation(old).into_iter().map(|s| (s.clone(), replicas(&s))).collect();
    if spare <= 0 {
        return Vec::new();
    }
    // Pods that are not available cost nothing.
    for (set, size) in &mut sizes {
        let down = spare.min(*size - available(set).min(*size)).max(0);
        *size -= down;
        spare -= down;
    }
    let available_now: i32 = old.iter().map(|s| available(s)).sum::<i32>() + available(new);
    let mut surplus = (available_now - min_available).max(0);
    for (_, size) in &mut sizes {
        let down = surplus.min(*size);
        *size -= down;
        surplus -= down;
    }
    sizes.retain(|(set, size)| replicas(set) != *size);
    sizes
}

/// The oldest first.
pub(super) fn by_creation(sets: &[Arc<ReplicaSet>]) -> Vec<Arc<ReplicaSet>> {
    let mut sorted = sets.to_vec();
    sorted.sort_by(|a, b| {
        let created = |s: &Arc<ReplicaSet>| s.metadata.creation_timestamp.as_ref().map(|t| t.0);
        created(a).cmp(&created(b)).then_with(|| a.name().cmp(b.name()))
    });
    sorted
}

/// How a change of `spec.replicas` in the middle of a rollout is spread over the ReplicaSets: in proportion to their size. `base` gives the
/// greatest number of replicas that was allowed when the set was scaled last.
pub(super) fn proportional(
    deployment: &Deployment,
    active: &[Arc<ReplicaSet>],
    base: impl Fn(&ReplicaSet) -> i32,
) -> Vec<(Arc<ReplicaSet>, i32)> {
    let (surge, _) = fenceposts(deployment);
    let allowed = if wanted(deployment) > 0 { wanted(deployment) + surge } else { 0 };
    let total: i32 = active.iter().map(|s| replicas(s)).sum();
    let to_add = allowed - total;
    let mut sorted = active.to_vec();
    // The largest first; of equals the newer one when growing, the older one when shrinking.
    sorted.sort_by(|a, b| {
        let created = |s: &Arc<ReplicaSet>| s.metadata.creation_timestamp.as_ref().map(|t| t.0);
        let age = if to_add > 0 { created(b).cmp(&created(a)) } else { created(a).cmp(&created(b)) };
        replicas(b).cmp(&replicas(a)).then(age).then_with(|| a.name().cmp(b.name()))
    });
    let mut added = 0;
    let mut sizes: Vec<(Arc<ReplicaSet>, i32)> = sorted
        .into_iter()
        .map(|set| {
            let share =
                if to_add == 0 { 0 } else { share(replicas(&set), base(&set), allowed, to_add, added) };
            added += share;
            let size = (replicas(&set) + share).max(0);
            (set, size)
        })
        .collect();
    if let Some((_, first)) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

fn share(size: i32, base: i32, allowed: i32, to_add: i32, added: i32) -> i32 {
    if size == 0 {
        return 0;
    }
    let base = f64::from(if base > 0 { base } else { allowed.max(1) });
    let ideal = (f64::from(size) * f64::from(allowed) / base).round() - f64::from(size);
    // The ideal is bounded by i32 inputs; what is left to give bounds it further.
    let ideal = ideal as i32;
    let rest = to_add - added;
    if to_add > 0 { ideal.min(rest) } else { ideal.max(rest) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
        let number = |text: &str| text.parse::<i32>().map_or_else(|_| json!(text), |n| json!(n));
        serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {
            "replicas": replicas, "selector": {}, "template": {},
            "strategy": {"rollingUpdate": {"maxSurge": number(surge), "maxUnavailable": number(unavailable)}}}}))
        .unwrap()
    }

    fn set(name: &str, replicas: i32, available: i32) -> Arc<ReplicaSet> {
        let value = json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {}},
            "status": {"replicas": replicas, "availableReplicas": available}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn percentages_round_towards_progress() {
        let check = |replicas, surge: &str, unavailable: &str, want| {
            assert_eq!(fenceposts(&deployment(replicas, surge, unavailable)), want);
        };
        check(10, "25%", "25%", (3, 2));
        check(10, "0", "0", (0, 1));
        check(1, "25%", "25%", (1, 0));
        check(3, "0%", "10%", (0, 1));
        check(2, "5", "9", (5, 2));
    }

    #[test]
    fn new_sets_grow_into_the_room_there_is() {
        let check = |old: i32, new: i32, want: i32| {
            let all = [set("old", old, old), set("new", new, 0)];
            assert_eq!(new_set_replicas(&deployment(10, "3", "2"), &all, new), want);
        };
        check(10, 0, 3);
        check(8, 3, 5);
        check(0, 5, 10);
        check(20, 0, 0);
        check(0, 12, 10);
    }

    #[test]
    fn old_sets_shrink_as_far_as_availability_allows() {
        let check = |new: (i32, i32), old: &[(i32, i32)], want: &[(&str, i32)]| {
            let names = ["a", "b", "c"];
            let old: Vec<_> = old.iter().zip(names).map(|((r, a), n)| set(n, *r, *a)).collect();
            let got = scale_down_old(&deployment(10, "3", "2"), &set("new", new.0, new.1), &old);
            let got: Vec<(&str, i32)> = got.iter().map(|(s, n)| (s.name(), *n)).collect();
            assert_eq!(got, want);
        };
        check((3, 0), &[(10, 10)], &[("a", 8)]);
        check((5, 0), &[(8, 8)], &[]);
        check((5, 5), &[(8, 8)], &[("a", 3)]);
        check((10, 10), &[(3, 3)], &[("a", 0)]);
        // Unhealthy ones go first.
        check((3, 0), &[(8, 8), (2, 0)], &[("b", 0)]);
    }

    #[test]
    fn scaling_in_mid_rollout_keeps_the_proportions() {
        let check = |want: i32, sets: &[(&str, i32)], base: i32, sizes: &[(&str, i32)]| {
            let sets: Vec<_> = sets.iter().map(|(n, r)| set(n, *r, *r)).collect();
            let got = proportional(&deployment(want, "0", "1"), &sets, |_| base);
            let got: Vec<(&str, i32)> = got.iter().map(|(s, n)| (s.name(), *n)).collect();
            assert_eq!(got, sizes);
        };
        check(20, &[("a", 5), ("b", 5)], 10, &[("a", 10), ("b", 10)]);
        check(5, &[("a", 6), ("b", 4)], 10, &[("a", 3), ("b", 2)]);
        check(11, &[("a", 5), ("b", 5)], 10, &[("a", 6), ("b", 5)]);
        check(0, &[("a", 5), ("b", 5)], 10, &[("a", 0), ("b", 0)]);
        check(10, &[("a", 10)], 10, &[("a", 10)]);
    }
}
