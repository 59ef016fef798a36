//! Small writes: status patches that are skipped when nothing changed, and finalizers.

use crate::Context;
use kubewright_client::Api;
use kubewright_core::{ApiError, ContentType, Resource};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The merge patch (RFC 7386) that turns `old` into `new`; `None` where they are equal.
///
/// ```
/// use serde_json::json;
/// let patch = kubewright_reconcile::patch::merge_diff(&json!({"a": 1, "b": [2]}), &json!({"b": [3]}));
/// assert_eq!(patch, Some(json!({"a": null, "b": [3]})));
/// ```
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        let change = match old.get(key) {
            Some(present) => merge_diff(present, value),
            None => Some(value.clone()),
        };
        patch.extend(change.map(|change| (key.clone(), change)));
    }
    Some(Value::Object(patch))
}

impl Context {
    /// Writes an object's status as a merge patch of what differs between `old` and `new`, for the object of this uid only. Nothing
    /// is sent when nothing differs; says whether something was.
    ///
    /// # Errors
    /// The server's; 409 where the object was replaced by another of its name.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have written it.
    pub async fn patch_status<K: Resource, S: Serialize>(
        &self,
        object: &K,
        old: &S,
        new: &S,
    ) -> Result<bool, ApiError> {
        let old = serde_json::to_value(old).map_err(ApiError::internal)?;
        let new = serde_json::to_value(new).map_err(ApiError::internal)?;
        let old = if old.is_null() { json!({}) } else { old };
        let Some(status) = merge_diff(&old, &new) else {
            return Ok(false);
        };
        let patch = json!({"metadata": {"uid": object.uid()}, "status": status});
        self.send_patch(object, Some("status"), patch).await?;
        Ok(true)
    }

    /// Merges a patch into an object, for the object of this uid only.
    ///
    /// # Errors
    /// As [`Context::patch_status`].
    ///
    /// # Cancel safety
    /// A dropped call may or may not have written it.
    pub async fn merge<K: Resource>(&self, object: &K, mut patch: Value) -> Result<Arc<K>, ApiError> {
        patch["metadata"]["uid"] = json!(object.uid());
        let api = self.api::<K>(object.namespace().unwrap_or(""));
        api.patch(object.name(), ContentType::MergePatch, patch).await
    }

    async fn send_patch<K: Resource>(
        &self,
        object: &K,
        subresource: Option<&str>,
        patch: Value,
    ) -> Result<(), ApiError> {
        let api: Api<K> = self.api(object.namespace().unwrap_or(""));
        let mut request = api.request(kubewright_core::Verb::Patch, Some(object.name()));
        if let Some(subresource) = subresource {
            request = request.subresource(subresource);
        }
        // The answer is not decoded: the informer will bring it.
        self.client().send(request.body(ContentType::MergePatch, patch)).await.map(drop)
    }

    /// Adds a finalizer unless it is there; says whether it had to. To be done before the first thing that it shall clean up.
    ///
    /// # Errors
    /// 409 where the object changed meanwhile: the next pass tries again.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have written it.
    pub async fn ensure_finalizer<K: Resource>(&self, object: &K, name: &str) -> Result<bool, ApiError> {
        let mut all = object.metadata().finalizers.clone().unwrap_or_default();
        if all.iter().any(|f| f == name) {
            return Ok(false);
        }
        all.push(name.to_owned());
        self.set_finalizers(object, all).await.map(|()| true)
    }

    /// Takes a finalizer away; the object goes with the last one. An object that is gone already is no error.
    ///
    /// # Errors
    /// 409 where the object changed meanwhile: the next pass tries again.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have written it.
    pub async fn remove_finalizer<K: Resource>(&self, object: &K, name: &str) -> Result<(), ApiError> {
        let mut all = object.metadata().finalizers.clone().unwrap_or_default();
        if !all.iter().any(|f| f == name) {
            return Ok(());
        }
        all.retain(|f| f != name);
        match self.set_finalizers(object, all).await {
            Err(e) if e.is_not_found() => Ok(()),
            other => other,
        }
    }

    async fn set_finalizers<K: Resource>(&self, object: &K, all: Vec<String>) -> Result<(), ApiError> {
        let version = object.metadata().resource_version.clone();
        let patch = json!({"metadata": {"uid": object.uid(), "resourceVersion": version, "finalizers": all}});
        self.send_patch(object, None, patch).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_diff_says_only_what_differs() {
        let check = |old: Value, new: Value, want: Option<Value>| assert_eq!(merge_diff(&old, &new), want);
        check(json!({"a": 1}), json!({"a": 1}), None);
        check(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 1}}), Some(json!({"a": {"c": null}})));
        check(json!({"a": [1, 2]}), json!({"a": [1]}), Some(json!({"a": [1]})));
        check(json!({}), json!({"a": {}}), Some(json!({"a": {}})));
        check(json!({"a": 1}), json!({"a": {"b": 1}}), Some(json!({"a": {"b": 1}})));
    }
}
