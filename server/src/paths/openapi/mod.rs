//! OpenAPI: v3 one document for each group version, v2 one for all, made of the kinds' schemas when somebody asks, and kept.
//!
//! They hold what kubectl reads: the schemas with their group-version-kind and list extensions, and the paths with their verbs and
//! the query parameters that clients look for (`fieldValidation`, `dryRun`).

mod operations;
mod v2;
mod v3;

use super::documents::Current;
use super::{encoded, raw};
use kubewright_core::{ApiError, ApiResponse, KindDescriptor, Reason};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const JSON: &str = "application/json";

/// Answers `/openapi/...`, split at its slashes.
pub(super) fn answer(current: &Current, below: &[&str], accept: &str) -> Result<ApiResponse, ApiError> {
    match below {
        ["v2"] if only_protobuf(accept) => Err(not_acceptable()),
        ["v2"] => {
            let bytes = current.bytes("openapi v2", || {
                let kinds: Vec<_> = current.registry.iter().cloned().collect();
                encoded(&v2::document(&kinds))
            })?;
            Ok(raw(JSON, bytes))
        }
        ["v3"] => {
            let bytes = current.bytes("openapi v3", || encoded(&index(current)?))?;
            Ok(raw(JSON, bytes))
        }
        ["v3", key @ ..] if only_protobuf(accept) && !key.is_empty() => Err(not_acceptable()),
        ["v3", "api", version] => version_document(current, "", version),
        ["v3", "apis", group, version] => version_document(current, group, version),
        _ => Err(ApiError::no_such_path()),
    }
}

/// Old clients ask for protobuf only; they go on without a document, as they do with servers that have none.
fn only_protobuf(accept: &str) -> bool {
    !accept.is_empty() && accept.split(',').all(|clause| clause.contains("protobuf"))
}

fn not_acceptable() -> ApiError {
    ApiError::new(Reason::NotAcceptable, "only the following media types are accepted: application/json")
}

fn version_document(current: &Current, group: &str, version: &str) -> Result<ApiResponse, ApiError> {
    current.catalogue.version(group, version).ok_or_else(ApiError::no_such_path)?;
    Ok(raw(JSON, made(current, group, version)?))
}

fn made(current: &Current, group: &str, version: &str) -> Result<bytes::Bytes, ApiError> {
    current.bytes(&operations::root(group, version), || {
        let of_version = current.registry.iter().filter(|k| k.group == group && k.version == version);
        let kinds: Vec<Arc<KindDescriptor>> = of_version.cloned().collect();
        encoded(&v3::document(&kinds))
    })
}

/// Where each document is, with a hash by which clients know whether they have it already.
fn index(current: &Current) -> Result<Value, ApiError> {
    let mut paths = Map::new();
    for group in &current.catalogue.groups {
        for version in &group.versions {
            let key = operations::root(&group.name, &version.name);
            let hash = hex::encode_upper(Sha256::digest(made(current, &group.name, &version.name)?));
            let url = format!("/openapi/v3/{key}?hash={hash}");
            paths.insert(key, json!({"serverRelativeURL": url}));
        }
    }
    Ok(json!({"paths": paths}))
}
