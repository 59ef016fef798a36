//! What a service account's token says, as upstream's tokens say it.

use super::TokenBinding;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) aud: Vec<String>,
    pub(super) exp: i64,
    pub(super) iat: i64,
    pub(super) iss: String,
    pub(super) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(super) kubernetes: Kubernetes,
    pub(super) nbf: i64,
    pub(super) sub: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kubernetes {
    pub(super) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Named>,
    pub(super) serviceaccount: Named,
    /// When the client ought to have come back for a new token, in seconds; for tokens that live longer than was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) warnafter: Option<i64>,
}

/// An object and which one of that name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) uid: String,
}

impl Named {
    pub(super) fn new(name: &str, uid: &str) -> Self {
        Named { name: name.to_owned(), uid: uid.to_owned() }
    }
}

impl Kubernetes {
    pub(super) fn of(namespace: &str, serviceaccount: Named, bound: Option<&TokenBinding>) -> Self {
        let mut claims = Kubernetes {
            namespace: namespace.to_owned(),
            node: None,
            pod: None,
            secret: None,
            serviceaccount,
            warnafter: None,
        };
        if let Some(bound) = bound {
            let named = Some(Named::new(&bound.name, &bound.uid));
            match bound.kind.as_str() {
                "Pod" => claims.pod = named,
                "Secret" => claims.secret = named,
                "Node" => claims.node = named,
                _ => {}
            }
            if let (Some((name, uid)), None) = (&bound.node, &claims.node) {
                claims.node = Some(Named::new(name, uid));
            }
        }
        claims
    }
}
