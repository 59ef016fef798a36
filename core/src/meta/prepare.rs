//! What the server does to metadata before it stores an object.

use super::{format_time, generation, is_deleting, metadata_mut, name, namespace, resource_version, uid};
use crate::{ApiError, Entropy, GroupVersionResource, Reason};
use jiff::Timestamp;
use serde_json::{Map, Value};

/// The longest base of a generated name: 63 less the five characters that follow.
const GENERATED_BASE_BYTES_MAX: usize = 58;
const GENERATED_SUFFIX: usize = 5;

/// What a create knows beside the object.
#[derive(Debug)]
pub struct CreateContext<'a> {
    /// The namespace of the request; `None` for cluster scope.
    pub namespace: Option<&'a str>,
    /// The time of the write.
    pub now: Timestamp,
    /// Where uids and generated names come from.
    pub entropy: &'a Entropy,
    /// Whether the kind counts generations.
    pub generation: bool,
}

/// What an update knows beside the objects.
#[derive(Debug)]
pub struct UpdateContext<'a> {
    /// The resource, for messages.
    pub resource: &'a GroupVersionResource,
    /// Whether the kind counts generations.
    pub generation: bool,
}

fn no_object() -> ApiError {
    ApiError::bad_request(
        "the object provided is unrecognized: it must be a JSON object whose metadata is an object",
    )
}

/// Fills in the system fields of a new object: name out of `generateName`, namespace, uid, creation time, generation. What a client may not set goes.
///
/// # Errors
/// 400 where the object has no metadata or another namespace than the request; 500, as upstream, where it has a resource version.
pub fn prepare_create(object: &mut Value, cx: &CreateContext<'_>) -> Result<(), ApiError> {
    if metadata_mut(object).is_none() {
        return Err(no_object());
    }
    if !matches!(resource_version(object), "" | "0") {
        let why = "resourceVersion should not be set on objects to be created";
        return Err(ApiError::new(Reason::InternalError, why));
    }
    check_namespace(object, cx.namespace)?;
    let generated = generated_name(object, cx.entropy);
    let Some(metadata) = metadata_mut(object) else { return Err(no_object()) };
    if let Some(name) = generated {
        metadata.insert("name".to_owned(), Value::String(name));
    }
    match cx.namespace {
        Some(namespace) => metadata.insert("namespace".to_owned(), Value::String(namespace.to_owned())),
        None => remove_if_empty(metadata, "namespace"),
    };
    for field in
        ["selfLink", "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"]
    {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), Value::String(cx.entropy.uid()));
    metadata.insert("creationTimestamp".to_owned(), Value::String(format_time(cx.now)));
    if cx.generation {
        metadata.insert("generation".to_owned(), Value::from(1));
    }
    Ok(())
}

fn remove_if_empty(metadata: &mut Map<String, Value>, field: &str) -> Option<Value> {
    if matches!(metadata.get(field), Some(Value::String(s)) if s.is_empty()) {
        metadata.remove(field)
    } else {
        None
    }
}

fn check_namespace(object: &Value, wanted: Option<&str>) -> Result<(), ApiError> {
    let has = namespace(object);
    if wanted.is_some_and(|wanted| !has.is_empty() && has != wanted) {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::bad_request(why));
    }
    Ok(())
}

fn generated_name(object: &Value, entropy: &Entropy) -> Option<String> {
    let base = object.get("metadata")?.get("generateName")?.as_str().filter(|b| !b.is_empty())?;
    if !name(object).is_empty() {
        return None;
    }
    let mut end = base.len().min(GENERATED_BASE_BYTES_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    Some(format!("{}{}", &base[..end], entropy.suffix(GENERATED_SUFFIX)))
}

/// Checks the preconditions that an update's own metadata states, carries over what no client may change, and counts the generation.
///
/// The strategy's `prepare_for_update` runs before this: the generation counts what it leaves changed.
///
/// # Errors
/// 409 where uid or resource version are not those of the stored object; 400 where name or namespace are another's.
pub fn prepare_update(object: &mut Value, old: &Value, cx: &UpdateContext<'_>) -> Result<(), ApiError> {
    if metadata_mut(object).is_none() {
        return Err(no_object());
    }
    check_identity(object, old, cx)?;
    let changed = cx.generation && content_changed(object, old);
    let Some(metadata) = metadata_mut(object) else { return Err(no_object()) };
    metadata.remove("selfLink");
    let old_metadata = old.get("metadata");
    for field in ["name", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation"] {
        carry(metadata, old_metadata, field);
    }
    if is_deleting(old) {
        carry(metadata, old_metadata, "deletionTimestamp");
        carry(metadata, old_metadata, "deletionGracePeriodSeconds");
    } else {
        metadata.remove("deletionTimestamp");
        metadata.remove("deletionGracePeriodSeconds");
    }
    if changed {
        metadata.insert("generation".to_owned(), Value::from(generation(old) + 1));
    }
    Ok(())
}

fn carry(metadata: &mut Map<String, Value>, old: Option<&Value>, field: &str) {
    match old.and_then(|o| o.get(field)) {
        Some(value) => metadata.insert(field.to_owned(), value.clone()),
        None => metadata.remove(field),
    };
}

fn check_identity(object: &Value, old: &Value, cx: &UpdateContext<'_>) -> Result<(), ApiError> {
    let (group, resource) = (cx.resource.group.as_str(), cx.resource.resource.as_str());
    let old_name = name(old);
    if !name(object).is_empty() && name(object) != old_name {
        let why = format!(
            "the name of the object ({}) does not match the name on the URL ({old_name})",
            name(object)
        );
        return Err(ApiError::bad_request(why));
    }
    check_namespace(object, Some(namespace(old)).filter(|n| !n.is_empty()))?;
    if !uid(object).is_empty() && uid(object) != uid(old) {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            uid(object),
            uid(old)
        );
        return Err(ApiError::conflict(group, resource, old_name, &why));
    }
    let version = resource_version(object);
    if !version.is_empty() && version != "0" && version != resource_version(old) {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        return Err(ApiError::conflict(group, resource, old_name, why));
    }
    Ok(())
}

/// Whether anything but metadata and status differs.
fn content_changed(object: &Value, old: &Value) -> bool {
    let empty = Map::new();
    let (a, b) = (object.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let counts = |k: &&String| !matches!(k.as_str(), "metadata" | "status" | "apiVersion" | "kind");
    a.keys().filter(counts).any(|k| a.get(k) != b.get(k))
        || b.keys().filter(counts).any(|k| !a.contains_key(k))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn create(mut object: Value, namespace: Option<&str>) -> Result<Value, ApiError> {
        let entropy = Entropy::from_seed(1);
        let cx = CreateContext { namespace, now: Timestamp::UNIX_EPOCH, entropy: &entropy, generation: true };
        prepare_create(&mut object, &cx).map(|()| object)
    }

    #[test]
    fn a_new_object_gets_its_system_fields() {
        let sent = json!({"metadata": {"generateName": "a".repeat(70), "uid": "mine", "selfLink": "x", "generation": 9,
            "deletionTimestamp": "2020-01-01T00:00:00Z", "creationTimestamp": null}});
        let object = create(sent, Some("n")).unwrap();
        let m = &object["metadata"];
        assert_eq!(m["name"].as_str().unwrap().len(), 63);
        assert_eq!((m["namespace"].as_str(), m["generation"].as_i64()), (Some("n"), Some(1)));
        assert_eq!(m["creationTimestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(m["uid"].as_str().unwrap().len(), 36);
        assert!(m.get("deletionTimestamp").is_none() && m.get("selfLink").is_none());
    }

    #[test]
    fn a_bad_create_is_refused() {
        let check = |object: Value, namespace, code: u16| {
            assert_eq!(create(object, namespace).unwrap_err().code(), code);
        };
        check(json!([]), None, 400);
        check(json!({"metadata": 3}), None, 400);
        check(json!({"metadata": {"namespace": "a"}}), Some("b"), 400);
        check(json!({"metadata": {"resourceVersion": "5"}}), None, 500);
    }

    fn update(mut object: Value, old: &Value) -> Result<Value, ApiError> {
        let resource = GroupVersionResource::new("apps", "v1", "deployments");
        prepare_update(&mut object, old, &UpdateContext { resource: &resource, generation: true })
            .map(|()| object)
    }

    #[test]
    fn an_update_keeps_what_no_client_may_change() {
        let old = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u", "generation": 3, "resourceVersion": "7",
            "creationTimestamp": "2020-01-01T00:00:00Z"}, "spec": {"x": 1}, "status": {"y": 1}});
        let same =
            update(json!({"metadata": {"name": "a", "generation": 99}, "spec": {"x": 1}}), &old).unwrap();
        assert_eq!(same["metadata"], old["metadata"]);
        let changed =
            update(json!({"metadata": {"deletionTimestamp": "x"}, "spec": {"x": 2}}), &old).unwrap();
        assert_eq!(changed["metadata"]["generation"], 4);
        assert!(changed["metadata"].get("deletionTimestamp").is_none());
        let check = |metadata: Value, code: u16, part: &str| {
            let e = update(json!({"metadata": metadata}), &old).unwrap_err();
            assert_eq!(e.code(), code);
            assert!(e.message().contains(part), "{e}");
        };
        check(json!({"name": "b"}), 400, "does not match the name on the URL");
        check(json!({"namespace": "m"}), 400, "does not match the namespace");
        check(json!({"uid": "v"}), 409, "Precondition failed: UID");
        check(json!({"resourceVersion": "6"}), 409, "the object has been modified");
    }
}
