//! Bootstrap tokens: `<id>.<secret>`, each a Secret of `kube-system`, by which new nodes join.

use super::bearer_tokens::TokenAuthenticator;
use super::objects::ObjectReader;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kubewright_core::{ApiError, Reason, Resource, SharedClock, UserInfo};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// Knows the bootstrap tokens of a plane.
pub struct BootstrapTokens {
    reader: Arc<dyn ObjectReader>,
    clock: SharedClock,
}

impl BootstrapTokens {
    /// Looks the Secrets up with this reader.
    pub fn new(reader: Arc<dyn ObjectReader>, clock: SharedClock) -> Self {
        BootstrapTokens { reader, clock }
    }

    fn user_of(&self, token: &str) -> Result<Option<UserInfo>, ApiError> {
        let Some((id, secret)) = parts_of(token) else { return Ok(None) };
        let name = format!("bootstrap-token-{id}");
        let found = self.reader.get(&Secret::resource(), NAMESPACE, &name)?;
        let Some(object) = found else { return Ok(None) };
        let object = object.value()?;
        let data = |key: &str| text(&object["data"][key]);
        if object["type"] != TYPE || data("token-id") != id {
            return Err(refused("the secret is no bootstrap token of this id"));
        }
        let known = data("token-secret");
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(known.as_bytes(), secret.as_bytes());
        if same.is_err() {
            return Err(refused("the secret half differs"));
        }
        if !object["metadata"]["deletionTimestamp"].is_null() {
            return Err(refused("the token is being deleted"));
        }
        let expires = data("expiration");
        if !expires.is_empty() {
            let at: jiff::Timestamp = expires.parse().map_err(|_| refused("the expiration is no time"))?;
            if at <= self.clock.now() {
                return Err(refused("the token has expired"));
            }
        }
        if data("usage-bootstrap-authentication") != "true" {
            return Err(refused("the token is not for authentication"));
        }
        let mut groups = vec![GROUP.to_owned()];
        let further = data("auth-extra-groups");
        for group in further.split(',').map(str::trim).filter(|g| !g.is_empty()) {
            if !is_bootstrap_group(group) {
                return Err(refused("an extra group is none of bootstrappers"));
            }
            groups.push(group.to_owned());
        }
        let username = Some(format!("system:bootstrap:{id}"));
        Ok(Some(UserInfo { username, groups: Some(groups), ..UserInfo::default() }))
    }
}

impl fmt::Debug for BootstrapTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootstrapTokens")
    }
}

impl TokenAuthenticator for BootstrapTokens {
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<UserInfo>, ApiError>> {
        Box::pin(std::future::ready(self.user_of(token)))
    }
}

fn refused(why: &str) -> ApiError {
    ApiError::new(Reason::Unauthorized, why)
}

/// Six and sixteen lower-case letters or digits, with a dot between.
fn parts_of(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |t: &str| t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// `system:bootstrappers:` and a name of lower-case letters, digits, colons and dashes.
fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b':' | b'-');
    let bytes = rest.as_bytes();
    let end = bytes.last().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    rest.len() <= 256 && end && bytes.iter().all(|b| inner(*b))
}

/// A value of a Secret's data.
fn text(value: &Value) -> String {
    let bytes = STANDARD.decode(value.as_str().unwrap_or("")).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::objects::tests::Objects;
    use kubewright_core::ManualClock;
    use serde_json::json;

    #[test]
    fn a_token_holds_as_its_secret_says() {
        let now = "2026-01-01T00:00:00Z";
        let check = |token: &str, change: Value, want: Result<Option<&[&str]>, &str>| {
            let mut data = json!({"token-id": "abcdef", "token-secret": "0123456789abcdef",
                "usage-bootstrap-authentication": "true"});
            for (key, value) in change["data"].as_object().into_iter().flatten() {
                data[key] = value.clone();
            }
            let data: serde_json::Map<String, Value> = data
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), json!(STANDARD.encode(v.as_str().unwrap()))))
                .collect();
            let mut object = json!({"apiVersion": "v1", "kind": "Secret", "type": TYPE, "data": data,
                "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}});
            if let Some(kind) = change.get("type") {
                object["type"] = kind.clone();
            }
            let objects = Arc::new(Objects::default());
            objects.put("", "secrets", &object);
            let clock = Arc::new(ManualClock::new(now.parse().unwrap()));
            match (BootstrapTokens::new(objects, clock).user_of(token), want) {
                (Ok(None), Ok(None)) => {}
                (Ok(Some(user)), Ok(Some(groups))) => {
                    assert_eq!(user.username.unwrap(), "system:bootstrap:abcdef");
                    assert_eq!(user.groups.unwrap(), groups);
                }
                (Err(e), Err(why)) => assert!(e.message().contains(why), "{e}"),
                (got, want) => panic!("{token} {change}: {got:?} is not {want:?}"),
            }
        };
        let good = "abcdef.0123456789abcdef";
        let data = |key: &str, value: &str| json!({"data": {key: value}});
        check(good, json!({}), Ok(Some(&[GROUP])));
        check(
            good,
            data("auth-extra-groups", "system:bootstrappers:a"),
            Ok(Some(&[GROUP, "system:bootstrappers:a"])),
        );
        check(good, data("auth-extra-groups", "system:masters"), Err("none of bootstrappers"));
        check("abcdef.0123456789abcdeX", json!({}), Ok(None));
        check("ghijkl.0123456789abcdef", json!({}), Ok(None));
        check("nonsense", json!({}), Ok(None));
        check("abcdef.0123456789abcdee", json!({}), Err("differs"));
        check(good, data("expiration", "2025-12-31T23:59:59Z"), Err("expired"));
        check(good, data("expiration", "2026-12-31T23:59:59Z"), Ok(Some(&[GROUP])));
        check(good, data("expiration", "soon"), Err("no time"));
        check(good, data("usage-bootstrap-authentication", "false"), Err("not for authentication"));
        check(good, data("token-id", "aaaaaa"), Err("of this id"));
        check(good, json!({"type": "Opaque"}), Err("of this id"));
    }
}
