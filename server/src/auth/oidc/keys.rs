//! JSON Web Keys, and the signatures that they check.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// One public key of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) id: String,
    /// The algorithm that it is for, where it says so.
    algorithm: Option<String>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The curve, and the uncompressed point.
    Ec {
        curve: &'static str,
        point: Vec<u8>,
    },
}

/// The keys of a key set that can be used; others are left out.
pub(super) fn of_set(set: &Value) -> Vec<Key> {
    set["keys"].as_array().into_iter().flatten().filter_map(key).collect()
}

fn key(jwk: &Value) -> Option<Key> {
    let text = |field: &str| jwk[field].as_str();
    let bytes = |field: &str| URL_SAFE_NO_PAD.decode(text(field)?.trim_end_matches('=')).ok();
    if text("use").is_some_and(|u| u != "sig") {
        return None;
    }
    let material = match text("kty")? {
        "RSA" => Material::Rsa { n: bytes("n")?, e: bytes("e")? },
        "EC" => {
            let (curve, size) = match text("crv")? {
                "P-256" => ("P-256", 32),
                "P-384" => ("P-384", 48),
                "P-521" => ("P-521", 66),
                _ => return None,
            };
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() > size || y.len() > size {
                return None;
            }
            let mut point = vec![4];
            for part in [x, y] {
                point.resize(point.len() + size - part.len(), 0);
                point.extend(part);
            }
            Material::Ec { curve, point }
        }
        _ => return None,
    };
    Some(Key {
        id: text("kid").unwrap_or("").to_owned(),
        algorithm: text("alg").map(str::to_owned),
        material,
    })
}

impl Key {
    /// Whether this key made a signature with this algorithm. One of another kind, or for another algorithm, did not.
    pub(super) fn made(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        if self.algorithm.as_deref().is_some_and(|own| own != algorithm) {
            return false;
        }
        match &self.material {
            Material::Rsa { n, e } => rsa(algorithm)
                .is_some_and(|with| RsaPublicKeyComponents { n, e }.verify(with, message, signature).is_ok()),
            Material::Ec { curve, point } => {
                let with: &'static dyn VerificationAlgorithm = match (algorithm, *curve) {
                    ("ES256", "P-256") => &ECDSA_P256_SHA256_FIXED,
                    ("ES384", "P-384") => &ECDSA_P384_SHA384_FIXED,
                    ("ES512", "P-521") => &ECDSA_P521_SHA512_FIXED,
                    _ => return false,
                };
                UnparsedPublicKey::new(with, point).verify(message, signature).is_ok()
            }
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        "PS384" => &RSA_PSS_2048_8192_SHA384,
        "PS512" => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
