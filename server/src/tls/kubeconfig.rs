//! Kubeconfig files for the clients of a plane.

use super::files::write_secret;
use super::{KeyCertificate, TlsError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::path::Path;

/// How the user of a [`Kubeconfig`] shows who it is.
#[derive(Clone, Debug)]
pub enum KubeconfigCredentials {
    /// By a client certificate.
    Certificate(KeyCertificate),
    /// By a bearer token.
    Token(String),
}

/// What a kubeconfig of one cluster and one user says.
#[derive(Clone, Debug)]
pub struct Kubeconfig {
    /// The name of the cluster and of the context.
    pub cluster: String,
    /// `https://127.0.0.1:6443`.
    pub server: String,
    /// The authority's certificate as PEM.
    pub certificate_authority_pem: String,
    /// The user's name in the file.
    pub user: String,
    /// Its credentials.
    pub credentials: KubeconfigCredentials,
    /// The namespace that commands use without `-n`; `default` when `None`.
    pub namespace: Option<String>,
}

impl Kubeconfig {
    /// The file's text: JSON, which every reader of YAML reads.
    pub fn to_text(&self) -> String {
        let user = match &self.credentials {
            KubeconfigCredentials::Certificate(pair) => json!({
                "client-certificate-data": STANDARD.encode(&pair.certificate_pem),
                "client-key-data": STANDARD.encode(&pair.key_pem),
            }),
            KubeconfigCredentials::Token(token) => json!({"token": token}),
        };
        let mut context = json!({"cluster": self.cluster, "user": self.user});
        if let Some(namespace) = &self.namespace {
            context["namespace"] = json!(namespace);
        }
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.cluster, "cluster": {
                "server": self.server,
                "certificate-authority-data": STANDARD.encode(&self.certificate_authority_pem),
            }}],
            "users": [{"name": self.user, "user": user}],
            "contexts": [{"name": self.cluster, "context": context}],
            "current-context": self.cluster,
        });
        serde_saphyr::to_string(&config).unwrap_or_else(|_| config.to_string())
    }

    /// Writes the file with mode 0600, whole or not at all.
    ///
    /// # Errors
    /// Where the file or its folder cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TlsError> {
        write_secret(path, &self.to_text())
    }
}
