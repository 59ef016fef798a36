//! Users that a front proxy names in headers, believed for the proxy's client certificate.

use super::authenticator::add_authenticated;
use http::HeaderMap;
use http::request::Parts;
use kubewright_core::UserInfo;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The common name of a client certificate of the front proxies' authority, put into a request's extensions by the server that
/// accepted the connection.
#[derive(Clone, Debug)]
pub struct FrontProxyName(pub Arc<str>);

/// Which proxies are believed, and in which headers they name the user.
#[derive(Clone)]
pub struct FrontProxy {
    /// Common names of the proxies' certificates; every certificate of the authority when empty.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name; the first one that is there counts.
    pub username_headers: Vec<String>,
    /// Headers with the user's uid.
    pub uid_headers: Vec<String>,
    /// Headers with groups; all count.
    pub group_headers: Vec<String>,
    /// Beginnings of headers with further facts.
    pub extra_prefixes: Vec<String>,
}

impl Default for FrontProxy {
    /// Upstream's usual headers, of any proxy of the authority.
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        FrontProxy {
            allowed_names: Vec::new(),
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_prefixes: one("X-Remote-Extra-"),
        }
    }
}

impl fmt::Debug for FrontProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrontProxy({:?})", self.allowed_names)
    }
}

impl FrontProxy {
    /// The user that a believed proxy names; its headers are taken out of the request then.
    pub(crate) fn user_of(&self, parts: &mut Parts) -> Option<UserInfo> {
        let proxy = parts.extensions.get::<FrontProxyName>()?.0.clone();
        if !self.allowed_names.is_empty() && !self.allowed_names.iter().any(|n| **n == *proxy) {
            return None;
        }
        let headers = &mut parts.headers;
        let first = |names: &[String], headers: &HeaderMap| {
            let values = names.iter().filter_map(|n| headers.get(n.as_str())?.to_str().ok());
            values.map(str::to_owned).find(|v| !v.is_empty())
        };
        let username = first(&self.username_headers, headers)?;
        let groups = self.group_headers.iter().flat_map(|n| headers.get_all(n.as_str()));
        let groups: Vec<String> = groups.filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
        let extra = self.extra(headers);
        let mut user = UserInfo {
            username: Some(username),
            uid: first(&self.uid_headers, headers),
            groups: Some(groups),
            extra: Some(extra).filter(|e| !e.is_empty()),
        };
        add_authenticated(&mut user);
        for name in self.username_headers.iter().chain(&self.uid_headers).chain(&self.group_headers) {
            headers.remove(name.as_str());
        }
        Some(user)
    }

    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in headers {
            let prefixes = self.extra_prefixes.iter().map(|p| p.to_ascii_lowercase());
            let key = prefixes.filter_map(|p| name.as_str().strip_prefix(p.as_str())).next();
            let (Some(key), Ok(value)) = (key, value.to_str()) else { continue };
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            extra.entry(key).or_default().push(value.to_owned());
        }
        extra
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_believed_proxies_name_users() {
        let proxy = FrontProxy { allowed_names: vec!["front".to_owned()], ..FrontProxy::default() };
        let check = |name: Option<&str>, headers: &[(&str, &str)], want: Option<&str>| {
            let mut request = http::Request::builder();
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            if let Some(name) = name {
                parts.extensions.insert(FrontProxyName(name.into()));
            }
            let user = proxy.user_of(&mut parts);
            assert_eq!(user.as_ref().and_then(|u| u.username.as_deref()), want, "{name:?} {headers:?}");
            user.map(|u| (u.groups.unwrap(), u.extra.unwrap_or_default()))
        };
        let jane = ("x-remote-user", "jane");
        check(None, &[jane], None);
        check(Some("back"), &[jane], None);
        check(Some("front"), &[], None);
        check(Some("front"), &[("x-remote-user", "")], None);
        let (groups, extra) = check(
            Some("front"),
            &[jane, ("x-remote-group", "a"), ("x-remote-group", "b"), ("x-remote-extra-a%2fb", "1")],
            Some("jane"),
        )
        .unwrap();
        assert_eq!(groups, ["a", "b", "system:authenticated"]);
        assert_eq!(extra["a/b"], ["1"]);
    }
}
