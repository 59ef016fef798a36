//! What is served, in the order in which clients shall prefer it: groups, versions, resources, subresources.

use crate::aggregation::Remote;
use crate::kinds::Kinds;
use crate::ports::VirtualDescriptor;
use crate::subresources;
use base64::Engine;
use kubewright_core::resource::Origin;
use kubewright_core::{KindDescriptor, Verb};
use sha2::{Digest, Sha256};
use smol_str::SmolStr;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Upstream's order of its groups, by which clients choose among resources of one name. Other groups follow by name.
const GROUP_ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "resource.k8s.io",
];

/// Whether a group is one of upstream's own, which nobody else serves here.
pub(crate) fn is_upstreams_group(group: &str) -> bool {
    GROUP_ORDER.contains(&group)
}

/// The verbs of a stored kind's collection and objects.
const STORED_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Upstream's priorities of the groups and versions that come from definitions.
const CUSTOM_PRIORITY: i64 = 1000;
const CUSTOM_VERSION_PRIORITY: i64 = 100;

/// All that is served at one moment.
pub(super) struct Catalogue {
    pub(super) groups: Vec<Group>,
}

/// An API group; the first version is the preferred one.
pub(super) struct Group {
    pub(super) name: SmolStr,
    pub(super) versions: Vec<Version>,
}

/// One version of a group, its resources by name.
pub(super) struct Version {
    pub(super) name: SmolStr,
    pub(super) resources: Vec<Resource>,
    /// The server that answers for it, where that is another one; `resources` is empty then.
    pub(super) remote: Option<Arc<Remote>>,
}

/// One resource, whatever it is made of.
pub(super) struct Resource {
    pub(super) plural: SmolStr,
    pub(super) singular: SmolStr,
    pub(super) kind: SmolStr,
    pub(super) namespaced: bool,
    pub(super) verbs: Vec<&'static str>,
    pub(super) subresources: Vec<Subresource>,
    /// `None` for a computed resource.
    pub(super) stored: Option<Arc<KindDescriptor>>,
}

/// What stands below an object, with the kind that it takes and gives.
pub(super) struct Subresource {
    pub(super) name: SmolStr,
    pub(super) group: SmolStr,
    pub(super) version: SmolStr,
    pub(super) kind: SmolStr,
    pub(super) verbs: Vec<&'static str>,
}

impl Catalogue {
    pub(super) fn of<'a>(
        kinds: &Kinds,
        computed: impl Iterator<Item = &'a VirtualDescriptor>,
        remotes: Vec<Arc<Remote>>,
    ) -> Self {
        let mut found: BTreeMap<SmolStr, BTreeMap<Precedence, Vec<Resource>>> = BTreeMap::new();
        let mut add = |group: &SmolStr, version: &SmolStr, resource: Resource| {
            let versions = found.entry(group.clone()).or_default();
            versions.entry(Precedence::of(version)).or_default().push(resource);
        };
        for kind in kinds.registry.iter() {
            add(&kind.group, &kind.version, stored(kind));
        }
        for d in computed {
            add(&d.group, &d.version, computed_resource(d));
        }
        let mut groups: Vec<Group> =
            found.into_iter().map(|(name, versions)| group(name, versions)).collect();
        remotes.into_iter().for_each(|remote| add_remote(&mut groups, remote));
        groups.sort_by(|a, b| (rank(a), &a.name).cmp(&(rank(b), &b.name)));
        Catalogue { groups }
    }

    pub(super) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.name == name)
    }

    pub(super) fn version(&self, group: &str, version: &str) -> Option<&Version> {
        self.group(group)?.versions.iter().find(|v| v.name == version)
    }
}

impl Resource {
    /// Whether it comes from a CustomResourceDefinition.
    pub(super) fn custom(&self) -> bool {
        self.stored.as_ref().is_some_and(|kind| kind.origin == Origin::Custom)
    }
}

impl Group {
    /// `v1` or `apps/v1`.
    pub(super) fn group_version(&self, version: &str) -> String {
        if self.name.is_empty() { version.to_owned() } else { format!("{}/{version}", self.name) }
    }
}

fn group(name: SmolStr, versions: BTreeMap<Precedence, Vec<Resource>>) -> Group {
    let versions = versions.into_iter().map(|(precedence, mut resources)| {
        resources.sort_by(|a, b| a.plural.cmp(&b.plural));
        Version { name: precedence.2, resources, remote: None }
    });
    Group { name, versions: versions.collect() }
}

/// Upstream's groups in their order, then the others by falling priority.
fn rank(group: &Group) -> (usize, Reverse<i64>) {
    let place = GROUP_ORDER.iter().position(|o| *o == group.name).unwrap_or(GROUP_ORDER.len());
    let remote = group.versions.iter().filter_map(|v| v.remote.as_ref().map(|r| r.group_priority)).max();
    (place, Reverse(remote.unwrap_or(CUSTOM_PRIORITY)))
}

/// Puts a version of another server among the groups, in place of one of this server.
fn add_remote(groups: &mut Vec<Group>, remote: Arc<Remote>) {
    let at = groups.iter().position(|g| g.name == remote.group).unwrap_or_else(|| {
        groups.push(Group { name: remote.group.clone(), versions: Vec::new() });
        groups.len() - 1
    });
    let versions = &mut groups[at].versions;
    versions.retain(|v| v.name != remote.version);
    versions.push(Version { name: remote.version.clone(), resources: Vec::new(), remote: Some(remote) });
    let priority = |v: &Version| v.remote.as_ref().map_or(CUSTOM_VERSION_PRIORITY, |r| r.version_priority);
    versions.sort_by_key(|v| (Reverse(priority(v)), Precedence::of(&v.name)));
}

fn stored(kind: &Arc<KindDescriptor>) -> Resource {
    // Namespaces go one by one, as their content goes first.
    let one_by_one = kind.group.is_empty() && kind.plural == "namespaces";
    let verbs = STORED_VERBS.iter().copied().filter(|v| !(one_by_one && *v == "deletecollection"));
    let subresources = subresources::of(kind).into_iter().map(|s| {
        let own = (kind.group.as_str(), kind.version.as_str(), kind.kind.as_str());
        let (group, version, name) = s.kind.unwrap_or(own);
        Subresource {
            name: s.name.into(),
            group: group.into(),
            version: version.into(),
            kind: name.into(),
            verbs: s.verbs.iter().map(|v| v.as_str()).collect(),
        }
    });
    Resource {
        plural: kind.plural.clone(),
        singular: kind.singular.clone(),
        kind: kind.kind.clone(),
        namespaced: kind.namespaced(),
        verbs: verbs.collect(),
        subresources: subresources.collect(),
        stored: Some(kind.clone()),
    }
}

fn computed_resource(d: &VirtualDescriptor) -> Resource {
    let mut verbs: Vec<&'static str> = d.verbs.iter().map(|v: &Verb| v.as_str()).collect();
    verbs.sort_unstable();
    Resource {
        plural: d.plural.clone(),
        singular: d.singular.clone(),
        kind: d.kind.clone(),
        namespaced: d.namespaced,
        verbs,
        subresources: Vec::new(),
        stored: None,
    }
}

/// Upstream's `storageVersionHash`: which shape the objects are stored in, for migrations to compare.
pub(super) fn storage_version_hash(kind: &KindDescriptor) -> String {
    let version = kind.stored_as.as_ref().map_or(&kind.version, |s| &s.resource.version);
    let group = kind.stored_as.as_ref().map_or(&kind.group, |s| &s.resource.group);
    let digest = Sha256::digest(format!("{group}/{version}/{}", kind.kind));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

/// A version, ordered as clients shall prefer it: `v2`, `v1`, `v1beta2`, `v1beta1`, `v1alpha1`, then anything else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Precedence(u8, Reverse<(u64, u64)>, SmolStr);

impl Precedence {
    fn of(version: &str) -> Self {
        let (class, major, minor) = Self::parse(version).unwrap_or((3, 0, 0));
        Precedence(class, Reverse((major, minor)), SmolStr::new(version))
    }

    fn parse(version: &str) -> Option<(u8, u64, u64)> {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        let (class, minor) = match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            _ if tail.is_empty() => return Some((0, major, 0)),
            (Some(minor), _) => (1, minor),
            (None, Some(minor)) => (2, minor),
            (None, None) => return None,
        };
        Some((class, major, minor.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_maturity() {
        let mut versions =
            ["v1alpha1", "v1", "foo", "v1beta2", "v11", "v2", "v1beta10", "v1beta", "v"].map(Precedence::of);
        versions.sort();
        let names: Vec<&str> = versions.iter().map(|v| v.2.as_str()).collect();
        assert_eq!(names, ["v11", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo", "v", "v1beta"]);
    }

    #[test]
    fn the_storage_hash_is_upstreams() {
        let kinds = kubewright_core::api::builtin(&kubewright_core::api::BuiltinOptions::default());
        let pod = kinds.iter().find(|k| k.kind == "Pod").unwrap();
        assert_eq!(storage_version_hash(pod), "xPOwRZ+Yhw8=");
        let events = kinds.iter().filter(|k| k.plural == "events");
        let hashes: Vec<String> = events.map(storage_version_hash).collect();
        assert_eq!(hashes, ["r2yiGXH7wu8=", "r2yiGXH7wu8="]);
    }
}
