//! Requests on their way to another server.

use super::Remote;
use super::inside;
use crate::relay::{Relay, unreachable};
use crate::server::Shared;
use http::{HeaderMap, HeaderName, HeaderValue};
use kubewright_core::passage::Passage;
use kubewright_core::{ApiError, ApiRequest, ApiResponse, UserInfo};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Write;

/// What a header's name may hold; all else of an extra's key is escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'^')
    .remove(b'`')
    .remove(b'|');

impl Remote {
    /// Has the other server answer a request.
    ///
    /// # Errors
    /// 503 where it is not available or can't be reached; its own error for a request that began in this process.
    pub(crate) async fn answer(
        &self,
        server: &Shared,
        request: &ApiRequest,
    ) -> Result<ApiResponse, ApiError> {
        if !self.is_available() {
            return Err(ApiError::unavailable("service unavailable"));
        }
        match &request.passage {
            Some(passage) => self.pass(server, passage, &request.user).await,
            None => {
                let passage = inside::passage(request)?;
                let answer = self.pass(server, &passage, &request.user).await?;
                inside::understood(request, answer).await
            }
        }
    }

    async fn pass(
        &self,
        server: &Shared,
        passage: &Passage,
        user: &UserInfo,
    ) -> Result<ApiResponse, ApiError> {
        let destination = self.destination.as_ref().map_err(|why| ApiError::unavailable(why.as_str()))?;
        let client = server.outbound.client(destination).map_err(|e| unreachable(&e))?;
        let path = passage.head.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let relay = Relay { client, path, headers: user_headers(user)?, prefix: Some(String::new()) };
        relay.run(server, passage).await
    }
}

/// Who asks, as the other server reads it.
///
/// # Errors
/// 500 for a name that no header can carry.
pub(super) fn user_headers(user: &UserInfo) -> Result<HeaderMap, ApiError> {
    let mut headers = HeaderMap::new();
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(ApiError::internal);
    let user_name = user.username.as_deref().unwrap_or("");
    headers.insert(HeaderName::from_static("x-remote-user"), value(user_name)?);
    if let Some(uid) = user.uid.as_deref().filter(|u| !u.is_empty()) {
        headers.insert(HeaderName::from_static("x-remote-uid"), value(uid)?);
    }
    for group in user.groups.iter().flatten() {
        headers.append(HeaderName::from_static("x-remote-group"), value(group)?);
    }
    for (key, values) in user.extra.iter().flatten() {
        let mut name = "x-remote-extra-".to_owned();
        let _ = write!(name, "{}", utf8_percent_encode(&key.to_ascii_lowercase(), ESCAPED));
        let name = HeaderName::try_from(name).map_err(ApiError::internal)?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_user_is_told_in_headers() {
        let extra =
            BTreeMap::from([("example.com/Scopes%".to_owned(), vec!["a".to_owned(), "b".to_owned()])]);
        let user = UserInfo {
            username: Some("jane".to_owned()),
            groups: Some(vec!["dev".to_owned(), "ops".to_owned()]),
            uid: Some("7".to_owned()),
            extra: Some(extra),
        };
        let headers = user_headers(&user).unwrap();
        let all =
            |name: &str| -> Vec<&str> { headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect() };
        assert_eq!(all("x-remote-user"), ["jane"]);
        assert_eq!(all("x-remote-uid"), ["7"]);
        assert_eq!(all("x-remote-group"), ["dev", "ops"]);
        assert_eq!(all("x-remote-extra-example.com%2Fscopes%25"), ["a", "b"]);
        let odd = UserInfo { username: Some("a\nb".to_owned()), ..UserInfo::default() };
        assert!(user_headers(&odd).is_err());
    }
}
