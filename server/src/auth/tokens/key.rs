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
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};

/// A private key for ES256 signatures.
pub struct SigningKey {
    /// Empty until a key that is made on demand is needed.
    made: OnceLock<Result<Pair, String>>,
}

struct Pair {
    id: String,
    private: EcdsaKeyPair,
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
        let id = self.present().map_or("not made yet", |pair| pair.id.as_str());
        write!(f, "SigningKey({id})")
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

    /// A new key that is made when the first token is signed: the first randomness of a process costs tens of milliseconds.
    pub fn on_demand() -> Self {
        SigningKey { made: OnceLock::new() }
    }

    /// The key kept in a file (mode 0600), made there at the first start.
    ///
    /// # Errors
    /// Where the file is unreadable or damaged.
    pub fn load_or_generate(path: &Path) -> Result<Self, TlsError> {
        Self::from_pem(&read_or_create(path, new_pem)?).map_err(|e| e.in_file(path))
    }

    /// A key out of its PKCS #8 PEM.
    ///
    /// # Errors
    /// Where it is no P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, TlsError> {
        Ok(SigningKey { made: OnceLock::from(Ok(Pair::from_pem(pem)?)) })
    }

    /// The key, if it was made.
    fn present(&self) -> Option<&Pair> {
        self.made.get().and_then(|made| made.as_ref().ok())
    }

    /// The key, made now if it was not yet.
    fn pair(&self) -> Result<&Pair, ApiError> {
        let made = self
            .made
            .get_or_init(|| new_pem().and_then(|pem| Pair::from_pem(&pem)).map_err(|e| e.to_string()));
        made.as_ref().map_err(ApiError::internal)
    }

    pub(super) fn sign(&self, claims: &impl Serialize) -> Result<String, ApiError> {
        let pair = self.pair()?;
        let header = Header { alg: "ES256".to_owned(), kid: pair.id.clone() };
        let mut token = part(&header)?;
        token.push('.');
        token.push_str(&part(claims)?);
        let signature = pair.private.sign(&SystemRandom::new(), token.as_bytes());
        let signature = signature.map_err(|_| ApiError::internal("the token could not be signed"))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }

    /// Whether a token names this key, be it good or not.
    pub(super) fn signed(&self, token: &str) -> bool {
        let header = token.split('.').next().unwrap_or("");
        let Some(pair) = self.present() else { return false };
        parsed::<Header>(header).is_some_and(|h| h.kid == pair.id)
    }

    /// The claims of a token of this key; times are left to the caller, who has the clock.
    pub(super) fn verify<C: DeserializeOwned>(&self, token: &str) -> Result<C, String> {
        let pair = self.present().ok_or_else(|| "the token was signed with another key".to_owned())?;
        verified(token, &pair.id, &pair.point)
    }

    pub(super) fn key_set(&self) -> Result<Value, ApiError> {
        Ok(json!({"keys": [self.verifying()?.jwk()]}))
    }

    /// The public half.
    ///
    /// # Errors
    /// 500 where the key had to be made and the system gave no randomness.
    pub fn verifying(&self) -> Result<VerifyingKey, ApiError> {
        let pair = self.pair()?;
        Ok(VerifyingKey { id: pair.id.clone(), point: pair.point.clone() })
    }
}

/// A public key that signed tokens before.
#[derive(Clone)]
pub struct VerifyingKey {
    id: String,
    /// The uncompressed point: 0x04, x, y.
    point: Vec<u8>,
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.id)
    }
}

impl VerifyingKey {
    /// A key out of the PEM of its public or its private half.
    ///
    /// # Errors
    /// Where it is no P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, TlsError> {
        let failed = |e: &dyn fmt::Display| TlsError::certificate("a key of service account tokens", e);
        if !pem.contains("PUBLIC KEY") {
            let pair = Pair::from_pem(pem)?;
            return Ok(VerifyingKey { id: pair.id, point: pair.point });
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|e| failed(&e))?;
        let (_, parsed) = SubjectPublicKeyInfo::from_der(&der).map_err(|e| failed(&e))?;
        let point = parsed.subject_public_key.data.to_vec();
        if point.len() != 65 || point[0] != 4 {
            return Err(failed(&"it is no key on the curve P-256"));
        }
        Ok(VerifyingKey { id: URL_SAFE_NO_PAD.encode(Sha256::digest(&der)), point })
    }

    pub(super) fn jwk(&self) -> Value {
        let coordinate = |at: Range<usize>| URL_SAFE_NO_PAD.encode(&self.point[at]);
        json!({"kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256", "kid": self.id,
            "x": coordinate(1..33), "y": coordinate(33..65)})
    }

    /// Whether a token names this key, be it good or not.
    pub(super) fn signed(&self, token: &str) -> bool {
        let header = token.split('.').next().unwrap_or("");
        parsed::<Header>(header).is_some_and(|h| h.kid == self.id)
    }

    pub(super) fn verify<C: DeserializeOwned>(&self, token: &str) -> Result<C, String> {
        verified(token, &self.id, &self.point)
    }
}

/// The claims of a token that a key signed.
fn verified<C: DeserializeOwned>(token: &str, id: &str, point: &[u8]) -> Result<C, String> {
    let bad = || "the token is malformed".to_owned();
    let (message, signature) = token.rsplit_once('.').ok_or_else(bad)?;
    let (header, claims) = message.split_once('.').ok_or_else(bad)?;
    let header: Header = parsed(header).ok_or_else(bad)?;
    if header.alg != "ES256" || header.kid != id {
        return Err("the token was signed with another key".to_owned());
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| bad())?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(message.as_bytes(), &signature)
        .map_err(|_| "the signature of the token does not hold".to_owned())?;
    parsed(claims).ok_or_else(bad)
}

impl Pair {
    fn from_pem(pem: &str) -> Result<Self, TlsError> {
        let failed = |e: &dyn fmt::Display| TlsError::certificate("the key of service account tokens", e);
        let public = KeyPair::from_pem(pem).map_err(|e| failed(&e))?;
        let der = public.serialize_der();
        let private = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
            .map_err(|_| failed(&"it is no key on the curve P-256"))?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(public.subject_public_key_info()));
        Ok(Pair { id, private, point: public.public_key_raw().to_vec() })
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
