//! OpenAPI: v3 one document for each group version, v2 one for all, made of the kinds' schemas when somebody asks, and kept.
//!
//! They hold what kubectl reads: the schemas with their group-version-kind and list extensions, and the paths with their verbs and
//! the query parameters that clients look for (`fieldValidation`, `dryRun`).

mod addresses;
mod operations;
mod protobuf;
mod schemas;
mod v2;
mod v3;
mod wire;

use super::catalogue::Version;
use super::documents::Current;
use super::documents::Document;
use super::{encoded, kept};
use bytes::Bytes;
use futures::StreamExt;
use kubewright_core::passage::Passed;
use kubewright_core::{ApiError, ApiResponse, Reason, ResponseBody};
use serde_json::{Map, Value, json};

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
                let make = || encoded(&v2::document(&current.catalogue));
                Ok(kept(JSON, current.document("openapi v2", make)?))
            }
            Form::Protobuf => {
                let make = || Ok(Bytes::from(protobuf::encode(&v2::document(&current.catalogue))));
                Ok(kept(protobuf::MEDIA_TYPE, current.document("openapi v2 protobuf", make)?))
            }
        },
        ["v3"] => Ok(kept(JSON, current.document("openapi v3", || encoded(&index(current)?))?)),
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
    let document = made(current, group, version)?;
    let hash = document.etag.clone();
    let Some(asked) = query.split('&').find_map(|pair| pair.strip_prefix("hash=")) else {
        return Ok(kept(JSON, document));
    };
    if asked != hash {
        // What the client knows is out of date: the present document has another address.
        return Ok(moved(&address(group, version, &hash)));
    }
    let mut answer = kept(JSON, document);
    answer.immutable = true;
    Ok(answer)
}

fn moved(to: &str) -> ApiResponse {
    let mut headers = http::HeaderMap::new();
    if let Ok(to) = http::HeaderValue::from_str(to) {
        headers.insert(http::header::LOCATION, to);
    }
    let body = futures::stream::empty().boxed();
    ApiResponse::new(301, ResponseBody::Passed(Passed { headers, body }))
}

fn address(group: &str, version: &Version, hash: &str) -> String {
    format!("/openapi/v3/{}?hash={hash}", operations::root(group, &version.name))
}

fn made(current: &Current, group: &str, version: &Version) -> Result<Document, ApiError> {
    let key = operations::root(group, &version.name);
    current.document(&key, || encoded(&v3::document(group, version)))
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
            let hash = made(current, &group.name, version)?.etag;
            let url = address(&group.name, version, &hash);
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
