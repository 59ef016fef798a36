//! Who owns whom, over all kinds: the graph that garbage collection walks. Free of I/O.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kubewright_core::{GroupVersionResource, ObjectMeta};
use kubewright_reconcile::ObjectKey;
use rustc_hash::{FxHashMap, FxHashSet};
use smol_str::SmolStr;

/// An object, by its uid.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) resource: GroupVersionResource,
    pub(super) key: ObjectKey,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) finalizers: Vec<String>,
    pub(super) deleting: bool,
}

impl Node {
    pub(super) fn new(resource: GroupVersionResource, meta: &ObjectMeta) -> Self {
        Node {
            resource,
            key: ObjectKey::of_meta(meta),
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }

    /// Whether it is being deleted and waits for its finalizer of this name.
    pub(super) fn waits_for(&self, finalizer: &str) -> bool {
        self.deleting && self.finalizers.iter().any(|f| f == finalizer)
    }
}

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// All objects with their dependents.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: FxHashMap<SmolStr, Node>,
    dependents: FxHashMap<SmolStr, FxHashSet<SmolStr>>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub(super) fn dependents(&self, uid: &str) -> Vec<SmolStr> {
        let mut all: Vec<SmolStr> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        all.sort_unstable();
        all
    }

    /// Puts an object in; gives the uids that have to be looked at because of it.
    pub(super) fn put(&mut self, uid: SmolStr, node: Node) -> Vec<SmolStr> {
        let mut affected = Vec::new();
        if let Some(old) = self.nodes.get(&uid) {
            let gone: Vec<SmolStr> = old.owners.iter().map(|o| SmolStr::new(&o.uid)).collect();
            let kept = |owner: &SmolStr| node.owners.iter().any(|o| o.uid == *owner && blocks(o));
            // An owner that waits for this dependent may go once it no longer blocks.
            affected.extend(gone.iter().filter(|owner| !kept(owner)).cloned());
            for owner in gone {
                self.unlink(&owner, &uid);
            }
        }
        for owner in &node.owners {
            self.dependents.entry(SmolStr::new(&owner.uid)).or_default().insert(uid.clone());
        }
        let leaves = node.waits_for(FOREGROUND) || node.waits_for(ORPHAN);
        if leaves || !node.owners.is_empty() {
            affected.push(uid.clone());
        }
        if node.waits_for(FOREGROUND) {
            affected.extend(self.dependents(&uid));
        }
        self.nodes.insert(uid, node);
        affected
    }

    /// Takes an object out; gives the uids that have to be looked at because of it.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<SmolStr> {
        let mut affected = self.dependents(uid);
        if let Some(node) = self.nodes.remove(uid) {
            for owner in &node.owners {
                self.unlink(&SmolStr::new(&owner.uid), uid);
                affected.push(SmolStr::new(&owner.uid));
            }
        }
        affected
    }

    /// Takes all objects of a resource out; gives the uids that have to be looked at because of it.
    pub(super) fn remove_resource(&mut self, resource: &GroupVersionResource) -> Vec<SmolStr> {
        let of_it = self.nodes.iter().filter(|(_, node)| node.resource == *resource);
        let uids: Vec<SmolStr> = of_it.map(|(uid, _)| uid.clone()).collect();
        uids.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    fn unlink(&mut self, owner: &SmolStr, uid: &str) {
        if let Some(all) = self.dependents.get_mut(owner) {
            all.remove(uid);
            if all.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// The dependents that hold up the foreground deletion of an owner.
    pub(super) fn blocking(&self, uid: &str) -> Vec<SmolStr> {
        let blocks_it = |dependent: &SmolStr| {
            self.nodes.get(dependent).is_some_and(|n| n.owners.iter().any(|o| o.uid == uid && blocks(o)))
        };
        self.dependents(uid).into_iter().filter(blocks_it).collect()
    }

    /// Whether an object holds up its owners while it would be held up itself by one that already waits for its dependents: a circle,
    /// in which nobody would ever go.
    pub(super) fn closes_circle(&self, uid: &str) -> bool {
        let holds_up = self.nodes.get(uid).is_some_and(|n| n.owners.iter().any(blocks));
        let waits = |d: &SmolStr| self.nodes.get(d).is_some_and(|n| n.waits_for(FOREGROUND));
        holds_up && self.blocking(uid).iter().any(waits)
    }

    /// What shall become of an object by what is known of its owners.
    pub(super) fn verdict(&self, uid: &str) -> Verdict {
        let Some(node) = self.nodes.get(uid) else {
            return Verdict::Nothing;
        };
        if node.waits_for(ORPHAN) {
            return Verdict::OrphanDependents;
        }
        if node.waits_for(FOREGROUND) {
            return if self.blocking(uid).is_empty() {
                Verdict::FinishForeground
            } else {
                Verdict::DeleteDependents
            };
        }
        if node.deleting || node.owners.is_empty() {
            return Verdict::Nothing;
        }
        let (mut solid, mut dangling, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for owner in &node.owners {
            match self.nodes.get(owner.uid.as_str()) {
                Some(present) if present.waits_for(FOREGROUND) => waiting.push(owner.uid.clone()),
                Some(_) => solid.push(owner.uid.clone()),
                None => dangling.push(owner.clone()),
            }
        }
        Verdict::ByOwners { solid: !solid.is_empty(), dangling, waiting }
    }
}

/// What to do about an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Nothing.
    Nothing,
    /// Take its reference out of its dependents, then its finalizer.
    OrphanDependents,
    /// Delete its dependents, in the foreground too.
    DeleteDependents,
    /// No dependent holds it up any more.
    FinishForeground,
    /// It goes unless an owner is solid. Owners that are not in the graph must be asked for at the server.
    ByOwners { solid: bool, dangling: Vec<OwnerReference>, waiting: Vec<String> },
}

fn blocks(reference: &OwnerReference) -> bool {
    reference.block_owner_deletion == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(owners: &[(&str, bool)], finalizers: &[&str], deleting: bool) -> Node {
        let owner = |(uid, block): &(&str, bool)| OwnerReference {
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(*block),
            ..OwnerReference::default()
        };
        Node {
            resource: GroupVersionResource::new("", "v1", "pods"),
            key: ObjectKey::default(),
            owners: owners.iter().map(owner).collect(),
            finalizers: finalizers.iter().map(|f| (*f).to_owned()).collect(),
            deleting,
        }
    }

    #[test]
    fn verdicts_follow_owners_and_finalizers() {
        let mut graph = Graph::default();
        assert!(graph.put("owner".into(), node(&[], &[], false)).is_empty());
        assert_eq!(graph.put("child".into(), node(&[("owner", true)], &[], false)), ["child"]);
        let by = |solid, waiting: &[&str]| Verdict::ByOwners {
            solid,
            dangling: Vec::new(),
            waiting: waiting.iter().map(|w| (*w).to_owned()).collect(),
        };
        assert_eq!(graph.verdict("child"), by(true, &[]));
        assert_eq!(graph.put("owner".into(), node(&[], &[FOREGROUND], true)), ["owner", "child"]);
        assert_eq!(graph.verdict("owner"), Verdict::DeleteDependents);
        assert_eq!(graph.verdict("child"), by(false, &["owner"]));
        assert_eq!(graph.put("child".into(), node(&[("owner", false)], &[], false)), ["owner", "child"]);
        assert_eq!(graph.verdict("owner"), Verdict::FinishForeground);
        assert_eq!(graph.remove("owner"), ["child"]);
        assert!(
            matches!(graph.verdict("child"), Verdict::ByOwners { solid: false, dangling, .. } if dangling.len() == 1)
        );
        graph.put("owner".into(), node(&[], &[ORPHAN], true));
        assert_eq!(graph.verdict("owner"), Verdict::OrphanDependents);
        assert_eq!(graph.remove("child"), ["owner"]);
        assert_eq!(graph.verdict("child"), Verdict::Nothing);
    }

    #[test]
    fn circles_are_closed_by_who_waits_for_who_waits() {
        let mut graph = Graph::default();
        for (name, owner) in [("a", "c"), ("b", "a"), ("c", "b")] {
            graph.put(name.into(), node(&[(owner, true)], &[], false));
        }
        let closing = |graph: &Graph| ["a", "b", "c"].map(|n| graph.closes_circle(n));
        assert_eq!(closing(&graph), [false; 3]);
        graph.put("a".into(), node(&[("c", true)], &[FOREGROUND], true));
        assert_eq!(closing(&graph), [false, false, true]);
        graph.put("c".into(), node(&[("b", false)], &[], false));
        assert_eq!(closing(&graph), [false; 3], "it holds nobody up any more");
    }
}
