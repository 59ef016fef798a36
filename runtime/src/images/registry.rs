//! Fetches an image from a registry into a directory.

use super::layer::verify_bytes;
use super::manifest::{ACCEPTED_TYPES, Descriptor, Manifest, choose};
use super::reference::Reference;
use super::source::{DOCUMENT_BYTES_MAX, PackedLayer, Resolved, blob_path};
use crate::port::AuthConfig;
use crate::{Error, Reason};
use base64::Engine;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use std::path::Path;
use std::time::Duration;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);
/// A registry that sends nothing for so long is given up.
const SILENCE_TIME_MAX: Duration = Duration::from_secs(60);

/// Fetches the manifest for this platform, the configuration and the layers.
pub(super) async fn fetch(
    reference: &Reference,
    auth: Option<AuthConfig>,
    dir: &Path,
) -> Result<Resolved, Error> {
    let protocol = if reference.is_local() { ClientProtocol::Http } else { ClientProtocol::Https };
    let client = oci_client::Client::new(ClientConfig {
        protocol,
        connect_timeout: Some(CONNECT_TIME_MAX),
        read_timeout: Some(SILENCE_TIME_MAX),
        ..ClientConfig::default()
    });
    let (auth, mut at) = (credentials(auth)?, remote(reference));
    let say = |e: OciDistributionError| failed(reference, &e);
    let (bytes, digest) = client.pull_manifest_raw(&at, &auth, &ACCEPTED_TYPES).await.map_err(say)?;
    let mut manifest: Manifest = parse(reference, &bytes)?;
    if manifest.config.is_none() {
        let chosen = choose(&manifest.manifests).ok_or_else(|| {
            Error::new(Reason::NotFound, format!("{reference}: no match for platform in manifest"))
        })?;
        at = at.clone_with_digest(chosen.digest.clone());
        let (bytes, _) = client.pull_manifest_raw(&at, &auth, &ACCEPTED_TYPES).await.map_err(say)?;
        verify_bytes(&bytes, &chosen.digest).map_err(|e| broken(reference, &e.to_string()))?;
        manifest = parse(reference, &bytes)?;
    }
    let config = manifest.config.ok_or_else(|| broken(reference, "the manifest has no configuration"))?;
    std::fs::create_dir_all(dir.join("blobs/sha256")).map_err(|e| broken(reference, &e.to_string()))?;
    if config.size > DOCUMENT_BYTES_MAX {
        return Err(broken(reference, "the configuration is too large"));
    }
    for blob in std::iter::once(&config).chain(&manifest.layers) {
        download(&client, &at, blob, dir, reference).await?;
    }
    let path =
        |blob: &Descriptor| blob_path(dir, &blob.digest).map_err(|e| broken(reference, &e.to_string()));
    let bytes = std::fs::read(path(&config)?).map_err(|e| broken(reference, &e.to_string()))?;
    verify_bytes(&bytes, &config.digest).map_err(|e| broken(reference, &e.to_string()))?;
    let layers = manifest
        .layers
        .iter()
        .map(|layer| Ok(PackedLayer { path: path(layer)?, digest: Some(layer.digest.clone()) }));
    let layers = layers.collect::<Result<_, Error>>()?;
    Ok(Resolved { names: Vec::new(), manifest_digest: Some(digest), config: bytes, layers })
}

async fn download(
    client: &oci_client::Client,
    at: &oci_client::Reference,
    blob: &Descriptor,
    dir: &Path,
    reference: &Reference,
) -> Result<(), Error> {
    let path = blob_path(dir, &blob.digest).map_err(|e| broken(reference, &e.to_string()))?;
    if path.exists() {
        return Ok(());
    }
    let file = tokio::fs::File::create(&path).await.map_err(|e| broken(reference, &e.to_string()))?;
    client.pull_blob(at, blob.digest.as_str(), file).await.map_err(|e| failed(reference, &e))
}

fn remote(reference: &Reference) -> oci_client::Reference {
    let (registry, repository) = (reference.registry.clone(), reference.repository.clone());
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => oci_client::Reference::with_digest(registry, repository, digest.clone()),
        (None, tag) => {
            let tag = tag.clone().unwrap_or_else(|| "latest".to_owned());
            oci_client::Reference::with_tag(registry, repository, tag)
        }
    }
}

fn credentials(auth: Option<AuthConfig>) -> Result<RegistryAuth, Error> {
    let Some(auth) = auth else { return Ok(RegistryAuth::Anonymous) };
    if !auth.registry_token.is_empty() {
        return Ok(RegistryAuth::Bearer(auth.registry_token));
    }
    if !auth.username.is_empty() {
        return Ok(RegistryAuth::Basic(auth.username, auth.password));
    }
    if !auth.auth.is_empty() {
        let bad =
            || Error::new(Reason::Invalid, "the registry's credentials are not user:password in base64");
        let text = base64::engine::general_purpose::STANDARD.decode(auth.auth.trim()).map_err(|_| bad())?;
        let text = String::from_utf8(text).map_err(|_| bad())?;
        let (user, password) = text.split_once(':').ok_or_else(bad)?;
        return Ok(RegistryAuth::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned()));
    }
    if !auth.identity_token.is_empty() {
        return Err(Error::new(Reason::Unsupported, "identity tokens of registries are not supported"));
    }
    Ok(RegistryAuth::Anonymous)
}

fn parse(reference: &Reference, bytes: &[u8]) -> Result<Manifest, Error> {
    serde_json::from_slice(bytes).map_err(|e| broken(reference, &format!("manifest: {e}")))
}

fn broken(reference: &Reference, why: &str) -> Error {
    Error::new(Reason::ImagePull, format!("failed to pull image {reference}: {why}"))
}

fn failed(reference: &Reference, error: &OciDistributionError) -> Error {
    let missing = match error {
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        OciDistributionError::ServerError { code, .. } => *code == 404,
        _ => false,
    };
    let reason = if missing { Reason::NotFound } else { Reason::ImagePull };
    Error::new(reason, format!("failed to pull image {reference}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read() {
        let with = |change: fn(&mut AuthConfig)| {
            let mut auth = AuthConfig::default();
            change(&mut auth);
            credentials(Some(auth))
        };
        let basic = |user: &str, password: &str| RegistryAuth::Basic(user.to_owned(), password.to_owned());
        assert_eq!(with(|auth| auth.auth = "dTpwOnc=".to_owned()).unwrap(), basic("u", "p:w"));
        assert_eq!(with(|auth| auth.username = "u".to_owned()).unwrap(), basic("u", ""));
        assert_eq!(
            with(|auth| auth.registry_token = "t".to_owned()).unwrap(),
            RegistryAuth::Bearer("t".into())
        );
        assert_eq!(with(|_| {}).unwrap(), RegistryAuth::Anonymous);
        assert_eq!(with(|auth| auth.auth = "!".to_owned()).unwrap_err().reason(), Reason::Invalid);
        assert_eq!(
            with(|auth| auth.identity_token = "t".to_owned()).unwrap_err().reason(),
            Reason::Unsupported
        );
    }
}
