//! The key that signs tokens: ECDSA on P-256, kept in a file.

use crate::tls::{TlsError, read_or_create};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kubewright_core::ApiError;
use rcgen::{KeyPair, PublicKeyData};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;

/// A private key for ES256 signatures.
pub struct SigningKey {
    id: String,
    pair: EcdsaKeyPair,
    /// The uncompressed point: 0x04, x, y.
    point: Vec<u8>,
}

/// The header of a token, as far as it matters here.
#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// Where the system gives no randomness.
    pub fn generate() -> Result<Self, TlsError> {
        Self::from_pem(&new_pem()?)
    }

    /// The key kept in a file (mode 0600), made there at the first start.
    ///
    /// # Errors
    /// Where the file is unreadable or damaged.
    pub fn load_or_generate(path: &Path) -> Result<Self, TlsError> {
        Self::from_pem(&read_or_create(path, new_pem)?)
    }

    /// A key out of its PKCS #8 PEM.
    ///
    /// # Errors
    /// Where it is no P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, TlsError> {
        let failed = |e: &dyn fmt::Display| TlsError::certificate("the key of service account tokens", e);
        let public = KeyPair::from_pem(pem).map_err(|e| failed(&e))?;
        let der = public.serialize_der();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
            .map_err(|_| failed(&"it is no key on the curve P-256"))?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(public.subject_public_key_info()));
        Ok(SigningKey { id, pair, point: public.public_key_raw().to_vec() })
    }

    pub(super) fn sign(&self, claims: &impl Serialize) -> Result<String, ApiError> {
        let header = Header { alg: "ES256".to_owned(), kid: self.id.clone() };
        let mut token = part(&header)?;
        token.push('.');
        token.push_str(&part(claims)?);
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes());
        let signature = signature.map_err(|_| ApiError::internal("the token could not be signed"))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }

    /// Whether a token names this key, be it good or not.
    pub(super) fn signed(&self, token: &str) -> bool {
        let header = token.split('.').next().unwrap_or("");
        parsed::<Header>(header).is_some_and(|h| h.kid == self.id)
    }

    /// The claims of a token of this key; times are left to the caller, who has the clock.
    pub(super) fn verify<C: DeserializeOwned>(&self, token: &str) -> Result<C, String> {
        let bad = || "the token is malformed".to_owned();
        let (message, signature) = token.rsplit_once('.').ok_or_else(bad)?;
        let (header, claims) = message.split_once('.').ok_or_else(bad)?;
        let header: Header = parsed(header).ok_or_else(bad)?;
        if header.alg != "ES256" || header.kid != self.id {
            return Err("the token was signed with another key".to_owned());
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| bad())?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point)
            .verify(message.as_bytes(), &signature)
            .map_err(|_| "the signature of the token does not hold".to_owned())?;
        parsed(claims).ok_or_else(bad)
    }

    pub(super) fn key_set(&self) -> Value {
        let (x, y) = (URL_SAFE_NO_PAD.encode(&self.point[1..33]), URL_SAFE_NO_PAD.encode(&self.point[33..]));
        json!({"keys": [{"kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256", "kid": self.id, "x": x, "y": y}]})
    }
}

/// A part of a token.
fn part(value: &impl Serialize) -> Result<String, ApiError> {
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).map_err(ApiError::internal)?))
}

fn parsed<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn new_pem() -> Result<String, TlsError> {
    let pair =
        KeyPair::generate().map_err(|e| TlsError::certificate("the key of service account tokens", e))?;
    Ok(pair.serialize_pem())
}
