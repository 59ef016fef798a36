//! The port of authentication, and the authenticators that need nothing but themselves.

use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::request::Parts;
use kubewright_core::{ApiError, UserInfo};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;

/// The group of everybody who was authenticated.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody who was not.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Tells who sends a request.
pub trait Authenticator: Send + Sync + 'static {
    /// The user behind the request; `None` where it carries no credentials that this authenticator knows.
    ///
    /// # Errors
    /// 401 for credentials of its kind that do not hold; no other authenticator is asked then.
    ///
    /// # Cancel safety
    /// Nothing happens but reading.
    fn authenticate<'a>(&'a self, parts: &'a Parts) -> BoxFuture<'a, Result<Option<UserInfo>, ApiError>>;

    /// Told once, when the server that it works for has started.
    fn started(&self, server: &crate::ApiServer) {
        let _ = server;
    }
}

/// The user of a request without credentials.
pub fn anonymous() -> UserInfo {
    UserInfo {
        username: Some("system:anonymous".to_owned()),
        groups: Some(vec![UNAUTHENTICATED.to_owned()]),
        ..UserInfo::default()
    }
}

/// A user with these groups, who also belongs to `system:authenticated`.
///
/// ```
/// let user = kubewright_server::auth::authenticated("jane", &["dev"]);
/// assert_eq!(user.groups.unwrap(), ["dev", "system:authenticated"]);
/// ```
pub fn authenticated(name: &str, groups: &[&str]) -> UserInfo {
    let mut user = UserInfo {
        username: Some(name.to_owned()),
        groups: Some(groups.iter().map(|g| (*g).to_owned()).collect()),
        ..UserInfo::default()
    };
    add_authenticated(&mut user);
    user
}

/// Adds the group of the authenticated, unless the user is in one of the two groups already.
pub(crate) fn add_authenticated(user: &mut UserInfo) {
    let groups = user.groups.get_or_insert_default();
    if !groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
        groups.push(AUTHENTICATED.to_owned());
    }
}

/// The token of an `Authorization: Bearer` header, or of a WebSocket's subprotocol
/// `base64url.bearer.authorization.k8s.io.<token>`.
pub(crate) fn bearer(parts: &Parts) -> Option<String> {
    if let Some(value) = parts.headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    let protocols = parts.headers.get(http::header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let encoded =
        protocols.split(',').find_map(|p| p.trim().strip_prefix("base64url.bearer.authorization.k8s.io."))?;
    use base64::Engine;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).ok()?;
    String::from_utf8(bytes).ok()
}

/// Bearer tokens that the host gives out itself, as upstream's `--token-auth-file`.
#[derive(Clone, Default)]
pub struct StaticTokens {
    /// By digest, so that a lookup's time tells nothing about a token.
    users: HashMap<[u8; 32], UserInfo>,
}

impl StaticTokens {
    /// No tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a token for a user, who is put into `system:authenticated`.
    #[must_use]
    pub fn with(mut self, token: &str, mut user: UserInfo) -> Self {
        add_authenticated(&mut user);
        self.users.insert(Sha256::digest(token).into(), user);
        self
    }

    /// The tokens of a file as upstream's `--token-auth-file` has it: `token,user,uid` a line, and groups in quotes as a fourth column.
    ///
    /// # Errors
    /// Names the line that has no token, user or uid.
    pub fn from_csv(text: &str) -> Result<Self, String> {
        let mut tokens = Self::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let columns = columns(line);
            let [token, name, uid, rest @ ..] = columns.as_slice() else {
                return Err(format!("line {}: token, user name and uid are needed", number + 1));
            };
            if token.is_empty() || name.is_empty() {
                return Err(format!("line {}: token and user name must not be empty", number + 1));
            }
            let groups = rest.first().map_or("", String::as_str).split(',').map(str::trim);
            let user = UserInfo {
                username: Some(name.clone()),
                uid: Some(uid.clone()).filter(|u| !u.is_empty()),
                groups: Some(groups.filter(|g| !g.is_empty()).map(str::to_owned).collect()),
                extra: None,
            };
            tokens = tokens.with(token, user);
        }
        Ok(tokens)
    }
}

/// The columns of a line, which may stand in quotes.
fn columns(line: &str) -> Vec<String> {
    let (mut all, mut quoted) = (vec![String::new()], false);
    for c in line.trim().chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(String::new()),
            c => all.last_mut().into_iter().for_each(|column| column.push(c)),
        }
    }
    all.iter().map(|c| c.trim().to_owned()).collect()
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticTokens({})", self.users.len())
    }
}

impl Authenticator for StaticTokens {
    fn authenticate<'a>(&'a self, parts: &'a Parts) -> BoxFuture<'a, Result<Option<UserInfo>, ApiError>> {
        let token = bearer(parts);
        Box::pin(async move {
            Ok(token.and_then(|token| self.users.get(&<[u8; 32]>::from(Sha256::digest(token))).cloned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_known_token_gives_its_user() {
        let tokens = StaticTokens::new().with("secret", authenticated("jane", &["dev"]));
        let check = async |header: &str, want: Option<&str>| {
            let request = http::Request::builder().header(AUTHORIZATION, header).body(()).unwrap();
            let user = tokens.authenticate(&request.into_parts().0).await.unwrap();
            assert_eq!(user.and_then(|u| u.username).as_deref(), want, "{header}");
        };
        check("Bearer secret", Some("jane")).await;
        check("bearer  secret ", Some("jane")).await;
        check("Bearer other", None).await;
        check("Basic secret", None).await;
        check("Bearer", None).await;
    }

    #[tokio::test]
    async fn a_file_of_tokens_is_read() {
        let text = "# comment\nt1,jane,u1,\"dev,ops\"\n\nt2, joe ,u2\n";
        let tokens = StaticTokens::from_csv(text).unwrap();
        let user = |token: &str| tokens.users[&<[u8; 32]>::from(Sha256::digest(token))].clone();
        assert_eq!(user("t1").groups.unwrap(), ["dev", "ops", AUTHENTICATED]);
        assert_eq!((user("t2").username.as_deref(), user("t2").uid.as_deref()), (Some("joe"), Some("u2")));
        assert!(StaticTokens::from_csv("only").unwrap_err().contains("line 1"));
        assert!(StaticTokens::from_csv("\n,a,b").unwrap_err().contains("line 2"));
    }
}
