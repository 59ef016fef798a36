//! The port of authorization.

use futures::future::BoxFuture;
use kubewright_core::{ApiError, ApiRequest, Reason, Target, UserInfo, Verb};
use std::borrow::Cow;

/// What someone wants to do, as authorization sees it. Every text is empty where it does not apply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes<'a> {
    /// Who.
    pub user: Cow<'a, UserInfo>,
    /// `get`, `list`, ..., or the lower-case method for a path.
    pub verb: &'a str,
    /// API group; empty for core.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural of the resource.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: &'a str,
    /// Namespace; empty for cluster scope and for all namespaces.
    pub namespace: &'a str,
    /// Name of the object.
    pub name: &'a str,
    /// The field selector of a list, watch or deletion of many.
    pub field_selector: Option<&'a str>,
    /// Set instead of all the above but user and verb, for a request that is about no resource.
    pub path: Option<&'a str>,
}

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// No, whatever others say; with the reason.
    Deny(String),
    /// It is for others to say; with the reason why this one does not allow it.
    NoOpinion(String),
}

/// Decides what users may do.
pub trait Authorizer: Send + Sync + 'static {
    /// Decides on one action.
    ///
    /// # Cancel safety
    /// Nothing happens but reading.
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision>;

    /// Why an action that this authorizer allows is allowed, for reviews and the audit log; empty where it does not tell.
    fn explain(&self, attributes: &Attributes<'_>) -> String {
        let _ = attributes;
        String::new()
    }

    /// What a user may do in a namespace, as far as this authorizer can list it; the rules are those of RBAC.
    fn rules(&self, user: &UserInfo, namespace: &str) -> RuleList {
        let _ = (user, namespace);
        RuleList { incomplete: true, ..RuleList::default() }
    }
}

/// What an [`Authorizer`] can list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleList {
    /// The rules, of resources and of paths.
    pub rules: Vec<k8s_openapi::api::rbac::v1::PolicyRule>,
    /// Whether the user may do more than the rules say.
    pub incomplete: bool,
    /// What went wrong on the way.
    pub errors: Vec<String>,
}

/// Allows everything. Only for a plane that one trusted program embeds.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize<'a>(&'a self, _: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(Decision::Allow))
    }
}

impl<'a> Attributes<'a> {
    /// What a request wants to do.
    pub fn of(request: &'a ApiRequest) -> Self {
        let user = Cow::Borrowed(&*request.user);
        match &request.target {
            Target::Path(path) => {
                let verb = match request.verb {
                    Verb::Get | Verb::List | Verb::Watch => "get",
                    Verb::Create => "post",
                    Verb::Update => "put",
                    Verb::Patch => "patch",
                    Verb::Delete | Verb::DeleteCollection => "delete",
                };
                let path = path.split('?').next().unwrap_or("/");
                Attributes { user, verb, path: Some(path), ..Attributes::default() }
            }
            Target::Resource { resource, namespace, name, subresource } => {
                let name = name.as_deref().or_else(|| selected_name(request)).unwrap_or("");
                let own_namespace = resource.group.is_empty() && resource.resource == "namespaces";
                Attributes {
                    user,
                    verb: request.verb.as_str(),
                    group: &resource.group,
                    version: &resource.version,
                    resource: &resource.resource,
                    subresource: subresource.as_deref().map_or("", |s| s.split('/').next().unwrap_or("")),
                    namespace: namespace.as_deref().unwrap_or(if own_namespace { name } else { "" }),
                    name,
                    field_selector: request.options.field_selector.as_deref(),
                    path: None,
                }
            }
        }
    }

    /// `pods/log`, `pods`.
    pub fn qualified_resource(&self) -> Cow<'a, str> {
        if self.subresource.is_empty() {
            Cow::Borrowed(self.resource)
        } else {
            Cow::Owned(format!("{}/{}", self.resource, self.subresource))
        }
    }

    /// Upstream's 403 for these attributes.
    pub fn forbidden(&self, reason: &str) -> ApiError {
        let user = self.user.username.as_deref().unwrap_or("");
        let tail = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        if let Some(path) = self.path {
            let message = format!("forbidden: User {user:?} cannot {} path {path:?}{tail}", self.verb);
            return ApiError::new(Reason::Forbidden, message)
                .with_details(k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusDetails::default());
        }
        let resource = self.qualified_resource();
        let place = if self.namespace.is_empty() {
            " at the cluster scope".to_owned()
        } else {
            format!(" in the namespace {:?}", self.namespace)
        };
        let why = format!(
            "User {user:?} cannot {} resource {resource:?} in API group {:?}{place}{tail}",
            self.verb, self.group
        );
        ApiError::forbidden(self.group, self.resource, self.name, &why)
    }
}

/// The name in a field selector `metadata.name=x`, which makes a list or watch one of a single object.
fn selected_name(request: &ApiRequest) -> Option<&str> {
    if !matches!(request.verb, Verb::List | Verb::Watch | Verb::DeleteCollection) {
        return None;
    }
    let selector = request.options.field_selector.as_deref()?;
    let value = selector.split(',').find_map(|s| s.trim().strip_prefix("metadata.name="))?;
    let name = value.strip_prefix('=').unwrap_or(value);
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_core::GroupVersionResource;

    #[test]
    fn the_403_is_upstreams() {
        let check =
            |verb, resource: (&str, &str), ns: Option<&str>, name: Option<&str>, sub: &str, want: &str| {
                let gvr = GroupVersionResource::new(resource.0, "v1", resource.1);
                let mut request = ApiRequest::resource(verb, gvr, ns, name);
                if !sub.is_empty() {
                    request = request.subresource(sub);
                }
                request.user =
                    std::sync::Arc::new(UserInfo { username: Some("x".to_owned()), ..UserInfo::default() });
                assert_eq!(Attributes::of(&request).forbidden("").message(), want);
            };
        check(
            Verb::List,
            ("", "pods"),
            Some("default"),
            None,
            "",
            "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
        );
        check(
            Verb::Get,
            ("apps", "deployments"),
            None,
            None,
            "",
            "deployments.apps is forbidden: User \"x\" cannot get resource \"deployments\" in API group \"apps\" at the cluster scope",
        );
        check(
            Verb::Get,
            ("", "pods"),
            Some("a"),
            Some("p"),
            "log",
            "pods \"p\" is forbidden: User \"x\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"a\"",
        );
        check(
            Verb::Get,
            ("", "namespaces"),
            None,
            Some("n"),
            "",
            "namespaces \"n\" is forbidden: User \"x\" cannot get resource \"namespaces\" in API group \"\" in the namespace \"n\"",
        );
        let path = ApiRequest::new(Verb::Get, Target::Path("/metrics?x=1".to_owned()));
        let message = Attributes::of(&path).forbidden("").message().to_owned();
        assert_eq!(message, "forbidden: User \"\" cannot get path \"/metrics\"");
    }
}
