//! OpenAPI: v3 one document for each group version, v2 one for all, made of the kinds' schemas when somebody asks, and kept.
//!
//! They hold what kubectl reads: the schemas with their group-version-kind and list extensions, and the paths with their verbs and
//! the query parameters that clients look for (`fieldValidation`, `dryRun`).

mod paths;
mod v2;
mod v3;

use crate::server::Shared;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use kubewright_core::{ApiError, ApiResponse, Reason, ResponseBody};
use rustc_hash::FxHashMap;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::{Arc, OnceLock};

/// The documents of one set of kinds.
struct Documents {
    generation: u64,
    /// Bytes and hash by `api/v1`, `apis/apps/v1`.
    v3: FxHashMap<String, OnceLock<(Bytes, String)>>,
    v2: OnceLock<Bytes>,
}

/// The documents made last.
#[derive(Default)]
pub(crate) struct OpenApi(ArcSwapOption<Documents>);

impl OpenApi {
    fn of(&self, shared: &Shared) -> Arc<Documents> {
        let kinds = shared.kinds.load();
        if let Some(made) = self.0.load_full().filter(|d| d.generation == kinds.generation) {
            return made;
        }
        let v3 = kinds.registry.iter().map(|kind| (paths::root(&kind.group, &kind.version), OnceLock::new()));
        let made = Documents { generation: kinds.generation, v3: v3.collect(), v2: OnceLock::new() };
        let made = Arc::new(made);
        self.0.store(Some(made.clone()));
        made
    }
}

/// Answers `/openapi/...`; `None` where it is another path.
pub(crate) fn answer(shared: &Shared, path: &str, accept: &str) -> Option<Result<ApiResponse, ApiError>> {
    let rest = path.strip_prefix("/openapi/")?.trim_end_matches('/');
    let documents = shared.openapi.of(shared);
    Some(match rest {
        "v2" => v2(shared, &documents, accept),
        "v3" => index(shared, &documents),
        other => match other.strip_prefix("v3/").and_then(|key| documents.v3.get_key_value(key)) {
            None => Err(ApiError::no_such_path()),
            Some(_) if only_protobuf(accept) => Err(not_acceptable()),
            Some((key, cell)) => document(shared, key, cell).map(|(bytes, _)| json(bytes.clone())),
        },
    })
}

/// Old clients ask for protobuf only; they go on without a document, as they do with servers that have none.
fn only_protobuf(accept: &str) -> bool {
    !accept.is_empty() && accept.split(',').all(|clause| clause.contains("protobuf"))
}

fn not_acceptable() -> ApiError {
    ApiError::new(Reason::NotAcceptable, "only the following media types are accepted: application/json")
}

fn json(bytes: Bytes) -> ApiResponse {
    ApiResponse::new(200, ResponseBody::Raw { content_type: "application/json", bytes })
}

fn document<'a>(
    shared: &Shared,
    key: &str,
    cell: &'a OnceLock<(Bytes, String)>,
) -> Result<&'a (Bytes, String), ApiError> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let kinds = shared.kinds.load();
    let of_version = kinds.registry.iter().filter(|k| paths::root(&k.group, &k.version) == key);
    let bytes = encoded(&v3::document(&of_version.cloned().collect::<Vec<_>>()))?;
    let hash = hex::encode_upper(Sha256::digest(&bytes));
    Ok(cell.get_or_init(|| (bytes, hash)))
}

fn encoded(document: &Value) -> Result<Bytes, ApiError> {
    serde_json::to_vec(document).map(Bytes::from).map_err(ApiError::internal)
}

fn index(shared: &Shared, documents: &Documents) -> Result<ApiResponse, ApiError> {
    let mut paths = serde_json::Map::new();
    for (key, cell) in &documents.v3 {
        let (_, hash) = document(shared, key, cell)?;
        let url = format!("/openapi/v3/{key}?hash={hash}");
        paths.insert(key.clone(), serde_json::json!({"serverRelativeURL": url}));
    }
    Ok(json(encoded(&serde_json::json!({"paths": paths}))?))
}

fn v2(shared: &Shared, documents: &Documents, accept: &str) -> Result<ApiResponse, ApiError> {
    if only_protobuf(accept) {
        return Err(not_acceptable());
    }
    if let Some(bytes) = documents.v2.get() {
        return Ok(json(bytes.clone()));
    }
    let kinds = shared.kinds.load();
    let all: Vec<_> = kinds.registry.iter().cloned().collect();
    let bytes = encoded(&v2::document(&all))?;
    Ok(json(documents.v2.get_or_init(|| bytes).clone()))
}
