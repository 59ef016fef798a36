//! Bearer tokens from several sources, asked in turn, with a bounded memory of who was behind which token.

use super::authenticator::{Authenticator, add_authenticated, bearer};
use crate::server::ApiServer;
use futures::future::BoxFuture;
use http::request::Parts;
use kubewright_core::{ApiError, Reason, SharedClock, UserInfo};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// How long a token's user is remembered, in seconds, as upstream does.
const REMEMBERED_SECONDS: i64 = 10;
/// How many tokens are remembered.
const REMEMBERED_MAX: usize = 4096;

/// Tells whose a bearer token is.
pub trait TokenAuthenticator: Send + Sync + 'static {
    /// The user behind a token; `None` where it is none of this kind.
    ///
    /// # Errors
    /// 401 with the reason, for a token of its kind that does not hold.
    ///
    /// # Cancel safety
    /// Nothing happens but reading.
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<UserInfo>, ApiError>>;

    /// Told once, when the server that it works for has started.
    fn started(&self, server: &ApiServer) {
        let _ = server;
    }
}

/// Several [`TokenAuthenticator`]s as one [`Authenticator`]. The first that knows a token decides; what one refuses, another may know.
pub struct BearerTokens {
    sources: Vec<Arc<dyn TokenAuthenticator>>,
    clock: SharedClock,
    /// By digest, with the second at which it is forgotten.
    known: Mutex<HashMap<[u8; 32], (i64, UserInfo)>>,
}

impl BearerTokens {
    /// No sources yet.
    pub fn new(clock: SharedClock) -> Self {
        BearerTokens { sources: Vec::new(), clock, known: Mutex::default() }
    }

    /// Asks this one too, after those added before.
    #[must_use]
    pub fn with(mut self, source: impl TokenAuthenticator) -> Self {
        self.sources.push(Arc::new(source));
        self
    }

    async fn user_of(&self, token: &str) -> Result<Option<UserInfo>, ApiError> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let now = self.clock.now().as_second();
        if let Some((until, user)) = self.known.lock().get(&digest)
            && *until > now
        {
            return Ok(Some(user.clone()));
        }
        let mut refused = None;
        for source in &self.sources {
            match source.check(token).await {
                Ok(None) => {}
                Ok(Some(mut user)) => {
                    add_authenticated(&mut user);
                    self.remember(digest, now, &user);
                    return Ok(Some(user));
                }
                Err(e) => {
                    tracing::debug!(error = %e, "a bearer token was refused");
                    refused = Some(ApiError::new(Reason::Unauthorized, "Unauthorized"));
                }
            }
        }
        refused.map_or(Ok(None), Err)
    }

    fn remember(&self, digest: [u8; 32], now: i64, user: &UserInfo) {
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED_MAX {
            known.retain(|_, (until, _)| *until > now);
            if known.len() >= REMEMBERED_MAX {
                known.clear();
            }
        }
        known.insert(digest, (now + REMEMBERED_SECONDS, user.clone()));
    }
}

impl fmt::Debug for BearerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerTokens({} sources)", self.sources.len())
    }
}

impl Authenticator for BearerTokens {
    fn authenticate<'a>(&'a self, parts: &'a Parts) -> BoxFuture<'a, Result<Option<UserInfo>, ApiError>> {
        Box::pin(async move {
            match bearer(parts) {
                Some(token) => self.user_of(&token).await,
                None => Ok(None),
            }
        })
    }

    fn started(&self, server: &ApiServer) {
        self.sources.iter().for_each(|s| s.started(server));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authenticated;
    use kubewright_core::ManualClock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// Knows tokens that begin with its name, and refuses those that end in `!`.
    struct Named(&'static str, Arc<AtomicUsize>);

    impl TokenAuthenticator for Named {
        fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<UserInfo>, ApiError>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::ready(match token.strip_prefix(self.0) {
                None => Ok(None),
                Some(rest) if rest.ends_with('!') => Err(ApiError::new(Reason::Unauthorized, "expired")),
                Some(rest) => Ok(Some(authenticated(rest, &[]))),
            }))
        }
    }

    #[tokio::test]
    async fn sources_are_asked_in_turn_and_answers_remembered() {
        let (asked, clock) =
            (Arc::<AtomicUsize>::default(), Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH)));
        let tokens =
            BearerTokens::new(clock.clone()).with(Named("a", asked.clone())).with(Named("ab", asked.clone()));
        let check = async |token: &str, want: Result<Option<&str>, u16>, calls: usize| {
            asked.store(0, Ordering::Relaxed);
            let got = tokens.user_of(token).await;
            let got = got.as_ref().map(|u| u.as_ref().and_then(|u| u.username.as_deref()));
            assert_eq!(got.map_err(|e| e.code()), want, "{token}");
            assert_eq!(asked.load(Ordering::Relaxed), calls, "{token}");
        };
        check("ajoe", Ok(Some("joe")), 1).await;
        check("ajoe", Ok(Some("joe")), 0).await;
        check("xjoe", Ok(None), 2).await;
        check("ab!", Err(401), 2).await;
        clock.advance(Duration::from_secs(11));
        check("ajoe", Ok(Some("joe")), 1).await;
        for n in 0..REMEMBERED_MAX * 2 {
            let _ = tokens.user_of(&format!("a{n}")).await;
        }
        assert!(tokens.known.lock().len() <= REMEMBERED_MAX);
    }
}
