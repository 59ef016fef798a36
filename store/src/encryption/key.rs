//! The keys of encryption at rest, one for each way in which Kubernetes encrypts.

use crate::{Error, Reason};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm, KeyInit as _};
use bytes::Bytes;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _};
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};

/// What every encrypted value begins with; the way, the key's id, a colon, and what the way makes of it follow.
const MARK: &[u8] = b"kubewright:";
/// The ways, as they stand behind the mark.
const WAYS: [&str; 5] = ["aes256gcm:v1:", "aes128gcm:v1:", "aes192gcm:v1:", "aescbc:v1:", "secretbox:v1:"];
const GCM_NONCE_LEN: usize = 12;
const CBC_IV_LEN: usize = 16;
const BOX_NONCE_LEN: usize = 24;

/// Whether a value was encrypted here, by whatever key.
pub(super) fn is_sealed(value: &[u8]) -> bool {
    let rest = value.strip_prefix(MARK);
    rest.is_some_and(|rest| WAYS.iter().any(|way| rest.starts_with(way.as_bytes())))
}

/// A key with its name, and the way in which it encrypts.
///
/// A key of AES-GCM is good for 2^32 writes, as nonces are random; rotate before that.
#[derive(Clone)]
pub struct EncryptionKey {
    id: String,
    /// What stands before every value that it encrypted.
    mark: Bytes,
    cipher: Cipher,
}

#[derive(Clone)]
enum Cipher {
    Gcm128(Box<Aes128Gcm>),
    Gcm192(Box<AesGcm<Aes192, U12>>),
    Gcm256(Box<Aes256Gcm>),
    Cbc(Box<[u8]>),
    SecretBox(XSalsa20Poly1305),
}

impl EncryptionKey {
    /// A key of AES-256-GCM; its id stands in clear before every value that it encrypted.
    ///
    /// # Errors
    /// `Invalid` where the id is empty, longer than 64 bytes, or holds a colon.
    pub fn new(id: impl Into<String>, key: [u8; 32]) -> Result<Self, Error> {
        EncryptionKey::aes_gcm(id, &key)
    }

    /// A key of AES-GCM, of 16, 24 or 32 bytes: `aesgcm`.
    ///
    /// # Errors
    /// As [`EncryptionKey::new`], and for a key of another length.
    pub fn aes_gcm(id: impl Into<String>, key: &[u8]) -> Result<Self, Error> {
        let (way, cipher) = match key.len() {
            16 => (WAYS[1], Aes128Gcm::new_from_slice(key).map(|c| Cipher::Gcm128(Box::new(c)))),
            24 => (WAYS[2], AesGcm::new_from_slice(key).map(|c| Cipher::Gcm192(Box::new(c)))),
            32 => (WAYS[0], Aes256Gcm::new_from_slice(key).map(|c| Cipher::Gcm256(Box::new(c)))),
            _ => return Err(length(key)),
        };
        EncryptionKey::named(id.into(), way, cipher.map_err(|_| length(key))?)
    }

    /// A key of AES-CBC with PKCS#7 padding, of 16, 24 or 32 bytes: `aescbc`. Changes of what it encrypted are not found out.
    ///
    /// # Errors
    /// As [`EncryptionKey::aes_gcm`].
    pub fn aes_cbc(id: impl Into<String>, key: &[u8]) -> Result<Self, Error> {
        if !matches!(key.len(), 16 | 24 | 32) {
            return Err(length(key));
        }
        EncryptionKey::named(id.into(), WAYS[3], Cipher::Cbc(key.into()))
    }

    /// A key of XSalsa20 and Poly1305, of 32 bytes: `secretbox`. What it encrypted is not bound to the name of its key.
    ///
    /// # Errors
    /// As [`EncryptionKey::aes_gcm`].
    pub fn secret_box(id: impl Into<String>, key: &[u8]) -> Result<Self, Error> {
        let key = <[u8; 32]>::try_from(key).map_err(|_| length(key))?;
        EncryptionKey::named(id.into(), WAYS[4], Cipher::SecretBox(XSalsa20Poly1305::new(&key.into())))
    }

    fn named(id: String, way: &str, cipher: Cipher) -> Result<Self, Error> {
        if id.is_empty() || id.len() > 64 || id.contains(':') {
            let words = format!("the key id {id:?} is not 1 to 64 bytes without a colon");
            return Err(Error::new(Reason::Invalid, words));
        }
        let mark = [MARK, way.as_bytes(), id.as_bytes(), b":"].concat().into();
        Ok(EncryptionKey { id, mark, cipher })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn mark(&self) -> &Bytes {
        &self.mark
    }

    pub(super) fn seal(&self, key: &Bytes, value: &[u8]) -> Result<Bytes, Error> {
        let payload = Payload { msg: value, aad: key };
        let gcm: [u8; GCM_NONCE_LEN] = rand::random();
        Ok(match &self.cipher {
            Cipher::Gcm128(c) => self.whole(&gcm, &c.encrypt(&gcm.into(), payload).map_err(|_| too_large())?),
            Cipher::Gcm192(c) => self.whole(&gcm, &c.encrypt(&gcm.into(), payload).map_err(|_| too_large())?),
            Cipher::Gcm256(c) => self.whole(&gcm, &c.encrypt(&gcm.into(), payload).map_err(|_| too_large())?),
            Cipher::Cbc(key) => {
                let iv: [u8; CBC_IV_LEN] = rand::random();
                self.whole(&iv, &cbc_encrypt(key, &iv, value)?)
            }
            Cipher::SecretBox(c) => {
                let nonce: [u8; BOX_NONCE_LEN] = rand::random();
                self.whole(&nonce, &c.encrypt(&nonce.into(), value).map_err(|_| too_large())?)
            }
        })
    }

    fn whole(&self, nonce: &[u8], sealed: &[u8]) -> Bytes {
        [&self.mark[..], nonce, sealed].concat().into()
    }

    /// What is behind the mark of a value, decrypted.
    pub(super) fn open(&self, key: &Bytes, sealed: &[u8]) -> Result<Bytes, Error> {
        let opened = match &self.cipher {
            Cipher::Gcm128(c) => split::<GCM_NONCE_LEN>(sealed)
                .and_then(|(nonce, msg)| c.decrypt(&nonce.into(), Payload { msg, aad: key }).ok()),
            Cipher::Gcm192(c) => split::<GCM_NONCE_LEN>(sealed)
                .and_then(|(nonce, msg)| c.decrypt(&nonce.into(), Payload { msg, aad: key }).ok()),
            Cipher::Gcm256(c) => split::<GCM_NONCE_LEN>(sealed)
                .and_then(|(nonce, msg)| c.decrypt(&nonce.into(), Payload { msg, aad: key }).ok()),
            Cipher::Cbc(cbc) => {
                split::<CBC_IV_LEN>(sealed).and_then(|(iv, sealed)| cbc_decrypt(cbc, &iv, sealed))
            }
            Cipher::SecretBox(c) => split::<BOX_NONCE_LEN>(sealed)
                .and_then(|(nonce, sealed)| c.decrypt(&nonce.into(), sealed).ok()),
        };
        opened.map(Bytes::from).ok_or_else(|| unreadable(key))
    }
}

impl std::fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EncryptionKey({:?})", self.id)
    }
}

fn split<const N: usize>(sealed: &[u8]) -> Option<([u8; N], &[u8])> {
    sealed.split_first_chunk::<N>().map(|(nonce, rest)| (*nonce, rest))
}

fn cbc_encrypt(key: &[u8], iv: &[u8], value: &[u8]) -> Result<Vec<u8>, Error> {
    let bad = |_| length(key);
    Ok(match key.len() {
        16 => cbc::Encryptor::<Aes128>::new_from_slices(key, iv)
            .map_err(bad)?
            .encrypt_padded_vec::<Pkcs7>(value),
        24 => cbc::Encryptor::<Aes192>::new_from_slices(key, iv)
            .map_err(bad)?
            .encrypt_padded_vec::<Pkcs7>(value),
        _ => cbc::Encryptor::<Aes256>::new_from_slices(key, iv)
            .map_err(bad)?
            .encrypt_padded_vec::<Pkcs7>(value),
    })
}

fn cbc_decrypt(key: &[u8], iv: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    match key.len() {
        16 => {
            cbc::Decryptor::<Aes128>::new_from_slices(key, iv).ok()?.decrypt_padded_vec::<Pkcs7>(sealed).ok()
        }
        24 => {
            cbc::Decryptor::<Aes192>::new_from_slices(key, iv).ok()?.decrypt_padded_vec::<Pkcs7>(sealed).ok()
        }
        _ => {
            cbc::Decryptor::<Aes256>::new_from_slices(key, iv).ok()?.decrypt_padded_vec::<Pkcs7>(sealed).ok()
        }
    }
}

fn length(key: &[u8]) -> Error {
    Error::new(Reason::Invalid, format!("a key of {} bytes has no length that fits", key.len()))
}

fn too_large() -> Error {
    Error::new(Reason::TooLarge, "the value is too large to encrypt")
}

fn unreadable(key: &Bytes) -> Error {
    Error::new(
        Reason::Corrupt,
        format!("the value of key {key:?} can't be decrypted: it was changed or moved"),
    )
}
