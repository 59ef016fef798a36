//! The untyped client: requests in, responses out, under one identity.

use crate::Transport;
use kubewright_core::{ApiError, ApiRequest, ApiResponse, UserInfo};
use smol_str::SmolStr;
use std::fmt;
use std::sync::Arc;

/// A handle on an API server. Cloning shares the transport.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    /// The identity put into requests that travel in process; an HTTP server ignores it for its own authentication.
    user: Arc<UserInfo>,
    /// Sent as `User-Agent`; the default field manager's source.
    user_agent: SmolStr,
    remote: bool,
}

impl Client {
    /// A client over a transport, acting as `user` where the transport does not authenticate itself.
    pub fn new<T: Transport>(transport: T, user: UserInfo) -> Self {
        Client {
            transport: Arc::new(transport),
            user: Arc::new(user),
            user_agent: SmolStr::new_static("kubewright"),
            remote: is_remote::<T>(),
        }
    }

    /// The same server, under another identity.
    #[must_use]
    pub fn as_user(&self, user: UserInfo) -> Self {
        Client { user: Arc::new(user), ..self.clone() }
    }

    /// The same server, under another `User-Agent`.
    #[must_use]
    pub fn with_user_agent(&self, user_agent: &str) -> Self {
        Client { user_agent: SmolStr::new(user_agent), ..self.clone() }
    }

    /// Whether requests leave the process, so that what travels is worth saving.
    pub fn is_remote(&self) -> bool {
        self.remote
    }

    /// Who this client acts as in process.
    pub fn user(&self) -> &UserInfo {
        &self.user
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The server's error, or `ServiceUnavailable` where it could not be reached.
    ///
    /// # Cancel safety
    /// A dropped write may or may not have happened.
    pub async fn send(&self, mut request: ApiRequest) -> Result<ApiResponse, ApiError> {
        request.user = self.user.clone();
        if request.user_agent.is_empty() {
            request.user_agent = self.user_agent.clone();
        }
        self.transport.send(request).await
    }
}

fn is_remote<T: 'static>() -> bool {
    std::any::TypeId::of::<T>() == std::any::TypeId::of::<crate::HttpsTransport>()
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client(as {})", self.user.username.as_deref().unwrap_or("nobody"))
    }
}

/// The identity of a part of the control plane itself, `system:<name>`, as the bootstrap policy knows it.
///
/// ```
/// let user = kubewright_client::system_user("kube-scheduler", &[]);
/// assert_eq!(user.username.as_deref(), Some("system:kube-scheduler"));
/// ```
pub fn system_user(name: &str, groups: &[&str]) -> UserInfo {
    let mut all: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
    all.push("system:authenticated".to_owned());
    UserInfo { username: Some(format!("system:{name}")), groups: Some(all), ..UserInfo::default() }
}
