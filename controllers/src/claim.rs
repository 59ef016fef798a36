//! Which children belong to an owner: those that name it as their controller, and orphans that its selector matches.
//!
//! A child whose labels no longer match is released; an orphan that matches is adopted. Both follow upstream's rules, so that two
//! controllers never fight over one object.

use kubewright_core::selector::Selector;
use kubewright_core::{ApiError, ObjectMeta, Resource};
use kubewright_reconcile::{Context, Informer, owner};
use serde_json::json;
use smol_str::{SmolStr, format_smolstr};
use std::sync::Arc;

const INDEX: &str = "controller";

/// Adds the index that [`claim`] reads: children by the uid of their controller, orphans by their namespace.
pub(crate) fn index_children<C: Resource>(children: &Informer<C>) {
    children.add_index(INDEX, |child| vec![index_value(child.metadata())]);
}

fn index_value(meta: &ObjectMeta) -> SmolStr {
    match owner::controller_of(meta) {
        Some(reference) => SmolStr::new(&reference.uid),
        None => format_smolstr!("orphans in {}", meta.namespace.as_deref().unwrap_or("")),
    }
}

/// The children of an owner, by its uid, without claiming anything.
pub(crate) fn children_of<C: Resource>(children: &Informer<C>, uid: &str) -> Vec<Arc<C>> {
    index_children(children);
    children.by_index(INDEX, uid)
}

/// The children of `owner` after adopting and releasing.
///
/// # Errors
/// The server's. A child that changed or went meanwhile is left out: its event brings another pass.
pub(crate) async fn claim<K: Resource, C: Resource>(
    cx: &Context,
    owner: &K,
    selector: &Selector,
    children: &Informer<C>,
) -> Result<Vec<Arc<C>>, ApiError> {
    index_children(children);
    let empty = Default::default();
    let matches = |child: &Arc<C>| selector.matches(child.metadata().labels.as_ref().unwrap_or(&empty));
    let deleting = owner.metadata().deletion_timestamp.is_some();
    let mut claimed = Vec::new();
    for child in children.by_index(INDEX, owner.uid()) {
        if matches(&child) {
            claimed.push(child);
        } else if !deleting {
            release(cx, owner, &*child).await?;
        }
    }
    if deleting {
        return Ok(claimed);
    }
    let orphans = children.by_index(INDEX, &format!("orphans in {}", owner.namespace().unwrap_or("")));
    let mut alive = false;
    for orphan in orphans.iter().filter(|o| o.metadata().deletion_timestamp.is_none()) {
        if !matches(orphan) {
            continue;
        }
        if !alive {
            still_there(cx, owner).await?;
            alive = true;
        }
        match adopt(cx, owner, &**orphan).await {
            Ok(adopted) => claimed.push(adopted),
            Err(e) if e.is_not_found() || e.is_conflict() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(claimed)
}

/// Adopting for an owner that is gone would make the orphan a victim of garbage collection: ask the server, not the informer.
async fn still_there<K: Resource>(cx: &Context, owner: &K) -> Result<(), ApiError> {
    let fresh = cx.api::<K>(owner.namespace().unwrap_or("")).get(owner.name()).await?;
    if fresh.uid() != owner.uid() || fresh.metadata().deletion_timestamp.is_some() {
        return Err(ApiError::conflict("", K::URL_PATH_SEGMENT, owner.name(), "it is gone or going"));
    }
    Ok(())
}

async fn adopt<K: Resource, C: Resource>(cx: &Context, owner: &K, child: &C) -> Result<Arc<C>, ApiError> {
    let mut references = child.metadata().owner_references.clone().unwrap_or_default();
    references.push(owner::controller_ref(owner));
    let version = &child.metadata().resource_version;
    cx.merge(child, json!({"metadata": {"resourceVersion": version, "ownerReferences": references}})).await
}

async fn release<K: Resource, C: Resource>(cx: &Context, owner: &K, child: &C) -> Result<(), ApiError> {
    let mut references = child.metadata().owner_references.clone().unwrap_or_default();
    references.retain(|r| r.uid != owner.uid());
    let version = &child.metadata().resource_version;
    let patch = json!({"metadata": {"resourceVersion": version, "ownerReferences": references}});
    match cx.merge(child, patch).await {
        Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
        other => other.map(drop),
    }
}
