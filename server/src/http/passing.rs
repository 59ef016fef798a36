//! Requests that may be passed on to somebody else: they are kept as they came, whatever this server makes of them.

use super::decode::{self, Head, Shape};
use super::query;
use crate::paths::is_upstreams_group;
use futures::stream::{self, StreamExt};
use http::Method;
use http::request::Parts;
use http_body::Body;
use http_body_util::{BodyExt, Full};
use kubewright_core::passage::{ByteStream, Passage};
use kubewright_core::{
    ApiError, ApiRequest, Clock, GroupVersionResource, RequestBody, Target, UserInfo, Verb,
};
use percent_encoding::percent_decode_str;
use smol_str::SmolStr;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// Why a request may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Candidate {
    /// Its group may be served by another server.
    Group,
    /// It names a `proxy` subresource.
    Proxy,
}

/// Whether the address is one that may be passed on.
pub(super) fn candidate(path: &str) -> Option<Candidate> {
    let mut segments = path.trim_start_matches('/').split('/');
    match (segments.next()?, segments.next()?) {
        ("apis", group) => (!is_upstreams_group(group)).then_some(Candidate::Group),
        ("api", _) => {
            let mut rest = segments.peekable();
            if rest.peek() == Some(&"namespaces") {
                rest.nth(1);
            }
            let proxied = matches!(rest.next(), Some("pods" | "services" | "nodes"));
            (proxied && rest.nth(1) == Some("proxy")).then_some(Candidate::Proxy)
        }
        _ => None,
    }
}

/// What is understood of a request up to its body, and why it is not more.
pub(super) fn head(
    parts: &Parts,
    user: Arc<UserInfo>,
    clock: &dyn Clock,
    default_timeout: Duration,
) -> (Head, Option<ApiError>) {
    match decode::head(parts, user.clone(), clock, default_timeout) {
        Ok(head) => (head, None),
        Err(error) => {
            let mut request = ApiRequest::new(verb(&parts.method), target(parts));
            request.user = user;
            let subresource = matches!(&request.target, Target::Resource { subresource: Some(_), .. });
            let timeout = (!subresource).then_some(default_timeout);
            (Head { request, shape: Shape::default(), timeout }, Some(error))
        }
    }
}

fn verb(method: &Method) -> Verb {
    match *method {
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE => Verb::Delete,
        _ => Verb::Get,
    }
}

/// What an address is about, for authorization, as upstream's request info has it: what follows the subresource is left out.
fn target(parts: &Parts) -> Target {
    let path = parts.uri.path();
    let mut segments = path.trim_matches('/').split('/');
    let decoded = |s: &str| percent_decode_str(s).decode_utf8_lossy().into_owned();
    let group = if segments.next() == Some("apis") { segments.next().unwrap_or("") } else { "" };
    let version = segments.next().unwrap_or("");
    let mut rest: Vec<&str> = segments.filter(|s| !s.is_empty()).collect();
    let namespace = (rest.len() > 2 && rest[0] == "namespaces").then(|| decoded(rest[1]));
    if namespace.is_some() {
        rest.drain(..2);
    }
    let Some(plural) = rest.first() else { return Target::Path(path.to_owned()) };
    Target::Resource {
        resource: GroupVersionResource::new(SmolStr::new(group), SmolStr::new(version), decoded(plural)),
        namespace,
        name: rest.get(1).map(|s| decoded(s)),
        subresource: rest.get(2).map(|s| decoded(s)),
    }
}

/// Reads the body for this server too, where that is possible, and keeps the request as it came.
///
/// # Errors
/// 413 above 3 MiB (but for proxies), 400 where the client stopped in the middle.
pub(super) async fn keep<B>(
    candidate: Candidate,
    request: &mut ApiRequest,
    parts: &Parts,
    body: B,
    mut unread: Option<ApiError>,
) -> Result<(), ApiError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Display + Send,
{
    let body: Option<ByteStream> = match candidate {
        _ if body.is_end_stream() => None,
        Candidate::Proxy => Some(streamed(body)),
        Candidate::Group => {
            let bytes = decode::whole(parts, body).await?;
            match decode::body(request, parts, Full::new(bytes.clone())).await {
                Ok(read) => request.body = read,
                Err(e) => {
                    request.body = RequestBody::Empty;
                    unread = unread.or(Some(e));
                }
            }
            Some(stream::once(async move { Ok(bytes) }).boxed())
        }
    };
    if candidate == Candidate::Group {
        let checked = query::check(&request.options, request.verb, decode::is_apply(&request.body));
        unread = unread.or(checked.err());
    }
    request.passage = Some(Arc::new(Passage::new(parts.clone(), body, unread)));
    Ok(())
}

fn streamed<B>(body: B) -> ByteStream
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Display + Send,
{
    let chunks = stream::unfold(Box::pin(body), |mut body| async move {
        loop {
            let chunk = match body.frame().await? {
                Err(e) => Err(ApiError::bad_request(format!("error reading the request body: {e}"))),
                Ok(frame) => match frame.into_data() {
                    Ok(data) => Ok(decode::bytes_of(data)),
                    Err(_) => continue,
                },
            };
            return Some((chunk, body));
        }
    });
    chunks.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_may_answer_is_kept() {
        let check = |path: &str, want: Option<Candidate>| assert_eq!(candidate(path), want, "{path}");
        check("/apis/metrics.k8s.io/v1beta1/nodes", Some(Candidate::Group));
        check("/apis/apps/v1/deployments", None);
        check("/api/v1/namespaces/n/pods/p/proxy", Some(Candidate::Proxy));
        check("/api/v1/namespaces/n/services/https:s:1/proxy/a/proxy", Some(Candidate::Proxy));
        check("/api/v1/nodes/n/proxy/metrics", Some(Candidate::Proxy));
        check("/api/v1/namespaces/n/pods/proxy", None);
        check("/api/v1/namespaces/proxy", None);
        check("/version", None);
    }

    #[test]
    fn odd_addresses_have_a_target_too() {
        let check = |path: &str, want: &str| {
            let (parts, ()) = http::Request::builder().uri(path).body(()).unwrap().into_parts();
            let got = match target(&parts) {
                Target::Path(path) => path,
                Target::Resource { resource, namespace, name, subresource } => {
                    let (api, plural) = (resource.api_version(), resource.resource);
                    format!("{api} {plural} {namespace:?} {name:?} {subresource:?}")
                }
            };
            assert_eq!(got, want);
        };
        check("/apis/g/v1/namespaces/n/things/a/b/c/d", "g/v1 things Some(\"n\") Some(\"a\") Some(\"b\")");
        check("/api/v1/namespaces/n/pods/p/proxy//x", "v1 pods Some(\"n\") Some(\"p\") Some(\"proxy\")");
        check("/apis/g/v1", "/apis/g/v1");
    }
}
