//! Bodies into objects: content types, strictness about fields, identity.

use crate::handlers::Call;
use kubewright_core::resource::Origin;
use kubewright_core::{ApiError, ContentType, KindDescriptor, Reason, RequestBody, json, meta};
use serde_json::{Value, json};

/// The largest body that is read, in bytes, as upstream's.
const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// What happens to unknown and repeated fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validation {
    Ignore,
    Warn,
    Strict,
}

/// The `fieldValidation` of a request.
///
/// # Errors
/// 422 for another text.
pub(crate) fn strictness(call: &Call) -> Result<Validation, ApiError> {
    match call.options.field_validation.as_deref().unwrap_or("") {
        "" | "Warn" => Ok(Validation::Warn),
        "Ignore" => Ok(Validation::Ignore),
        "Strict" => Ok(Validation::Strict),
        other => {
            let field = kubewright_core::FieldPath::new("fieldValidation");
            let supported = ["", "Ignore", "Strict", "Warn"];
            let error = kubewright_core::FieldError::not_supported(&field, other, &supported);
            let kind = match call.verb {
                kubewright_core::Verb::Create => "CreateOptions",
                kubewright_core::Verb::Patch => "PatchOptions",
                _ => "UpdateOptions",
            };
            Err(ApiError::invalid("meta.k8s.io", kind, "", &[error]))
        }
    }
}

/// The document in a body with the paths of its repeated keys.
///
/// # Errors
/// 400 for no document, 413 for one too large, 415 for a patch where an object is due.
pub(crate) fn document(body: &RequestBody) -> Result<(Value, Vec<String>), ApiError> {
    match body {
        RequestBody::Empty => Ok((Value::Null, Vec::new())),
        RequestBody::Value { content_type, value } => {
            is_object_type(*content_type)?;
            Ok((value.clone(), Vec::new()))
        }
        RequestBody::Bytes { content_type, bytes } => {
            is_object_type(*content_type)?;
            check_size(bytes)?;
            match content_type {
                ContentType::Yaml => yaml(bytes),
                _ => json::parse(bytes),
            }
        }
    }
}

/// # Errors
/// 413 for a body that is too large.
pub(crate) fn check_size(bytes: &[u8]) -> Result<(), ApiError> {
    if bytes.len() <= BODY_BYTES_MAX {
        return Ok(());
    }
    let message = format!("Request entity too large: limit is {BODY_BYTES_MAX}");
    Err(ApiError::new(Reason::RequestEntityTooLarge, message))
}

fn is_object_type(content_type: ContentType) -> Result<(), ApiError> {
    if matches!(content_type, ContentType::Json | ContentType::Yaml) {
        return Ok(());
    }
    Err(ApiError::new(
        Reason::UnsupportedMediaType,
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml",
    ))
}

/// A YAML document; keys that stand twice are an error there.
pub(crate) fn yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    let value: Value = serde_saphyr::from_slice(bytes)
        .map_err(|e| ApiError::bad_request(format!("error converting YAML to JSON: {}", no_yaml(&e))))?;
    Ok((value, Vec::new()))
}

/// Why bytes are no YAML; of a key that stands twice in upstream's words.
fn no_yaml(error: &serde_saphyr::Error) -> String {
    match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), location } => {
            format!("yaml: unmarshal errors:\n  line {}: key {key:?} already set in map", location.line())
        }
        _ => error.to_string(),
    }
}

/// Makes a decoded document an object of the kind: identity, types, unknown fields. Gives the warnings.
///
/// # Errors
/// 400 in upstream's words.
pub(crate) fn object(
    kind: &KindDescriptor,
    object: &mut Value,
    repeated: &[String],
    how: Validation,
) -> Result<Vec<String>, ApiError> {
    identity(kind, object)?;
    if let Err(mismatch) = kind.schema.check_types(object) {
        return Err(cannot_be_handled(kind, &mismatch.to_string()));
    }
    let unknown = kind.schema.prune(object);
    let mut told = json::strict_warnings(repeated, &unknown);
    if kind.origin == Origin::BuiltIn {
        // Upstream finds both in one pass over the text; custom objects are pruned after it.
        told.sort_by_key(|text| text.starts_with("duplicate"));
    }
    match how {
        Validation::Ignore => Ok(Vec::new()),
        Validation::Warn => Ok(told),
        Validation::Strict if told.is_empty() => Ok(told),
        Validation::Strict => {
            let why = format!("strict decoding error: {}", told.join(", "));
            let custom = kind.origin == Origin::Custom;
            Err(if custom { ApiError::bad_request(why) } else { cannot_be_handled(kind, &why) })
        }
    }
}

/// The object of an apply, with warnings: as the others, but a field that the schema does not know is refused, whatever
/// `fieldValidation` says, since nobody could own it.
///
/// # Errors
/// 400 for no such object, 500 with the unknown field.
pub(crate) fn applied(call: &Call) -> Result<(Value, Vec<String>), ApiError> {
    strictness(call)?;
    let kind = &call.kind.descriptor;
    let (mut applied, repeated) = match &call.body {
        RequestBody::Empty => return Err(ApiError::bad_request("the body holds no object to apply")),
        RequestBody::Value { value, .. } => (value.clone(), Vec::new()),
        RequestBody::Bytes { bytes, .. } => {
            check_size(bytes)?;
            yaml(bytes)?
        }
    };
    for field in ["apiVersion", "kind"] {
        if applied.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(ApiError::bad_request(format!("Object '{field}' is missing in the applied object")));
        }
    }
    let mut known = applied.clone();
    let warnings = object(kind, &mut known, &repeated, Validation::Ignore)?;
    if known != applied
        && let Some(field) = kind.schema.prune(&mut applied).first()
    {
        let (name, version) = (meta::name(&known), kind.api_version());
        let object = format!("{}/{name}; {version}, Kind={}", call.namespace, kind.kind);
        return Err(ApiError::internal(format!(
            "failed to create typed patch object ({object}): .{field}: field not declared in schema"
        )));
    }
    Ok((known, warnings))
}

fn cannot_be_handled(kind: &KindDescriptor, why: &str) -> ApiError {
    let (name, version) = (&kind.kind, kind.api_version());
    ApiError::bad_request(format!("{name} in version {version:?} cannot be handled as a {name}: {why}"))
}

/// Checks `apiVersion` and `kind`, filling in what is missing.
fn identity(kind: &KindDescriptor, object: &mut Value) -> Result<(), ApiError> {
    let Some(map) = object.as_object_mut() else {
        let why = "couldn't get version/kind; json parse error: the body is no JSON object";
        let message = format!("the object provided is unrecognized (must be of type {}): {why}", kind.kind);
        return Err(ApiError::bad_request(message));
    };
    let expected = kind.api_version();
    let has = |map: &serde_json::Map<String, Value>, field: &str| match map.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|t| !t.is_empty())),
        Some(_) => Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {field} is no string",
            kind.kind
        ))),
    };
    if let Some(version) = has(map, "apiVersion")?
        && version != expected
    {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    if let Some(name) = has(map, "kind")?
        && name != kind.kind
    {
        let why = format!("the kind in the data ({name}) does not match the expected kind ({})", kind.kind);
        return Err(ApiError::bad_request(why));
    }
    map.insert("apiVersion".to_owned(), json!(expected));
    map.insert("kind".to_owned(), json!(kind.kind));
    if map.get("metadata").is_none_or(Value::is_null) {
        map.insert("metadata".to_owned(), json!({}));
    }
    Ok(())
}
