//! Field paths and validation errors in upstream's words (`k8s.io/apimachinery/pkg/util/validation/field`).

use crate::{ApiError, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;
use std::fmt;

/// Where a field stands in an object: `spec.containers[0].env[2].name`, `metadata.labels[app]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(String);

impl FieldPath {
    /// The top of the object.
    pub fn root() -> Self {
        Self::default()
    }

    /// A path of dotted names.
    pub fn new(path: &str) -> Self {
        FieldPath(path.to_owned())
    }

    /// A named field of this one (dotted names for several steps).
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { FieldPath(format!("{}.{name}", self.0)) }
    }

    /// An item of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        FieldPath(format!("{}[{index}]", self.0))
    }

    /// An entry of this map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        FieldPath(format!("{}[{key}]", self.0))
    }

    /// The path in text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Upstream prints the root as `<nil>`.
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What kind of rule a field breaks, under upstream's `CauseType` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A value is missing.
    Required,
    /// A value is malformed or out of bounds.
    Invalid,
    /// A value is none of those allowed.
    NotSupported,
    /// A value repeats another that must be unique.
    Duplicate,
    /// A value may not be set here, or may not change.
    Forbidden,
    /// A text has too many bytes.
    TooLong,
    /// A list has too many items.
    TooMany,
    /// A value names something that does not exist.
    NotFound,
    /// A value has another JSON type than its schema says.
    TypeInvalid,
    /// The rule itself failed.
    Internal,
}

impl FieldErrorKind {
    /// The `reason` of the status cause.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
            FieldErrorKind::Internal => "InternalError",
        }
    }
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Which kind of rule.
    pub kind: FieldErrorKind,
    /// Where.
    pub field: FieldPath,
    /// The whole sentence after the field, `Invalid value: "x": must be ...`.
    pub message: String,
}

/// All the rules that an object breaks, in the order found.
pub type ErrorList = Vec<FieldError>;

impl FieldError {
    fn with(kind: FieldErrorKind, field: &FieldPath, head: String, detail: &str) -> Self {
        let message = if detail.is_empty() { head } else { format!("{head}: {detail}") };
        FieldError { kind, field: field.clone(), message }
    }

    /// `Required value: <detail>`.
    pub fn required(field: &FieldPath, detail: &str) -> Self {
        Self::with(FieldErrorKind::Required, field, "Required value".to_owned(), detail)
    }

    /// `Invalid value: <value>: <detail>`.
    pub fn invalid(field: &FieldPath, value: impl Into<Value>, detail: &str) -> Self {
        let head = format!("Invalid value: {}", shown(&value.into()));
        Self::with(FieldErrorKind::Invalid, field, head, detail)
    }

    /// `Invalid value: "<type>": <detail>`, as upstream says of a value of the wrong JSON type.
    pub fn type_invalid(field: &FieldPath, found: &str, detail: &str) -> Self {
        let head = format!("Invalid value: {found:?}");
        Self::with(FieldErrorKind::TypeInvalid, field, head, detail)
    }

    /// `Unsupported value: <value>: supported values: "a", "b"`.
    pub fn not_supported(field: &FieldPath, value: impl Into<Value>, supported: &[&str]) -> Self {
        let mut names: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        names.sort();
        let head = format!("Unsupported value: {}", shown(&value.into()));
        let detail =
            if names.is_empty() { String::new() } else { format!("supported values: {}", names.join(", ")) };
        Self::with(FieldErrorKind::NotSupported, field, head, &detail)
    }

    /// `Duplicate value: <value>`.
    pub fn duplicate(field: &FieldPath, value: impl Into<Value>) -> Self {
        let head = format!("Duplicate value: {}", shown(&value.into()));
        Self::with(FieldErrorKind::Duplicate, field, head, "")
    }

    /// `Forbidden: <detail>`.
    pub fn forbidden(field: &FieldPath, detail: &str) -> Self {
        Self::with(FieldErrorKind::Forbidden, field, "Forbidden".to_owned(), detail)
    }

    /// `Too long: may not be more than <max> bytes`.
    pub fn too_long(field: &FieldPath, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self::with(FieldErrorKind::TooLong, field, "Too long".to_owned(), &detail)
    }

    /// `Too many: <actual>: must have at most <max> items`.
    pub fn too_many(field: &FieldPath, actual: usize, max: usize) -> Self {
        let detail = format!("must have at most {max} item{}", if max == 1 { "" } else { "s" });
        Self::with(FieldErrorKind::TooMany, field, format!("Too many: {actual}"), &detail)
    }

    /// `Not found: <value>`.
    pub fn not_found(field: &FieldPath, value: impl Into<Value>) -> Self {
        let head = format!("Not found: {}", shown(&value.into()));
        Self::with(FieldErrorKind::NotFound, field, head, "")
    }

    /// The error as a cause of a `Status`.
    pub fn cause(&self) -> StatusCause {
        StatusCause {
            reason: Some(self.kind.as_str().to_owned()),
            message: Some(self.message.clone()),
            field: Some(self.field.to_string()),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl ApiError {
    /// 422 for an object that breaks rules: `Pod "x" is invalid: <field>: <message>`, several ones in brackets.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut texts: Vec<String> = Vec::with_capacity(errors.len());
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let tail = match texts.as_slice() {
            [] => String::new(),
            [one] => format!(": {one}"),
            many => format!(": [{}]", many.join(", ")),
        };
        ApiError::new(Reason::Invalid, format!("{qualified} {name:?} is invalid{tail}"))
            .for_object(group, kind, name)
            .with_causes(errors.iter().map(FieldError::cause).collect())
    }
}

/// A value as upstream's messages show it: texts quoted, the rest as compact JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_upstreams_shape() {
        let containers = FieldPath::new("spec").child("containers");
        let name = containers.index(0).child("name");
        let errors = [
            FieldError::required(&containers, ""),
            FieldError::invalid(&name, "A", "must be lower case"),
            FieldError::not_supported(&FieldPath::new("spec.restartPolicy"), "X", &["OnFailure", "Always"]),
        ];
        let e = ApiError::invalid("", "Pod", "p", &errors);
        assert_eq!(
            e.message(),
            "Pod \"p\" is invalid: [spec.containers: Required value, \
             spec.containers[0].name: Invalid value: \"A\": must be lower case, \
             spec.restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"OnFailure\"]"
        );
        assert_eq!(e.code(), 422);
        let causes = e.status().details.as_ref().unwrap().causes.as_ref().unwrap();
        assert_eq!(causes[1].field.as_deref(), Some("spec.containers[0].name"));
        assert_eq!(causes[1].reason.as_deref(), Some("FieldValueInvalid"));
    }
}
