//! An API object as the bytes that are served, with what selectors and caches need taken out beside them.
//!
//! Bytes are encoded once and shared by every list, watch and informer; a type is decoded at most once.

use crate::{ApiError, LabelMap};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use smol_str::SmolStr;
use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// The parts of `metadata` that the machinery reads of every object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Header {
    /// `metadata.name`.
    pub name: SmolStr,
    /// `metadata.namespace`, empty for a cluster-scoped object.
    pub namespace: SmolStr,
    /// `metadata.uid`.
    pub uid: SmolStr,
    /// `metadata.labels`.
    pub labels: LabelMap,
}

/// One version of one object: immutable, cheap to share.
pub struct ApiObject {
    bytes: Bytes,
    header: Header,
    resource_version: u64,
    /// The first type that someone decoded; another type is decoded anew at each call.
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
    /// The JSON, where someone wanted it to be kept.
    parsed: OnceLock<Arc<Value>>,
}

impl ApiObject {
    /// An object out of its JSON, whose header the caller already knows.
    pub fn from_parts(bytes: Bytes, header: Header, resource_version: u64) -> Self {
        ApiObject { bytes, header, resource_version, decoded: OnceLock::new(), parsed: OnceLock::new() }
    }

    /// An object out of its JSON.
    ///
    /// # Errors
    /// 400 where it is no JSON object with readable metadata.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, ApiError> {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct Meta {
            #[serde(flatten)]
            header: Header,
            resource_version: String,
        }
        #[derive(Deserialize)]
        struct Envelope {
            #[serde(default)]
            metadata: Meta,
        }
        let e: Envelope = serde_json::from_slice(&bytes)
            .map_err(|e| ApiError::bad_request(format!("the object is not readable: {e}")))?;
        let resource_version = e.metadata.resource_version.parse().unwrap_or(0);
        Ok(Self::from_parts(bytes, e.metadata.header, resource_version))
    }

    /// An object out of a JSON value.
    ///
    /// # Errors
    /// As [`ApiObject::from_bytes`].
    pub fn from_value(value: &Value) -> Result<Self, ApiError> {
        Self::from_bytes(Bytes::from(serde_json::to_vec(value).map_err(ApiError::internal)?))
    }

    /// The JSON as it is served, `resourceVersion` included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Name, namespace, uid and labels.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The store's revision of this version; 0 for an object that was never stored.
    pub fn resource_version(&self) -> u64 {
        self.resource_version
    }

    /// The object as JSON, parsed anew.
    ///
    /// # Errors
    /// 500 where the bytes are no JSON.
    pub fn value(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(&self.bytes).map_err(ApiError::internal)
    }

    /// The object as JSON, parsed once and kept as long as the object: for the few objects that many requests read (namespaces,
    /// service accounts, classes), as a parsed object takes several times the memory of its bytes.
    ///
    /// # Errors
    /// 500 where the bytes are no JSON.
    pub fn parsed(&self) -> Result<Arc<Value>, ApiError> {
        if let Some(parsed) = self.parsed.get() {
            return Ok(parsed.clone());
        }
        let value = Arc::new(self.value()?);
        Ok(self.parsed.get_or_init(|| value).clone())
    }

    /// The object as `K`: the first type asked for is decoded once and shared by everyone.
    ///
    /// # Errors
    /// 500 with serde's words where the object does not fit the type.
    pub fn decode<K: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<K>, ApiError> {
        if let Some(Ok(shared)) = self.decoded.get().cloned().map(Arc::downcast::<K>) {
            return Ok(shared);
        }
        let object: K = serde_json::from_slice(&self.bytes).map_err(|e| {
            ApiError::internal(format!("{}/{} does not decode: {e}", self.header.namespace, self.header.name))
        })?;
        let object = Arc::new(object);
        // Losing the race only means that two equal values exist for a while.
        let _ = self.decoded.set(object.clone());
        Ok(object)
    }
}

impl fmt::Debug for ApiObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiObject({}/{} at {})", self.header.namespace, self.header.name, self.resource_version)
    }
}

/// What happened to an object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEventType {
    /// It came into the watched set.
    Added,
    /// It changed.
    Modified,
    /// It left the watched set; the object is its last state.
    Deleted,
    /// Only a resource version: everything up to it was sent.
    Bookmark,
}

impl WatchEventType {
    /// The wire's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            WatchEventType::Added => "ADDED",
            WatchEventType::Modified => "MODIFIED",
            WatchEventType::Deleted => "DELETED",
            WatchEventType::Bookmark => "BOOKMARK",
        }
    }
}

/// One event of a watch. An error ends the stream as its `Err` item instead (`ERROR` on the wire).
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub event: WatchEventType,
    /// The object after it (before it, for a deletion).
    pub object: Arc<ApiObject>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    #[test]
    fn a_type_is_decoded_once_and_shared() {
        let o = ApiObject::from_bytes(Bytes::from_static(
            br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"n","resourceVersion":"7","labels":{"k":"v"}}}"#,
        ))
        .unwrap();
        assert_eq!((o.header().name.as_str(), o.resource_version()), ("a", 7));
        let (x, y) = (o.decode::<ConfigMap>().unwrap(), o.decode::<ConfigMap>().unwrap());
        assert!(Arc::ptr_eq(&x, &y));
        assert_eq!(o.decode::<Value>().unwrap()["kind"], "ConfigMap");
        assert!(ApiObject::from_bytes(Bytes::from_static(b"[1]")).is_err());
    }
}
