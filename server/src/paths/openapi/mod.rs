//! OpenAPI: v3 one document for each group version, v2 one for all, made of the kinds' schemas when somebody asks, and kept.
//!
//! They hold what kubectl reads: the schemas with their group-version-kind and list extensions, and the paths with their verbs and
//! the query parameters that clients look for (`fieldValidation`, `dryRun`).

mod operations;
mod protobuf;
mod schemas;
mod v2;
mod v3;
mod wire;

use super::catalogue::Version;
use super::documents::Current;
use super::{encoded, raw};
use bytes::Bytes;
use kubewright_core::{ApiError, ApiResponse, Reason};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

const JSON: &str = "application/json";

/// Answers `/openapi/...`, split at its slashes.
pub(super) fn answer(
    current: &Current,
    below: &[&str],
    query: &str,
    accept: &str,
) -> Result<ApiResponse, ApiError> {
    match below {
        ["v2"] => match v2_form(accept).ok_or_else(not_acceptable)? {
            Form::Json => {
                Ok(raw(JSON, current.bytes("openapi v2", || encoded(&v2::document(&current.catalogue)))?))
            }
            Form::Protobuf => {
                let make = || Ok(Bytes::from(protobuf::encode(&v2::document(&current.catalogue))));
                Ok(raw(protobuf::MEDIA_TYPE, current.bytes("openapi v2 protobuf", make)?))
            }
        },
        ["v3"] => {
            let bytes = current.bytes("openapi v3", || encoded(&index(current)?))?;
            Ok(raw(JSON, bytes))
        }
        ["v3", key @ ..] if only_protobuf(accept) && !key.is_empty() => Err(not_acceptable()),
        ["v3", "api", version] => version_document(current, "", version, query),
        ["v3", "apis", group, version] => version_document(current, group, version, query),
        _ => Err(ApiError::no_such_path()),
    }
}

/// How the v2 document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Protobuf,
}

/// The first form of the header that there is; `None` where there is none.
fn v2_form(accept: &str) -> Option<Form> {
    if accept.is_empty() {
        return Some(Form::Json);
    }
    accept.split(',').find_map(|clause| match clause.split(';').next().unwrap_or("").trim() {
        "application/json" | "application/*" | "*/*" => Some(Form::Json),
        protobuf::MEDIA_TYPE | protobuf::OLD_MEDIA_TYPE => Some(Form::Protobuf),
        _ => None,
    })
}

/// There is no protobuf of the v3 documents; every client that knows v3 also takes JSON.
fn only_protobuf(accept: &str) -> bool {
    !accept.is_empty() && accept.split(',').all(|clause| clause.contains("protobuf"))
}

fn not_acceptable() -> ApiError {
    ApiError::new(Reason::NotAcceptable, "only the following media types are accepted: application/json")
}

/// A document; whoever asks for it by its hash may keep it.
fn version_document(
    current: &Current,
    group: &str,
    version: &str,
    query: &str,
) -> Result<ApiResponse, ApiError> {
    let version = current.catalogue.version(group, version).ok_or_else(ApiError::no_such_path)?;
    let mut answer = raw(JSON, made(current, group, version)?);
    if let Some(asked) = query.split('&').find_map(|pair| pair.strip_prefix("hash=")) {
        answer.immutable = asked.as_bytes() == hash(current, group, version)?;
    }
    Ok(answer)
}

fn hash(current: &Current, group: &str, version: &Version) -> Result<Bytes, ApiError> {
    let key = format!("hash of {}", operations::root(group, &version.name));
    current.bytes(&key, || {
        let digest = Sha256::digest(made(current, group, version)?);
        Ok(Bytes::from(hex::encode_upper(digest)))
    })
}

fn made(current: &Current, group: &str, version: &Version) -> Result<Bytes, ApiError> {
    let key = operations::root(group, &version.name);
    current.bytes(&key, || encoded(&v3::document(group, version)))
}

/// Where each document is, with a hash by which clients know whether they have it already.
fn index(current: &Current) -> Result<Value, ApiError> {
    let mut paths = Map::new();
    for group in &current.catalogue.groups {
        for version in &group.versions {
            let key = operations::root(&group.name, &version.name);
            if let Some(remote) = &version.remote {
                paths.extend(remote.fetched.load().openapi_v3.iter().cloned());
                continue;
            }
            let hash = hash(current, &group.name, version)?;
            let url = format!("/openapi/v3/{key}?hash={}", String::from_utf8_lossy(&hash));
            paths.insert(key, json!({"serverRelativeURL": url}));
        }
    }
    Ok(json!({"paths": paths}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_the_header() {
        let check = |accept: &str, want: Option<Form>| assert_eq!(v2_form(accept), want, "{accept}");
        check("", Some(Form::Json));
        check("*/*", Some(Form::Json));
        check("application/json", Some(Form::Json));
        check(protobuf::OLD_MEDIA_TYPE, Some(Form::Protobuf));
        check(
            "application/com.github.proto-openapi.spec.v2.v1.0+protobuf, application/json",
            Some(Form::Protobuf),
        );
        check(
            "application/json;q=0.8,application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
            Some(Form::Json),
        );
        check("text/html", None);
    }
}
