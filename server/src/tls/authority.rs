//! The plane's own certificate authority.

use super::files::{read, write_secret};
use super::{FrontProxyAuthority, ServingCertificate, TlsError};
use kubewright_core::Clock;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

const AUTHORITY_YEARS: i16 = 10;
const LEAF_YEARS: i16 = 1;
/// A serving certificate with less time left than this is made anew at start.
const RENEW_SECONDS: i64 = 30 * 24 * 3600;

/// A certificate with its private key, both as PEM.
#[derive(Clone)]
pub struct KeyCertificate {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key, PKCS #8.
    pub key_pem: String,
}

impl fmt::Debug for KeyCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyCertificate")
    }
}

/// An authority that signs the serving certificate and the client certificates of a plane.
pub struct CertificateAuthority {
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateAuthority")
    }
}

impl CertificateAuthority {
    /// A new authority, valid for ten years from the clock's time.
    ///
    /// # Errors
    /// Where the key or the certificate cannot be made.
    pub fn generate(clock: &dyn Clock) -> Result<Self, TlsError> {
        let failed = |e| TlsError::certificate("the certificate authority", e);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, clock, AUTHORITY_YEARS);
        let certificate_pem = params.self_signed(&key).map_err(failed)?.pem();
        let key_pem = key.serialize_pem();
        Ok(CertificateAuthority { certificate_pem, key_pem, issuer: Issuer::new(params, key) })
    }

    /// An authority out of its certificate and key.
    ///
    /// # Errors
    /// Where one of the two is damaged.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let key =
            KeyPair::from_pem(key_pem).map_err(|e| TlsError::certificate("the key of the authority", e))?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)
            .map_err(|e| TlsError::certificate("the certificate of the authority", e))?;
        Ok(CertificateAuthority {
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            issuer,
        })
    }

    /// The authority kept in `folder` (`ca.crt`, `ca.key`), made there at the first start.
    ///
    /// # Errors
    /// Where a file is unreadable, damaged, or only one of the two exists.
    pub fn load_or_generate(folder: &Path, clock: &dyn Clock) -> Result<Self, TlsError> {
        let (certificate, key) = (folder.join("ca.crt"), folder.join("ca.key"));
        match (read(&certificate)?, read(&key)?) {
            (Some(certificate_pem), Some(key_pem)) => {
                Self::from_pem(&certificate_pem, &key_pem).map_err(|e| e.in_file(&certificate))
            }
            // A key alone is left by a crash between the two writes; nothing was signed with it yet.
            (None, _) => {
                let authority = Self::generate(clock)?;
                write_secret(&key, &authority.key_pem)?;
                write_secret(&certificate, &authority.certificate_pem)?;
                Ok(authority)
            }
            (Some(_), None) => Err(TlsError::certificate(
                certificate.display().to_string(),
                format!("its key {} is missing", key.display()),
            )),
        }
    }

    /// The authority's certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// A client certificate for a user (its common name) in groups (its organizations), valid for a year.
    ///
    /// # Errors
    /// For more than two groups, which the certificate's writer cannot hold, or a name that no certificate can carry.
    pub fn issue_client(
        &self,
        user: &str,
        groups: &[&str],
        clock: &dyn Clock,
    ) -> Result<KeyCertificate, TlsError> {
        let what = || format!("the client certificate of {user:?}");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // The writer holds one value a type; the same identifier under its number is a second one.
        let kinds = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
        if groups.len() > kinds.len() {
            return Err(TlsError::certificate(what(), "at most two groups are possible"));
        }
        for (kind, group) in kinds.into_iter().zip(groups) {
            params.distinguished_name.push(kind, *group);
        }
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, clock).map_err(|e| TlsError::certificate(what(), e))
    }

    /// A serving certificate for these host names and addresses, valid for a year.
    ///
    /// # Errors
    /// For a name that no certificate can carry.
    pub fn issue_server(&self, names: &[String], clock: &dyn Clock) -> Result<KeyCertificate, TlsError> {
        let failed = |e| TlsError::certificate("the serving certificate", e);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        params.subject_alt_names = names.iter().map(|n| san(n)).collect::<Result<_, _>>().map_err(failed)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, clock).map_err(failed)
    }

    fn sign(&self, mut params: CertificateParams, clock: &dyn Clock) -> Result<KeyCertificate, rcgen::Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, clock, LEAF_YEARS);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(KeyCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// The serving certificate kept in `folder` (`apiserver.crt`, `apiserver.key`), made anew where it is missing, damaged, lacks one
    /// of the names, is of another authority or ends within 30 days.
    ///
    /// # Errors
    /// Where a file is unreadable or the certificate cannot be made.
    pub fn serving_certificate(
        &self,
        folder: &Path,
        names: &[String],
        clock: &dyn Clock,
    ) -> Result<KeyCertificate, TlsError> {
        let (certificate, key) = (folder.join("apiserver.crt"), folder.join("apiserver.key"));
        if let (Some(certificate_pem), Some(key_pem)) = (read(&certificate)?, read(&key)?)
            && self.still_good(&certificate_pem, &key_pem, names, clock)
        {
            return Ok(KeyCertificate { certificate_pem, key_pem });
        }
        let made = self.issue_server(names, clock)?;
        write_secret(&key, &made.key_pem)?;
        write_secret(&certificate, &made.certificate_pem)?;
        Ok(made)
    }

    fn still_good(&self, certificate_pem: &str, key_pem: &str, names: &[String], clock: &dyn Clock) -> bool {
        let (Ok(der), Ok(ca)) = (
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()),
            CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()),
        ) else {
            return false;
        };
        let (Ok((_, leaf)), Ok((_, ca))) = (X509Certificate::from_der(&der), X509Certificate::from_der(&ca))
        else {
            return false;
        };
        let Ok(key) = KeyPair::from_pem(key_pem) else { return false };
        let now = clock.now().as_second();
        leaf.validity().not_after.timestamp() > now + RENEW_SECONDS
            && leaf.validity().not_before.timestamp() <= now
            && leaf.issuer() == ca.subject()
            && leaf.verify_signature(Some(ca.public_key())).is_ok()
            && leaf.public_key().subject_public_key.data == key.public_key_raw()
            && names.iter().all(|n| covers(&leaf, n))
    }

    /// The TLS configuration of a server: HTTP/2 and 1.1, client certificates of this authority optional.
    ///
    /// # Errors
    /// Where certificate and key do not fit together.
    pub fn server_config(&self, serving: &KeyCertificate) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        self.changeable_config(ServingCertificate::new(serving)?, None)
    }

    /// The same with a certificate that can be replaced, and client certificates of the front proxies' authority beside our own.
    ///
    /// # Errors
    /// Where an authority is damaged.
    pub fn changeable_config(
        &self,
        serving: Arc<ServingCertificate>,
        front: Option<&FrontProxyAuthority>,
    ) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let failed = |e: &dyn fmt::Display| TlsError::certificate("the authority of clients", e);
        let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).map_err(|e| failed(&e))?;
        roots.add(ca).map_err(|e| failed(&e))?;
        for authority in front.into_iter().flat_map(|f| &f.0) {
            roots.add(authority.clone()).map_err(|e| failed(&e))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| failed(&e))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&e))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(serving);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// A new serving certificate where this one ends within 30 days or lacks one of the names.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn renewed(
        &self,
        present: &KeyCertificate,
        names: &[String],
        clock: &dyn Clock,
    ) -> Result<Option<KeyCertificate>, TlsError> {
        if self.still_good(&present.certificate_pem, &present.key_pem, names, clock) {
            return Ok(None);
        }
        self.issue_server(names, clock).map(Some)
    }

    /// The names that every API server's certificate carries, with those given here.
    pub fn server_names(service_address: Option<IpAddr>, more: &[&str]) -> Vec<String> {
        let mut names: Vec<String> = [
            "localhost",
            "127.0.0.1",
            "::1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned)
        .into();
        names.extend(service_address.map(|a| a.to_string()));
        if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
            names.push(host.trim().to_owned());
        }
        names.extend(more.iter().map(|n| (*n).to_owned()));
        names.retain(|n| !n.is_empty() && n != "0.0.0.0" && n != "::");
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|n| seen.insert(n.clone()));
        names
    }
}

fn san(name: &str) -> Result<SanType, rcgen::Error> {
    Ok(match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into()?),
    })
}

fn covers(certificate: &X509Certificate<'_>, name: &str) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    let octets = match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(a)) => Some(a.octets().to_vec()),
        Ok(IpAddr::V6(a)) => Some(a.octets().to_vec()),
        Err(_) => None,
    };
    names.value.general_names.iter().any(|general| match (general, &octets) {
        (GeneralName::IPAddress(bytes), Some(octets)) => bytes == octets,
        (GeneralName::DNSName(dns), None) => dns == &name,
        _ => false,
    })
}

/// From the day before (clocks differ) to `years` later.
fn valid_for(params: &mut CertificateParams, clock: &dyn Clock, years: i16) {
    let today = clock.now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let start = today.yesterday().unwrap_or(today);
    let day = |d: jiff::civil::Date, years: i16| {
        // 29 February does not exist in every year.
        let day = if d.month() == 2 { d.day().min(28) } else { d.day() };
        rcgen::date_time_ymd(i32::from(d.year() + years), d.month().unsigned_abs(), day.unsigned_abs())
    };
    params.not_before = day(start, 0);
    params.not_after = day(today, years);
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_core::SystemClock;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_was_made_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let names = CertificateAuthority::server_names(Some("127.96.0.1".parse().unwrap()), &["box"]);
        let open = || CertificateAuthority::load_or_generate(folder.path(), &SystemClock).unwrap();
        let (a, b) = (open(), open());
        assert_eq!(a.certificate_pem(), b.certificate_pem());
        let serving = |ca: &CertificateAuthority, names: &[String]| {
            ca.serving_certificate(folder.path(), names, &SystemClock).unwrap().certificate_pem
        };
        let first = serving(&a, &names);
        assert_eq!(first, serving(&b, &names));
        let more = [names.clone(), vec!["another".to_owned()]].concat();
        assert_ne!(first, serving(&b, &more));
        for file in ["ca.key", "ca.crt", "apiserver.key"] {
            let mode = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        std::fs::write(folder.path().join("apiserver.crt"), "damaged").unwrap();
        let again = serving(&a, &names);
        assert!(a.still_good(
            &again,
            &std::fs::read_to_string(folder.path().join("apiserver.key")).unwrap(),
            &names,
            &SystemClock
        ));
        std::fs::remove_file(folder.path().join("ca.key")).unwrap();
        let e = CertificateAuthority::load_or_generate(folder.path(), &SystemClock).unwrap_err();
        assert!(e.to_string().contains("is missing"), "{e}");
    }
}
