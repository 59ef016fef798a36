//! The TLS configuration of a destination, with a provider of its own.

use super::{CallError, Destination, Trust};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// Where distributions keep their authorities, as Go looks for them.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The configuration; `None` for a destination without TLS.
///
/// # Errors
/// Where an authority, a certificate or a key is damaged.
pub(super) fn config(destination: &Destination) -> Result<Option<Arc<ClientConfig>>, CallError> {
    let failed = |what: &str, e: &dyn std::fmt::Display| CallError::Unusable(format!("{what}: {e}"));
    if destination.trust == Trust::Plain {
        return Ok(None);
    }
    let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| failed("tls", &e))?;
    let builder = match roots(&destination.trust)? {
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider))),
        Some(roots) => builder.with_root_certificates(roots),
    };
    let mut config = match &destination.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes());
            let chain =
                chain.collect::<Result<Vec<_>, _>>().map_err(|e| failed("the client certificate", &e))?;
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes());
            let key = key.map_err(|e| failed("the client key", &e))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| failed("the client certificate", &e))?
        }
    };
    // One connection of HTTP/2 would send every call to one endpoint; upstream keeps to HTTP/1.1 for that reason too.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

/// The authorities to believe; `None` for anybody.
fn roots(trust: &Trust) -> Result<Option<RootCertStore>, CallError> {
    let pem = match trust {
        Trust::Anybody | Trust::Plain => return Ok(None),
        Trust::Bundle(pem) => pem.to_string(),
        Trust::System => system_bundle(),
    };
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten();
    roots.add_parsable_certificates(found);
    if roots.is_empty() && *trust != Trust::System {
        let why = "unable to load root certificates: unable to parse bytes as PEM block";
        return Err(CallError::Unusable(why.to_owned()));
    }
    Ok(Some(roots))
}

fn system_bundle() -> String {
    let named = std::env::var("SSL_CERT_FILE").ok();
    let places = named.iter().map(String::as_str).chain(SYSTEM_BUNDLES.iter().copied());
    places.filter_map(|path| std::fs::read_to_string(path).ok()).next().unwrap_or_default()
}

/// Takes any certificate, for those who ask for it.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
