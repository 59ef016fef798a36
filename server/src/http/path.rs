//! From a request's method and path to what it is about, as upstream's `RequestInfo` has it.

use http::Method;
use kubewright_core::{ApiError, GroupVersionResource, Reason, Target, Verb};
use percent_encoding::percent_decode_str;
use smol_str::SmolStr;
use std::borrow::Cow;

/// A path's meaning, before the query string had its say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) target: Target,
    /// The path began with the legacy `/watch/` prefix.
    pub(super) watch: bool,
}

/// Parses `path` (undecoded, as it stands in the request line).
///
/// # Errors
/// 400 for a segment that is no UTF-8, 404 for a path below `/api` or `/apis` that no resource can have.
pub(super) fn parse(path: &str, query: Option<&str>) -> Result<Route, ApiError> {
    let mut segments = path.trim_matches('/').split('/');
    let group = match segments.next() {
        Some("api") => Some(""),
        Some("apis") => segments.next(),
        _ => None,
    };
    let (Some(group), Some(version)) = (group, segments.next()) else {
        return Ok(Route { target: path_target(path, query), watch: false });
    };
    let mut rest: Vec<Cow<'_, str>> = Vec::with_capacity(6);
    for segment in segments {
        let decoded = percent_decode_str(segment).decode_utf8();
        rest.push(decoded.map_err(|_| ApiError::bad_request("the path is no UTF-8"))?);
    }
    let watch = rest.len() > 1 && rest[0] == "watch";
    let parts = if watch { &rest[1..] } else { &rest[..] };
    if parts.is_empty() {
        return Ok(Route { target: path_target(path, query), watch: false });
    }
    if parts.iter().any(|p| p.is_empty()) {
        return Err(not_found());
    }
    let (namespace, parts) = split_namespace(group, parts);
    let resource = GroupVersionResource {
        group: SmolStr::new(group),
        version: SmolStr::new(version),
        resource: SmolStr::new(&parts[0]),
    };
    let subresource = match parts.len() {
        0..=2 => None,
        3 => Some(parts[2].to_string()),
        // Only a proxied path goes on below its subresource.
        _ if parts[2] == "proxy" => Some(parts[2..].join("/")),
        _ => return Err(not_found()),
    };
    let name = parts.get(1).map(|p| p.to_string());
    Ok(Route { target: Target::Resource { resource, namespace, name, subresource }, watch })
}

/// `namespaces/<ns>/<resource>/...` gives the namespace and the rest; `namespaces`, `namespaces/<ns>` and the
/// subresources of a namespace itself stay as they are.
fn split_namespace<'a, 'p>(group: &str, parts: &'p [Cow<'a, str>]) -> (Option<String>, &'p [Cow<'a, str>]) {
    let within = parts[0] == "namespaces"
        && parts.len() >= 3
        && !(group.is_empty() && parts.len() == 3 && matches!(&*parts[2], "status" | "finalize"));
    if within { (Some(parts[1].to_string()), &parts[2..]) } else { (None, parts) }
}

fn path_target(path: &str, query: Option<&str>) -> Target {
    let trimmed = path.trim_end_matches('/');
    let mut text = if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() };
    if let Some(query) = query.filter(|q| !q.is_empty()) {
        text.push('?');
        text.push_str(query);
    }
    Target::Path(text)
}

fn not_found() -> ApiError {
    ApiError::no_such_path()
}

/// The verb of a method on a target.
///
/// # Errors
/// 405 for a method that the API does not know.
pub(super) fn verb(method: &Method, target: &Target, watch: bool) -> Result<Verb, ApiError> {
    let named = matches!(target, Target::Resource { name: Some(_), .. } | Target::Path(_));
    Ok(match *method {
        Method::GET | Method::HEAD if watch => Verb::Watch,
        Method::GET | Method::HEAD if named => Verb::Get,
        Method::GET | Method::HEAD => Verb::List,
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE if named => Verb::Delete,
        Method::DELETE => Verb::DeleteCollection,
        _ => {
            return Err(ApiError::new(
                Reason::MethodNotAllowed,
                "the server does not allow this method on the requested resource",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(path: &str) -> String {
        match parse(path, None) {
            Err(e) => e.code().to_string(),
            Ok(Route { target: Target::Path(path), .. }) => format!("path {path}"),
            Ok(Route { target: Target::Resource { resource, namespace, name, subresource }, watch }) => {
                let part = |p: Option<String>| p.unwrap_or_else(|| "-".to_owned());
                let watch = if watch { " watch" } else { "" };
                let (api, plural) = (resource.api_version(), resource.resource);
                format!("{api} {plural} {} {} {}{watch}", part(namespace), part(name), part(subresource))
            }
        }
    }

    #[test]
    fn paths_are_told_apart() {
        let check = |path: &str, want: &str| assert_eq!(describe(path), want, "{path}");
        check("/", "path /");
        check("/api", "path /api");
        check("/api/", "path /api");
        check("/apis/apps/v1", "path /apis/apps/v1");
        check("/readyz/etcd", "path /readyz/etcd");
        check("/openapi/v3/apis/apps/v1", "path /openapi/v3/apis/apps/v1");
        check("/api/v1/pods", "v1 pods - - -");
        check("/api/v1/namespaces", "v1 namespaces - - -");
        check("/api/v1/namespaces/a", "v1 namespaces - a -");
        check("/api/v1/namespaces/a/status", "v1 namespaces - a status");
        check("/api/v1/namespaces/a/finalize", "v1 namespaces - a finalize");
        check("/api/v1/namespaces/a/pods/", "v1 pods a - -");
        check("/api/v1/namespaces/a/pods/b/log", "v1 pods a b log");
        check("/apis/apps/v1/namespaces/a/deployments/b/scale", "apps/v1 deployments a b scale");
        check("/api/v1/nodes/n/proxy/logs/x", "v1 nodes - n proxy/logs/x");
        check("/api/v1/watch/namespaces/a/pods", "v1 pods a - - watch");
        check("/api/v1/watch/namespaces/a/pods/b", "v1 pods a b - watch");
        check(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "rbac.authorization.k8s.io/v1 clusterroles - system:node -",
        );
        check("/api/v1/namespaces/a/pods/b/log/more", "404");
        check("/api/v1//pods", "404");
        check("/api/v1/pods/%FF", "400");
    }

    #[test]
    fn methods_become_verbs() {
        let check = |method: Method, path: &str, watch: bool, want: Result<Verb, u16>| {
            let target = parse(path, None).unwrap().target;
            assert_eq!(verb(&method, &target, watch).map_err(|e| e.code()), want, "{method} {path}");
        };
        check(Method::GET, "/api/v1/pods", false, Ok(Verb::List));
        check(Method::GET, "/api/v1/pods", true, Ok(Verb::Watch));
        check(Method::HEAD, "/api/v1/nodes/a", false, Ok(Verb::Get));
        check(Method::DELETE, "/api/v1/nodes/a", false, Ok(Verb::Delete));
        check(Method::DELETE, "/api/v1/nodes", false, Ok(Verb::DeleteCollection));
        check(Method::OPTIONS, "/api/v1/nodes", false, Err(405));
        check(Method::GET, "/version", false, Ok(Verb::Get));
    }
}
