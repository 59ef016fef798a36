//! The one error of the API: upstream's `Status` with its reason, code, details and causes.
//!
//! Every layer between a client and the store speaks this type, so that a caller sees the same words in process as over HTTP.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use std::fmt;

/// Why a request failed, under upstream's `StatusReason` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// 400: the request makes no sense.
    BadRequest,
    /// 401: who asks is not known.
    Unauthorized,
    /// 403: who asks may not.
    Forbidden,
    /// 404: the object or the resource does not exist.
    NotFound,
    /// 405: the resource has no such verb.
    MethodNotAllowed,
    /// 406: no representation that the client accepts.
    NotAcceptable,
    /// 409: an object of this name exists.
    AlreadyExists,
    /// 409: the object changed since it was read.
    Conflict,
    /// 410: the object is gone for good.
    Gone,
    /// 410: the resource version or continue token is too old.
    Expired,
    /// 413: the body is too large.
    RequestEntityTooLarge,
    /// 415: a content type that the server does not read.
    UnsupportedMediaType,
    /// 422: the object breaks a rule; the causes say which.
    Invalid,
    /// 429: too many requests, retry later.
    TooManyRequests,
    /// 500: the server failed.
    InternalError,
    /// 501: the server lacks this part.
    NotImplemented,
    /// 503: the server or a backend is not reachable now.
    ServiceUnavailable,
    /// 504: the operation took too long; it may have happened.
    Timeout,
    /// 500: the server cannot finish it now; retry after a while.
    ServerTimeout,
    /// A reason that this library does not name; the text stands in [`ApiError::reason_text`].
    Unknown,
}

const REASONS: &[(Reason, &str, u16)] = &[
    (Reason::BadRequest, "BadRequest", 400),
    (Reason::Unauthorized, "Unauthorized", 401),
    (Reason::Forbidden, "Forbidden", 403),
    (Reason::NotFound, "NotFound", 404),
    (Reason::MethodNotAllowed, "MethodNotAllowed", 405),
    (Reason::NotAcceptable, "NotAcceptable", 406),
    (Reason::AlreadyExists, "AlreadyExists", 409),
    (Reason::Conflict, "Conflict", 409),
    (Reason::Gone, "Gone", 410),
    (Reason::Expired, "Expired", 410),
    (Reason::RequestEntityTooLarge, "RequestEntityTooLarge", 413),
    (Reason::UnsupportedMediaType, "UnsupportedMediaType", 415),
    (Reason::Invalid, "Invalid", 422),
    (Reason::TooManyRequests, "TooManyRequests", 429),
    (Reason::InternalError, "InternalError", 500),
    (Reason::NotImplemented, "NotImplemented", 501),
    (Reason::ServiceUnavailable, "ServiceUnavailable", 503),
    (Reason::Timeout, "Timeout", 504),
    (Reason::ServerTimeout, "ServerTimeout", 500),
];

impl Reason {
    /// Upstream's spelling; empty for [`Reason::Unknown`].
    pub fn as_str(self) -> &'static str {
        REASONS.iter().find(|(r, ..)| *r == self).map_or("", |(_, s, _)| s)
    }

    /// The HTTP status code that goes with the reason (500 when unknown).
    pub fn code(self) -> u16 {
        REASONS.iter().find(|(r, ..)| *r == self).map_or(500, |(.., c)| *c)
    }

    /// The reason of this spelling, [`Reason::Unknown`] for any other.
    pub fn parse(text: &str) -> Reason {
        REASONS.iter().find(|(_, s, _)| *s == text).map_or(Reason::Unknown, |(r, ..)| *r)
    }
}

/// A failed request, as upstream's `Status` object of kind `Failure`.
///
/// Boxed, so that a `Result` stays small.
#[derive(Clone, PartialEq)]
pub struct ApiError(Box<Status>);

impl ApiError {
    /// An error with this reason and message, and the reason's own code.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        ApiError(Box::new(Status {
            code: Some(i32::from(reason.code())),
            message: Some(message.into()),
            reason: Some(reason.as_str().to_owned()).filter(|r| !r.is_empty()),
            status: Some("Failure".to_owned()),
            ..Status::default()
        }))
    }

    /// 404 for an object: `pods "x" not found`. `resource` is the plural, `group` empty for the core group.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(group, resource));
        Self::new(Reason::NotFound, message).for_object(group, resource, name)
    }

    /// 404 for a path that names no resource.
    pub fn no_such_path() -> Self {
        Self::new(Reason::NotFound, "the server could not find the requested resource")
            .with_details(StatusDetails::default())
    }

    /// 409 for a name that is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(group, resource));
        Self::new(Reason::AlreadyExists, message).for_object(group, resource, name)
    }

    /// 409 for an object that changed since it was read, or another conflict told by `why`.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource));
        Self::new(Reason::Conflict, message).for_object(group, resource, name)
    }

    /// The conflict of a stale `resourceVersion`.
    pub fn stale(group: &str, resource: &str, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    /// 409 of an apply that would change fields of other managers; a cause is a field path and what it conflicts with.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<(String, String)>) -> Self {
        let cause = |(field, message)| StatusCause {
            reason: Some("FieldManagerConflict".to_owned()),
            field: Some(field),
            message: Some(message),
        };
        Self::new(Reason::Conflict, message).with_causes(causes.into_iter().map(cause).collect())
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 500; the message is `Internal error occurred: <why>`.
    pub fn internal(why: impl fmt::Display) -> Self {
        let mut e = Self::new(Reason::InternalError, format!("Internal error occurred: {why}"));
        e.0.details = Some(StatusDetails {
            causes: Some(vec![StatusCause { message: Some(why.to_string()), ..StatusCause::default() }]),
            ..StatusDetails::default()
        });
        e
    }

    /// 501: a part that this build or plane lacks, named in the message.
    pub fn not_implemented(what: impl fmt::Display) -> Self {
        Self::new(Reason::NotImplemented, format!("not implemented: {what}"))
    }

    /// 410: a resource version or continue token older than the history kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::ServiceUnavailable, message)
    }

    /// 403: `pods "x" is forbidden: <why>`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let q = qualified(group, resource);
        let message = if name.is_empty() {
            format!("{q} is forbidden: {why}")
        } else {
            format!("{q} \"{name}\" is forbidden: {why}")
        };
        Self::new(Reason::Forbidden, message).for_object(group, resource, name)
    }

    /// 429 with the seconds after which a retry may succeed.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        let details =
            StatusDetails { retry_after_seconds: Some(retry_after_seconds), ..StatusDetails::default() };
        Self::new(Reason::TooManyRequests, message).with_details(details)
    }

    /// An error out of a `Status` received from elsewhere; missing parts take the defaults of its reason.
    pub fn from_status(status: Status) -> Self {
        let mut status = status;
        let reason = Reason::parse(status.reason.as_deref().unwrap_or(""));
        status.code.get_or_insert_with(|| i32::from(reason.code()));
        ApiError(Box::new(status))
    }

    /// The same error with these details.
    #[must_use]
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.0.details = Some(details);
        self
    }

    /// The same error, naming the object that it is about in its details.
    #[must_use]
    pub fn for_object(mut self, group: &str, kind_or_resource: &str, name: &str) -> Self {
        let details = self.0.details.get_or_insert_with(StatusDetails::default);
        details.group = Some(group.to_owned()).filter(|g| !g.is_empty());
        details.kind = Some(kind_or_resource.to_owned()).filter(|k| !k.is_empty());
        details.name = Some(name.to_owned()).filter(|n| !n.is_empty());
        self
    }

    /// The same error with further causes.
    #[must_use]
    pub fn with_causes(mut self, causes: Vec<StatusCause>) -> Self {
        self.0.details.get_or_insert_with(StatusDetails::default).causes = Some(causes);
        self
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.0.code.and_then(|c| u16::try_from(c).ok()).unwrap_or(500)
    }

    /// Why, as a value to match on.
    pub fn reason(&self) -> Reason {
        Reason::parse(self.reason_text())
    }

    /// Why, in upstream's spelling; empty when the server gave none.
    pub fn reason_text(&self) -> &str {
        self.0.reason.as_deref().unwrap_or("")
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        self.0.message.as_deref().unwrap_or("")
    }

    /// The `Status` object as it goes on the wire.
    pub fn status(&self) -> &Status {
        &self.0
    }

    /// Whether the same request may succeed later without any change of it.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.reason(),
            Reason::TooManyRequests
                | Reason::ServiceUnavailable
                | Reason::ServerTimeout
                | Reason::Timeout
                | Reason::InternalError
        )
    }

    /// Whether this is a 404.
    pub fn is_not_found(&self) -> bool {
        self.reason() == Reason::NotFound
    }

    /// Whether this is a conflict on the object's version.
    pub fn is_conflict(&self) -> bool {
        self.reason() == Reason::Conflict
    }

    /// Whether the name was taken.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == Reason::AlreadyExists
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiError({} {}: {})", self.code(), self.reason_text(), self.message())
    }
}

impl std::error::Error for ApiError {}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_upstreams_shape() {
        let check = |e: ApiError, code: u16, message: &str| {
            assert_eq!((e.code(), e.message()), (code, message));
        };
        check(ApiError::not_found("", "pods", "a"), 404, "pods \"a\" not found");
        check(ApiError::not_found("apps", "deployments", "a"), 404, "deployments.apps \"a\" not found");
        check(ApiError::forbidden("", "pods", "", "no"), 403, "pods is forbidden: no");
        check(ApiError::expired("old"), 410, "old");
    }

    #[test]
    fn every_reason_has_one_spelling() {
        for (reason, text, _) in REASONS {
            assert_eq!(Reason::parse(text), *reason);
        }
        assert_eq!(Reason::parse("Other"), Reason::Unknown);
    }
}
