//! The ConversionReview: what a webhook is sent, and what it may answer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V1Beta1,
}

impl Version {
    fn api_version(self) -> &'static str {
        match self {
            Version::V1 => "apiextensions.k8s.io/v1",
            Version::V1Beta1 => "apiextensions.k8s.io/v1beta1",
        }
    }
}

/// The first version that both sides know.
///
/// # Errors
/// Where there is none.
pub(super) fn version(known: &[String]) -> Result<Version, String> {
    let found = known.iter().find_map(|v| match v.as_str() {
        "v1" => Some(Version::V1),
        "v1beta1" => Some(Version::V1Beta1),
        _ => None,
    });
    found.ok_or_else(|| "no supported conversion review versions".to_owned())
}

/// How messages name the kind of an object: `example.com/v1, Kind=Widget`.
pub(super) fn kind_of(object: &Value) -> String {
    let text = |field: &str| object[field].as_str().unwrap_or("");
    format!("{}, Kind={}", text("apiVersion"), text("kind"))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    kind: &'static str,
    api_version: &'static str,
    request: Request<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    uid: &'a str,
    #[serde(rename = "desiredAPIVersion")]
    desired: &'a str,
    objects: &'a [&'a Value],
}

/// The review to send.
///
/// # Errors
/// Where it can't be written.
pub(super) fn request(
    version: Version,
    uid: &str,
    desired: &str,
    objects: &[&Value],
) -> Result<Bytes, serde_json::Error> {
    let request = Request { uid, desired, objects };
    let review = Review { kind: "ConversionReview", api_version: version.api_version(), request };
    serde_json::to_vec(&review).map(Bytes::from)
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    kind: String,
    api_version: String,
    response: Option<Response>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    uid: String,
    converted_objects: Option<Vec<Value>>,
    result: Outcome,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Outcome {
    status: String,
    message: String,
}

/// The objects of an answer.
///
/// # Errors
/// Says in upstream's words why there are none, or what the webhook said.
pub(super) fn converted(version: Version, uid: &str, body: &[u8]) -> Result<Vec<Value>, String> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|e| format!("unable to decode the answer: {e}"))?;
    if version == Version::V1
        && (answer.api_version != version.api_version() || answer.kind != "ConversionReview")
    {
        return Err(format!(
            "expected webhook response of {}, Kind=ConversionReview, got {}, Kind={}",
            version.api_version(),
            answer.api_version,
            answer.kind
        ));
    }
    let response = answer.response.ok_or("no response provided")?;
    if version == Version::V1 && response.uid != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
    }
    match (response.result.status.as_str(), response.result.message) {
        ("Success", _) => Ok(response.converted_objects.unwrap_or_default()),
        (status, message) if message.is_empty() => {
            Err(format!("response.result.status was '{status}', not 'Success'"))
        }
        (_, message) => Err(message),
    }
}

/// The converted objects, with the metadata that no conversion may change put back.
///
/// # Errors
/// Where there are more or fewer than were sent, or one is another object.
pub(super) fn checked(
    from: &str,
    wanted: &str,
    sent: &[&Value],
    converted: Vec<Value>,
) -> Result<Vec<Value>, String> {
    if converted.len() != sent.len() {
        let (got, want) = (converted.len(), sent.len());
        return Err(format!("conversion webhook for {from} returned {got} objects, expected {want}"));
    }
    let mut checked = Vec::with_capacity(converted.len());
    for (i, (before, after)) in sent.iter().zip(converted).enumerate() {
        let one = one(wanted, before, after);
        checked.push(one.map_err(|(what, why)| {
            let place = if sent.len() == 1 { String::new() } else { format!(" at index {i}") };
            format!("conversion webhook for {from} returned invalid {what}{place}: {why}")
        })?);
    }
    Ok(checked)
}

fn one(wanted: &str, before: &Value, mut after: Value) -> Result<Value, (&'static str, String)> {
    let text = |object: &Value, field: &str| object[field].as_str().unwrap_or("").to_owned();
    let wrong = |why: String| Err(("converted object", why));
    if text(&after, "apiVersion") != wanted {
        let got = text(&after, "apiVersion");
        return wrong(format!("invalid groupVersion (expected {wanted}, received {got})"));
    }
    if text(&after, "kind") != text(before, "kind") {
        let (want, got) = (text(before, "kind"), text(&after, "kind"));
        return wrong(format!("invalid kind (expected {want}, received {got})"));
    }
    for (field, named) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (want, got) = (text(&before["metadata"], field), text(&after["metadata"], field));
        if want != got {
            return wrong(format!("must have the same {named}: {want} != {got}"));
        }
    }
    restore(before, &mut after).map_err(|why| ("metadata in object", why))?;
    Ok(after)
}

/// Only labels and annotations may come out of a conversion; everything else of the metadata is as before.
fn restore(before: &Value, after: &mut Value) -> Result<(), String> {
    let mut metadata = before["metadata"].as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        let given = after["metadata"].get(field).filter(|v| !v.is_null()).cloned();
        if let Some(given) = &given {
            let texts: Option<&Map<String, Value>> = given.as_object();
            if texts.is_none_or(|t| t.values().any(|v| !v.is_string())) {
                return Err(format!("metadata.{field} is no map of texts"));
            }
        }
        match given {
            Some(given) => metadata.insert(field.to_owned(), given),
            None => metadata.remove(field),
        };
    }
    after["metadata"] = Value::Object(metadata);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(version: &str, metadata: Value) -> Value {
        json!({"apiVersion": format!("example.com/{version}"), "kind": "Widget", "metadata": metadata})
    }

    #[test]
    fn only_labels_and_annotations_may_change() {
        let before = object("v1", json!({"name": "a", "uid": "u", "generation": 3, "labels": {"a": "b"}}));
        let check = |after: Value, want: Result<Value, &str>| {
            let got = checked("K", "example.com/v2", &[&before], vec![after]);
            let got = got.map(|mut all| all.pop().unwrap()["metadata"].take());
            assert_eq!(got, want.map_err(str::to_owned));
        };
        check(
            object("v2", json!({"name": "a", "uid": "u", "generation": 9, "annotations": {"x": "y"}})),
            Ok(json!({"name": "a", "uid": "u", "generation": 3, "annotations": {"x": "y"}})),
        );
        let prefix = "conversion webhook for K returned invalid";
        let name = format!("{prefix} converted object: must have the same name: a != b");
        check(object("v2", json!({"name": "b", "uid": "u"})), Err(&name));
        let version = format!(
            "{prefix} converted object: invalid groupVersion (expected example.com/v2, received example.com/v3)"
        );
        check(object("v3", json!({"name": "a", "uid": "u"})), Err(&version));
        let labels = format!("{prefix} metadata in object: metadata.labels is no map of texts");
        check(object("v2", json!({"name": "a", "uid": "u", "labels": {"a": 1}})), Err(&labels));
        let many = checked("K", "example.com/v2", &[&before], Vec::new());
        assert_eq!(many.unwrap_err(), "conversion webhook for K returned 0 objects, expected 1");
    }

    #[test]
    fn answers_are_held_to_the_protocol() {
        let check = |version: Version, answer: Value, want: Result<usize, &str>| {
            let got = converted(version, "u", answer.to_string().as_bytes());
            assert_eq!(got.map(|o| o.len()), want.map_err(str::to_owned), "{answer}");
        };
        let v1 = |response: Value| json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response});
        let success = json!({"status": "Success"});
        check(Version::V1, v1(json!({"uid": "u", "result": success, "convertedObjects": [{}]})), Ok(1));
        check(
            Version::V1,
            v1(json!({"uid": "v", "result": success})),
            Err("expected response.uid=\"u\", got \"v\""),
        );
        check(Version::V1Beta1, json!({"response": {"result": success}}), Ok(0));
        check(Version::V1, v1(Value::Null), Err("no response provided"));
        check(
            Version::V1,
            v1(json!({"uid": "u", "result": {"status": "Failure", "message": "no such version"}})),
            Err("no such version"),
        );
        check(Version::V1, v1(json!({"uid": "u"})), Err("response.result.status was '', not 'Success'"));
        assert!(version(&["v2".to_owned()]).is_err());
    }
}
