//! Where a webhook of authentication or authorization is, and asking it with patience.

use crate::outbound::{Endpoint, Identity, Outbound, Resolver, Trust, refused};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long one try may take, as upstream's clients.
const TRY_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Upstream's patience: five tries, half a second before the second, half as long again before each further one.
const TRIES_MAX: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// What is wrong with the description of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookEndpointError(String);

impl fmt::Display for WebhookEndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WebhookEndpointError {}

/// The address of a webhook, whom to believe there, and how to show oneself.
pub struct WebhookEndpoint {
    endpoint: Endpoint,
    bearer: Option<String>,
    first_pause: Duration,
    outbound: Outbound,
}

impl WebhookEndpoint {
    /// An `https` URL whose certificate is of these authorities (PEM); of the system's, where there are none.
    ///
    /// # Errors
    /// Where the URL is none.
    pub fn new(url: &str, authorities_pem: Option<&str>) -> Result<Self, WebhookEndpointError> {
        let mut endpoint = Endpoint::of_client_config(&json!({"url": url})).map_err(WebhookEndpointError)?;
        if let (Some(pem), false) = (authorities_pem, endpoint.destination.trust == Trust::Plain) {
            endpoint.destination.trust = Trust::Bundle(pem.into());
        }
        let outbound = Outbound::new(Resolver::without_services());
        Ok(WebhookEndpoint { endpoint, bearer: None, first_pause: FIRST_PAUSE, outbound })
    }

    /// What the current context of a kubeconfig (YAML) names, as upstream's `--authentication-token-webhook-config-file`.
    ///
    /// # Errors
    /// Where it is no kubeconfig, lacks a part, or a file that it names can't be read.
    pub fn from_kubeconfig(text: &str) -> Result<Self, WebhookEndpointError> {
        let wrong = |why: String| WebhookEndpointError(format!("the kubeconfig: {why}"));
        let file: Kubeconfig = serde_saphyr::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let missing = |what: &str, name: &str| wrong(format!("there is no {what} {name:?}"));
        let context = file.contexts.iter().find(|c| c.name == file.current_context);
        let context = context.ok_or_else(|| missing("context", &file.current_context))?;
        let (cluster, user) = (&context.context.cluster, &context.context.user);
        let cluster =
            file.clusters.iter().find(|c| c.name == *cluster).ok_or_else(|| missing("cluster", cluster))?;
        let cluster = &cluster.cluster;
        let pem = pem(&cluster.authority_data, &cluster.authority).map_err(wrong)?;
        let mut made = Self::new(&cluster.server, pem.as_deref())?;
        if cluster.insecure && made.endpoint.destination.trust != Trust::Plain {
            made.endpoint.destination.trust = Trust::Anybody;
        }
        let Some(user) = file.users.iter().find(|u| u.name == *user).map(|u| &u.user) else {
            return Ok(made);
        };
        let certificate = self::pem(&user.certificate_data, &user.certificate).map_err(wrong)?;
        let key = self::pem(&user.key_data, &user.key).map_err(wrong)?;
        if let (Some(certificate), Some(key)) = (certificate, key) {
            made = made.identity(&certificate, &key);
        }
        made.bearer = user.token.clone();
        Ok(made)
    }

    /// Shows this client certificate (PEM).
    #[must_use]
    pub fn identity(mut self, certificate_pem: &str, key_pem: &str) -> Self {
        let identity = Identity { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned() };
        self.endpoint.destination.identity = Some(Arc::new(identity));
        self
    }

    /// Sends this bearer token.
    #[must_use]
    pub fn bearer(mut self, token: &str) -> Self {
        self.bearer = Some(token.to_owned());
        self
    }

    /// How long it waits before the second try; each further pause is half as long again.
    #[must_use]
    pub fn first_pause(mut self, pause: Duration) -> Self {
        self.first_pause = pause;
        self
    }

    /// Posts a review and gives the answered one; tries again where the other side can't be reached or is busy.
    ///
    /// # Errors
    /// Says why there is no answer after the last try.
    pub(super) async fn review(&self, review: &Value) -> Result<Value, String> {
        let client = self.outbound.client(&self.endpoint.destination).map_err(|e| e.to_string())?;
        let document = Bytes::from(serde_json::to_vec(review).map_err(|e| e.to_string())?);
        let path = &self.endpoint.path;
        let mut pause = self.first_pause;
        let mut tries = 1;
        loop {
            let bearer = self.bearer.as_deref();
            let answer = client.post(path, document.clone(), bearer, TRY_TIMEOUT, ANSWER_BYTES_MAX).await;
            let failed = match answer {
                Ok(answer) if (200..300).contains(&answer.status) => {
                    return serde_json::from_slice(&answer.body)
                        .map_err(|e| format!("the answer is no review: {e}"));
                }
                Ok(answer) if answer.status < 500 && answer.status != 429 => return Err(refused(&answer)),
                Ok(answer) => refused(&answer),
                Err(e) => format!("Post \"{}\": {e}", client.url(path)),
            };
            if tries == TRIES_MAX {
                return Err(failed);
            }
            tries += 1;
            tokio::time::sleep(pause).await;
            pause = pause * 3 / 2;
        }
    }
}

impl fmt::Debug for WebhookEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookEndpoint({:?})", self.endpoint.destination)
    }
}

/// The text of a PEM given as base64 or by its file.
fn pem(data: &Option<String>, file: &Option<String>) -> Result<Option<String>, String> {
    use base64::Engine;
    if let Some(data) = data {
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(data.trim()).map_err(|e| e.to_string())?;
        return String::from_utf8(bytes).map(Some).map_err(|e| e.to_string());
    }
    let Some(path) = file else { return Ok(None) };
    std::fs::read_to_string(path).map(Some).map_err(|e| format!("{path}: {e}"))
}

#[derive(Deserialize)]
struct Kubeconfig {
    #[serde(rename = "current-context", default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct Cluster {
    server: String,
    #[serde(rename = "certificate-authority-data")]
    authority_data: Option<String>,
    #[serde(rename = "certificate-authority")]
    authority: Option<String>,
    #[serde(rename = "insecure-skip-tls-verify", default)]
    insecure: bool,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
struct User {
    #[serde(rename = "client-certificate-data")]
    certificate_data: Option<String>,
    #[serde(rename = "client-certificate")]
    certificate: Option<String>,
    #[serde(rename = "client-key-data")]
    key_data: Option<String>,
    #[serde(rename = "client-key")]
    key: Option<String>,
    token: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeconfigs_name_the_webhook() {
        let text = r#"
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://hook.example.com/authn", certificate-authority-data: UEVN}}]
users: [{name: u, user: {token: secret}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"#;
        let made = WebhookEndpoint::from_kubeconfig(text).unwrap();
        assert_eq!((made.endpoint.path.as_str(), made.bearer.as_deref()), ("/authn", Some("secret")));
        assert!(made.endpoint.destination.trust == Trust::Bundle("PEM".into()));
        let check = |change: (&str, &str), want: &str| {
            let error = WebhookEndpoint::from_kubeconfig(&text.replace(change.0, change.1)).unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
        };
        check(("current-context: x", "current-context: y"), "there is no context \"y\"");
        check(("cluster: c,", "cluster: d,"), "there is no cluster \"d\"");
        check(("UEVN", "%%%"), "the kubeconfig: ");
        assert!(WebhookEndpoint::new("", None).is_err());
    }
}
