//! The reviews: resources that are asked and not stored (`kubectl auth can-i`, `kubectl auth whoami`, token reviews).

use super::authenticator::Authenticator;
use super::authorizer::{Attributes, Authorizer, Decision};
use super::tokens::ServiceAccountTokens;
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, ResourceAttributes};
use kubewright_core::{
    ApiError, ApiRequest, ApiResponse, ContentType, FieldError, FieldPath, RequestBody, ResponseBody, Target,
    UserInfo, Verb,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Which review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewKind {
    /// `tokenreviews`: whose token this is.
    Token,
    /// `selfsubjectreviews`: who asks.
    SelfSubject,
    /// `subjectaccessreviews`: whether someone may do something.
    SubjectAccess,
    /// `localsubjectaccessreviews`: the same, within a namespace.
    LocalSubjectAccess,
    /// `selfsubjectaccessreviews`: whether the asker may do something.
    SelfSubjectAccess,
    /// `selfsubjectrulesreviews`: all that the asker may do in a namespace.
    SelfSubjectRules,
}

impl ReviewKind {
    /// Every review.
    pub const ALL: [ReviewKind; 6] = [
        ReviewKind::Token,
        ReviewKind::SelfSubject,
        ReviewKind::SubjectAccess,
        ReviewKind::LocalSubjectAccess,
        ReviewKind::SelfSubjectAccess,
        ReviewKind::SelfSubjectRules,
    ];

    /// Its API group.
    pub fn group(self) -> &'static str {
        match self {
            ReviewKind::Token | ReviewKind::SelfSubject => "authentication.k8s.io",
            _ => "authorization.k8s.io",
        }
    }

    /// Its kind.
    pub fn kind(self) -> &'static str {
        match self {
            ReviewKind::Token => "TokenReview",
            ReviewKind::SelfSubject => "SelfSubjectReview",
            ReviewKind::SubjectAccess => "SubjectAccessReview",
            ReviewKind::LocalSubjectAccess => "LocalSubjectAccessReview",
            ReviewKind::SelfSubjectAccess => "SelfSubjectAccessReview",
            ReviewKind::SelfSubjectRules => "SelfSubjectRulesReview",
        }
    }

    /// Its plural.
    pub fn plural(self) -> &'static str {
        match self {
            ReviewKind::Token => "tokenreviews",
            ReviewKind::SelfSubject => "selfsubjectreviews",
            ReviewKind::SubjectAccess => "subjectaccessreviews",
            ReviewKind::LocalSubjectAccess => "localsubjectaccessreviews",
            ReviewKind::SelfSubjectAccess => "selfsubjectaccessreviews",
            ReviewKind::SelfSubjectRules => "selfsubjectrulesreviews",
        }
    }
}

/// Answers one kind of review.
#[derive(Clone)]
pub struct Review {
    kind: ReviewKind,
    authorizer: Arc<dyn Authorizer>,
    tokens: Option<Arc<ServiceAccountTokens>>,
    authenticators: Vec<Arc<dyn Authenticator>>,
}

impl fmt::Debug for Review {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Review({})", self.kind.plural())
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AccessSpec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<NonResourceAttributes>,
    user: Option<String>,
    groups: Option<Vec<String>>,
    uid: Option<String>,
    extra: Option<BTreeMap<String, Vec<String>>>,
}

impl Review {
    /// All the reviews: decisions by `authorizer`, tokens checked by `tokens` and then by the authenticators.
    pub fn all(
        authorizer: &Arc<dyn Authorizer>,
        tokens: Option<&Arc<ServiceAccountTokens>>,
        authenticators: &[Arc<dyn Authenticator>],
    ) -> Vec<Review> {
        let review = |kind| Review {
            kind,
            authorizer: authorizer.clone(),
            tokens: tokens.cloned(),
            authenticators: authenticators.to_vec(),
        };
        ReviewKind::ALL.map(review).into()
    }

    /// Which review it is.
    pub fn kind(&self) -> ReviewKind {
        self.kind
    }

    /// Answers a create of this review.
    ///
    /// # Errors
    /// 400 for a body that is no review, 405 for another verb, 422 for a question that makes no sense.
    pub async fn answer(&self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        if request.verb != Verb::Create {
            let why = "the server does not allow this method on the requested resource";
            return Err(ApiError::new(kubewright_core::Reason::MethodNotAllowed, why));
        }
        let mut object = self.object(&request.body)?;
        let status = match self.kind {
            ReviewKind::Token => self.token_status(&object["spec"]).await?,
            ReviewKind::SelfSubject => json!({"userInfo": request.user}),
            ReviewKind::SelfSubjectRules => self.rules_status(&request.user, &object["spec"])?,
            _ => self.access_status(&request, &object["spec"]).await?,
        };
        object["status"] = status;
        Ok(ApiResponse::new(201, ResponseBody::Value(object)))
    }

    /// The review as it was sent, under its full name.
    fn object(&self, body: &RequestBody) -> Result<Value, ApiError> {
        let bad = |e: &dyn fmt::Display| ApiError::bad_request(format!("the review is not readable: {e}"));
        let mut object = match body {
            RequestBody::Empty => json!({}),
            RequestBody::Value { value, .. } => value.clone(),
            RequestBody::Bytes { content_type: ContentType::Yaml, bytes } => {
                let text = std::str::from_utf8(bytes).map_err(|e| bad(&e))?;
                serde_saphyr::from_str(text).map_err(|e| bad(&e))?
            }
            RequestBody::Bytes { bytes, .. } => serde_json::from_slice(bytes).map_err(|e| bad(&e))?,
        };
        let Some(map) = object.as_object_mut() else { return Err(bad(&"it is no object")) };
        let (version, kind) = (format!("{}/v1", self.kind.group()), self.kind.kind());
        let differs = |field: &str, want: &str| {
            map.get(field).and_then(Value::as_str).is_some_and(|v| !v.is_empty() && v != want)
        };
        if differs("kind", kind) || differs("apiVersion", &version) {
            let found = format!("{:?} of {:?}", map.get("kind"), map.get("apiVersion"));
            return Err(ApiError::bad_request(format!("the object is {found}, not {kind} of {version}")));
        }
        map.insert("apiVersion".to_owned(), json!(version));
        map.insert("kind".to_owned(), json!(kind));
        map.entry("metadata").or_insert_with(|| json!({}));
        map.entry("spec").or_insert_with(|| json!({}));
        Ok(object)
    }

    fn invalid(&self, errors: &[FieldError]) -> ApiError {
        ApiError::invalid(self.kind.group(), self.kind.kind(), "", errors)
    }

    fn spec<T: serde::de::DeserializeOwned>(&self, spec: &Value) -> Result<T, ApiError> {
        T::deserialize_value(spec).map_err(|e| {
            ApiError::bad_request(format!("{} in version \"v1\" cannot be handled: {e}", self.kind.kind()))
        })
    }

    async fn access_status(&self, request: &ApiRequest, spec: &Value) -> Result<Value, ApiError> {
        let spec: AccessSpec = self.spec(spec)?;
        self.check_access_spec(request, &spec)?;
        let user = if self.kind == ReviewKind::SelfSubjectAccess {
            request.user.clone()
        } else {
            Arc::new(UserInfo {
                username: spec.user.clone(),
                groups: spec.groups.clone(),
                uid: spec.uid.clone(),
                extra: spec.extra.clone(),
            })
        };
        let attributes = attributes(&user, &spec);
        Ok(match self.authorizer.authorize(&attributes).await {
            Decision::Allow => match self.authorizer.explain(&attributes) {
                reason if reason.is_empty() => json!({"allowed": true}),
                reason => json!({"allowed": true, "reason": reason}),
            },
            Decision::Deny(reason) => json!({"allowed": false, "denied": true, "reason": reason}),
            Decision::NoOpinion(reason) if reason.is_empty() => json!({"allowed": false}),
            Decision::NoOpinion(reason) => json!({"allowed": false, "reason": reason}),
        })
    }

    fn check_access_spec(&self, request: &ApiRequest, spec: &AccessSpec) -> Result<(), ApiError> {
        let mut errors = Vec::new();
        let root = FieldPath::new("spec");
        match (&spec.resource_attributes, &spec.non_resource_attributes) {
            (Some(_), Some(_)) => errors.push(FieldError::invalid(
                &root.child("nonResourceAttributes"),
                Value::Null,
                "cannot be specified in combination with resourceAttributes",
            )),
            (None, None) => errors.push(FieldError::invalid(
                &root.child("resourceAttributes"),
                Value::Null,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )),
            _ => {}
        }
        let someone = spec.user.as_ref().is_some_and(|u| !u.is_empty())
            || spec.groups.as_ref().is_some_and(|g| !g.is_empty());
        if self.kind != ReviewKind::SelfSubjectAccess && !someone {
            let why = "at least one of user or group must be specified";
            errors.push(FieldError::invalid(&root.child("user"), "", why));
        }
        if let (ReviewKind::LocalSubjectAccess, Target::Resource { namespace, .. }) =
            (self.kind, &request.target)
        {
            let asked = spec.resource_attributes.as_ref().and_then(|r| r.namespace.as_deref());
            if asked != namespace.as_deref() {
                let field = root.child("resourceAttributes").child("namespace");
                errors.push(FieldError::invalid(
                    &field,
                    asked.unwrap_or(""),
                    "must match metadata.namespace",
                ));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(self.invalid(&errors)) }
    }

    fn rules_status(&self, user: &UserInfo, spec: &Value) -> Result<Value, ApiError> {
        let namespace = spec["namespace"].as_str().unwrap_or("");
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let list = self.authorizer.rules(user, namespace);
        let (mut resources, mut paths) = (Vec::new(), Vec::new());
        for rule in list.rules {
            if rule.non_resource_urls.as_ref().is_some_and(|u| !u.is_empty()) {
                paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
            } else {
                resources.push(json!(rule));
            }
        }
        let mut status = json!({
            "resourceRules": resources, "nonResourceRules": paths, "incomplete": list.incomplete,
        });
        if !list.errors.is_empty() {
            status["evaluationError"] = json!(list.errors.join(", "));
        }
        Ok(status)
    }

    async fn token_status(&self, spec: &Value) -> Result<Value, ApiError> {
        let token = spec["token"].as_str().unwrap_or("");
        if token.is_empty() {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences: Vec<String> = spec["audiences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect();
        let mut error = None;
        if let Some(tokens) = self.tokens.as_ref().filter(|t| t.issued(token)) {
            match tokens.validate(token, &audiences) {
                Ok((user, common)) => {
                    return Ok(json!({"authenticated": true, "user": user, "audiences": common}));
                }
                Err(e) => error = Some(e.message().to_owned()),
            }
        } else if let Some(user) = self.ask_authenticators(token).await {
            return Ok(json!({"authenticated": true, "user": user}));
        }
        Ok(match error {
            Some(error) => json!({"authenticated": false, "user": {}, "error": error}),
            None => json!({"authenticated": false, "user": {}}),
        })
    }

    async fn ask_authenticators(&self, token: &str) -> Option<UserInfo> {
        let header = http::HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        let mut request = http::Request::new(());
        request.headers_mut().insert(http::header::AUTHORIZATION, header);
        let (parts, ()) = request.into_parts();
        for authenticator in &self.authenticators {
            if let Ok(Some(user)) = authenticator.authenticate(&parts).await {
                return Some(user);
            }
        }
        None
    }
}

/// Deserializes out of a borrowed value.
trait FromValue: Sized {
    fn deserialize_value(value: &Value) -> Result<Self, serde_json::Error>;
}

impl<T: serde::de::DeserializeOwned> FromValue for T {
    fn deserialize_value(value: &Value) -> Result<Self, serde_json::Error> {
        T::deserialize(value)
    }
}

fn attributes<'a>(user: &'a UserInfo, spec: &'a AccessSpec) -> Attributes<'a> {
    fn text(value: &Option<String>) -> &str {
        value.as_deref().unwrap_or("")
    }
    let user = Cow::Borrowed(user);
    match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(r), _) => Attributes {
            user,
            verb: text(&r.verb),
            group: text(&r.group),
            version: text(&r.version),
            resource: text(&r.resource),
            subresource: text(&r.subresource),
            namespace: text(&r.namespace),
            name: text(&r.name),
            field_selector: r.field_selector.as_ref().and_then(|f| f.raw_selector.as_deref()),
            path: None,
        },
        (None, path) => {
            let (verb, path) = path.as_ref().map_or(("", ""), |p| (text(&p.verb), text(&p.path)));
            Attributes { user, verb, path: Some(path), ..Attributes::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::authenticator::{StaticTokens, authenticated};
    use super::*;
    use futures::future::BoxFuture;
    use kubewright_core::GroupVersionResource;

    struct OnlyPods;

    impl Authorizer for OnlyPods {
        fn authorize<'a>(&'a self, a: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
            let yes = a.resource == "pods" || a.path == Some("/healthz");
            let decision = if yes { Decision::Allow } else { Decision::NoOpinion("only pods".to_owned()) };
            Box::pin(std::future::ready(decision))
        }
    }

    async fn ask(kind: ReviewKind, spec: Value) -> Result<Value, ApiError> {
        let tokens: Arc<dyn Authenticator> =
            Arc::new(StaticTokens::new().with("secret", authenticated("joe", &[])));
        let authorizer: Arc<dyn Authorizer> = Arc::new(OnlyPods);
        let reviews = Review::all(&authorizer, None, &[tokens]);
        let review = reviews.iter().find(|r| r.kind() == kind).unwrap();
        let resource = GroupVersionResource::new(kind.group(), "v1", kind.plural());
        let mut request = ApiRequest::resource(Verb::Create, resource, Some("a"), None)
            .body(ContentType::Json, json!({"spec": spec}));
        request.user = authenticated("jane", &["dev"]).into();
        match review.answer(request).await?.body {
            ResponseBody::Value(mut value) => Ok(value["status"].take()),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn reviews_are_answered() {
        let check = async |kind: ReviewKind, spec: Value, field: &str, want: Value| {
            let status = ask(kind, spec).await.unwrap();
            assert_eq!(status.pointer(field), Some(&want), "{kind:?}: {status}");
        };
        let pods = json!({"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "a"}});
        let nodes = json!({"resourceAttributes": {"verb": "get", "resource": "nodes"}});
        check(ReviewKind::SelfSubjectAccess, pods.clone(), "/allowed", json!(true)).await;
        check(ReviewKind::SelfSubjectAccess, nodes, "/reason", json!("only pods")).await;
        let path = json!({"user": "x", "nonResourceAttributes": {"verb": "get", "path": "/healthz"}});
        check(ReviewKind::SubjectAccess, path, "/allowed", json!(true)).await;
        let mut local = pods.clone();
        local["user"] = json!("x");
        check(ReviewKind::LocalSubjectAccess, local, "/allowed", json!(true)).await;
        check(ReviewKind::SelfSubject, json!({}), "/userInfo/username", json!("jane")).await;
        check(ReviewKind::SelfSubjectRules, json!({"namespace": "a"}), "/incomplete", json!(true)).await;
        check(ReviewKind::Token, json!({"token": "secret"}), "/user/username", json!("joe")).await;
        check(ReviewKind::Token, json!({"token": "other"}), "/authenticated", json!(false)).await;
    }

    #[tokio::test]
    async fn senseless_questions_are_refused() {
        let check = async |kind: ReviewKind, spec: Value, code: u16| {
            assert_eq!(ask(kind, spec).await.unwrap_err().code(), code, "{kind:?}");
        };
        check(ReviewKind::SelfSubjectAccess, json!({}), 422).await;
        check(ReviewKind::SubjectAccess, json!({"resourceAttributes": {}}), 422).await;
        check(ReviewKind::SelfSubjectAccess, json!({"resourceAttributes": 5}), 400).await;
        check(
            ReviewKind::LocalSubjectAccess,
            json!({"user": "x", "resourceAttributes": {"namespace": "b"}}),
            422,
        )
        .await;
        check(ReviewKind::SelfSubjectRules, json!({}), 400).await;
        check(ReviewKind::Token, json!({}), 400).await;
    }
}
