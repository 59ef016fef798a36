//! Which server to talk to, and as whom.

use super::kubeconfig;
use http::Uri;
use kubewright_core::ApiError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Where a pod finds what it needs to reach its own cluster.
const IN_CLUSTER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A token in a file is read anew after this time, for it is replaced before it expires.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(60);

/// Why a configuration cannot be used; the text names the file and the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        ConfigError(text.into())
    }
}

/// How a client shows who it is.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// Not at all.
    #[default]
    None,
    /// By a client certificate and its key, both as PEM.
    Certificate {
        /// The certificate chain.
        certificate_pem: String,
        /// The private key.
        key_pem: String,
    },
    /// By a bearer token.
    Token(String),
    /// By the bearer token in a file, read again now and then.
    TokenFile(PathBuf),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::None => "None",
            Credentials::Certificate { .. } => "Certificate",
            Credentials::Token(_) => "Token",
            Credentials::TokenFile(_) => "TokenFile",
        })
    }
}

/// What a client needs to know of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// `https://127.0.0.1:6443`, with a path before the API's own where a proxy wants one.
    pub server: Uri,
    /// The authority that signed the server's certificate, as PEM.
    pub certificate_authority_pem: Option<String>,
    /// The name to expect in the server's certificate instead of the host's.
    pub tls_server_name: Option<String>,
    /// Takes any certificate of the server. Everything sent can be read and changed by others then.
    pub insecure_skip_tls_verify: bool,
    /// Who the client is.
    pub credentials: Credentials,
    /// Whom it acts as (`Impersonate-User`).
    pub impersonate: Option<String>,
    /// The groups of whom it acts as.
    pub impersonate_groups: Vec<String>,
    /// The namespace for those who name none.
    pub namespace: String,
}

impl Config {
    /// A server with nothing else known.
    pub fn new(server: Uri) -> Self {
        Config {
            server,
            certificate_authority_pem: None,
            tls_server_name: None,
            insecure_skip_tls_verify: false,
            credentials: Credentials::None,
            impersonate: None,
            impersonate_groups: Vec::new(),
            namespace: "default".to_owned(),
        }
    }

    /// A server by its address, over HTTPS where that names no scheme.
    ///
    /// # Errors
    /// The address is none.
    pub fn at(address: &str) -> Result<Self, ConfigError> {
        server(address).map(Config::new)
    }

    /// Sets authority, client certificate and key as files of configuration have them: as base64 in the text itself, or the name of a
    /// file, empty where there is none. Data comes before files.
    ///
    /// # Errors
    /// Data that is no base64 of PEM, a file that can't be read.
    pub fn with_pem(
        mut self,
        authority: (&str, &str),
        certificate: (&str, &str),
        key: (&str, &str),
    ) -> Result<Self, ConfigError> {
        let pem = |field: &str, (data, file): (&str, &str)| {
            kubeconfig::pem(field, Some(data), Some(file), Path::new(""))
        };
        self.certificate_authority_pem = pem("certificate-authority", authority)?;
        let certificate = pem("client-certificate", certificate)?;
        if let (Some(certificate_pem), Some(key_pem)) = (certificate, pem("client-key", key)?) {
            self.credentials = Credentials::Certificate { certificate_pem, key_pem };
        }
        Ok(self)
    }

    /// Out of kubeconfig files, merged as kubectl merges them: the first that says something wins. Files that do not exist are
    /// passed over. `context` replaces the current one.
    ///
    /// # Errors
    /// Where no file exists, one is damaged, or the context needs what this client does not do (exec plugins, auth providers,
    /// passwords, proxies).
    pub fn from_kubeconfig(files: &[PathBuf], context: Option<&str>) -> Result<Self, ConfigError> {
        kubeconfig::load(files, context)
    }

    /// As kubectl finds its configuration: the files of `KUBECONFIG`, whose value the caller passes, else `.kube/config` below `home`.
    ///
    /// # Errors
    /// As [`Config::from_kubeconfig`].
    pub fn from_environment(
        kubeconfig: Option<&std::ffi::OsStr>,
        home: Option<&Path>,
        context: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let files: Vec<PathBuf> = match kubeconfig.filter(|v| !v.is_empty()) {
            Some(list) => std::env::split_paths(list).filter(|p| !p.as_os_str().is_empty()).collect(),
            None => home.map(|h| h.join(".kube/config")).into_iter().collect(),
        };
        Self::from_kubeconfig(&files, context)
    }

    /// As a pod finds its own cluster: the service account's files, and the values of `KUBERNETES_SERVICE_HOST` and
    /// `KUBERNETES_SERVICE_PORT`, which the caller passes.
    ///
    /// # Errors
    /// Where a file is missing.
    pub fn in_cluster(host: &str, port: &str) -> Result<Self, ConfigError> {
        Self::in_cluster_at(Path::new(IN_CLUSTER), host, port)
    }

    /// The TLS side of connections that a program makes to this server by itself.
    ///
    /// # Errors
    /// Where the authority, the certificate or the key is missing or damaged.
    pub fn tls(&self) -> Result<rustls::ClientConfig, ConfigError> {
        super::tls::client_config(self)
    }

    pub(super) fn in_cluster_at(folder: &Path, host: &str, port: &str) -> Result<Self, ConfigError> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let mut config = Config::new(server(&format!("https://{host}:{port}"))?);
        config.certificate_authority_pem = Some(read(&folder.join("ca.crt"))?);
        let token = folder.join("token");
        read(&token)?;
        config.credentials = Credentials::TokenFile(token);
        if let Ok(namespace) = read(&folder.join("namespace")) {
            namespace.trim().clone_into(&mut config.namespace);
        }
        Ok(config)
    }
}

pub(super) fn server(text: &str) -> Result<Uri, ConfigError> {
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let uri: Uri = full.parse().map_err(|e| ConfigError::new(format!("the server {text:?}: {e}")))?;
    match uri.scheme_str() {
        Some("https" | "http") if uri.host().is_some_and(|h| !h.is_empty()) => Ok(uri),
        _ => Err(ConfigError::new(format!("the server {text:?} is no https address"))),
    }
}

pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|e| ConfigError::new(format!("{}: {e}", path.display())))
}

/// The bearer token of a transport.
pub(super) enum Token {
    Fixed(String),
    File { path: PathBuf, last: Mutex<Option<(Instant, String)>> },
}

impl Token {
    pub(super) fn of(config: &Config) -> Option<Token> {
        match &config.credentials {
            Credentials::Token(token) => Some(Token::Fixed(token.clone())),
            Credentials::TokenFile(path) => Some(Token::File { path: path.clone(), last: Mutex::default() }),
            Credentials::None | Credentials::Certificate { .. } => None,
        }
    }

    pub(super) async fn read(&self) -> Result<String, ApiError> {
        let (path, last) = match self {
            Token::Fixed(token) => return Ok(token.clone()),
            Token::File { path, last } => (path, last),
        };
        let mut last = last.lock().await;
        if let Some((read, token)) = last.as_ref().filter(|(read, _)| read.elapsed() < TOKEN_AGE_MAX) {
            let _ = read;
            return Ok(token.clone());
        }
        match tokio::fs::read_to_string(path).await {
            Ok(token) => {
                let token = token.trim().to_owned();
                *last = Some((Instant::now(), token.clone()));
                Ok(token)
            }
            // The one before may hold still.
            Err(e) => match last.as_ref() {
                Some((_, token)) => Ok(token.clone()),
                None => Err(ApiError::unavailable(format!("{}: {e}", path.display()))),
            },
        }
    }
}
