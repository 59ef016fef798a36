//! Requests for certificates, as CertificateSigningRequests hold them: read, and signed.

use super::authority::CertificateAuthority;
use super::error::TlsError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kubewright_core::Clock;
use rcgen::{
    CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use serde_json::Value;
use std::time::Duration;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

/// How far back a certificate begins, because clocks differ.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// A certificate that holds shorter than this holds the whole time that was asked for, from now on.
const SHORT: Duration = Duration::from_secs(8 * 3600);

/// What a request for a certificate asks for. Its signature was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestedCertificate {
    /// Whom the certificate is to name.
    pub common_name: String,
    /// The groups that it is to name.
    pub organizations: Vec<String>,
    /// Host names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub ip_addresses: Vec<String>,
    /// Mail addresses.
    pub email_addresses: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
}

/// The DER of the one block of a request.
fn der(pem: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let (_, pem) = parse_x509_pem(pem).map_err(|_| wrong())?;
    if pem.label == "CERTIFICATE REQUEST" { Ok(pem.contents) } else { Err(wrong()) }
}

impl RequestedCertificate {
    /// Reads a request in PEM.
    ///
    /// # Errors
    /// A sentence about what is wrong with it; a signature that does not fit is wrong too.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let der = der(pem)?;
        let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|e| e.to_string())?;
        let signed = rcgen::CertificateSigningRequestParams::from_der(&der.clone().into());
        let params = signed.map_err(|e| e.to_string())?.params;
        let subject = &parsed.certification_request_info.subject;
        let texts =
            |name: &x509_parser::x509::AttributeTypeAndValue<'_>| name.as_str().ok().map(str::to_owned);
        let mut found = RequestedCertificate {
            common_name: subject.iter_common_name().filter_map(texts).last().unwrap_or_default(),
            organizations: subject.iter_organization().filter_map(texts).collect(),
            ..RequestedCertificate::default()
        };
        for name in &params.subject_alt_names {
            match name {
                SanType::DnsName(name) => found.dns_names.push(name.to_string()),
                SanType::IpAddress(address) => found.ip_addresses.push(address.to_string()),
                SanType::Rfc822Name(name) => found.email_addresses.push(name.to_string()),
                SanType::URI(name) => found.uris.push(name.to_string()),
                // Other kinds of names mean nothing here, and are not signed.
                _ => return Err("a subjectAltName of this kind is not supported".to_owned()),
            }
        }
        Ok(found)
    }

    /// Reads `spec.request` of a CertificateSigningRequest: PEM in base64.
    pub(crate) fn of(request: &Value) -> Result<Self, String> {
        let text = request["spec"]["request"].as_str().unwrap_or("");
        Self::from_pem(&STANDARD.decode(text).map_err(|e| e.to_string())?)
    }
}

/// When a certificate in PEM ends, in seconds since 1970; `None` where it is none.
pub fn certificate_ends(pem: &[u8]) -> Option<i64> {
    let (_, pem) = parse_x509_pem(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

impl CertificateAuthority {
    /// Signs a request in PEM for these usages (in the words of `certificates.k8s.io`), and gives the certificate in PEM. What else the
    /// request says of usages does not count; the certificate never outlives the authority's own.
    ///
    /// # Errors
    /// For a request that is none, names an attribute more often than a certificate's writer can hold, or an unknown usage.
    pub fn sign_request(
        &self,
        pem: &[u8],
        usages: &[String],
        lifetime: Duration,
        clock: &dyn Clock,
    ) -> Result<String, TlsError> {
        let failed =
            |e: &dyn std::fmt::Display| TlsError::certificate("the requested certificate", e.to_string());
        let wanted = RequestedCertificate::from_pem(pem).map_err(|e| failed(&e))?;
        let der = der(pem).map_err(|e| failed(&e))?;
        let mut request = CertificateSigningRequestParams::from_der(&der.into()).map_err(|e| failed(&e))?;
        let params = &mut request.params;
        // The writer holds one value a type; the same identifier under its number is a second one.
        match wanted.organizations.as_slice() {
            [] | [_] => {}
            [first, second] => {
                params.distinguished_name.push(DnType::OrganizationName, first.as_str());
                params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), second.as_str());
            }
            _ => return Err(failed(&"at most two organizations are possible")),
        }
        params.is_ca = IsCa::ExplicitNoCa;
        (params.key_usages, params.extended_key_usages) = purposes(usages).map_err(|e| failed(&e))?;
        params.use_authority_key_identifier_extension = true;
        let now = clock.now().as_second();
        let ends = now.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        let backdate = i64::try_from(BACKDATE.as_secs()).unwrap_or(0);
        let ends = if lifetime < SHORT { ends } else { ends - backdate };
        let last = certificate_ends(self.certificate_pem().as_bytes()).unwrap_or(i64::MAX);
        let at = |seconds: i64| {
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        };
        (params.not_before, params.not_after) = (at(now - backdate), at(ends.min(last)));
        request.signed_by(self.issuer()).map(|c| c.pem()).map_err(|e| failed(&e))
    }
}

type Purposes = (Vec<KeyUsagePurpose>, Vec<ExtendedKeyUsagePurpose>);

fn purposes(usages: &[String]) -> Result<Purposes, String> {
    use ExtendedKeyUsagePurpose as Extended;
    use KeyUsagePurpose as Key;
    let (mut keys, mut extended) = (Vec::new(), Vec::new());
    for usage in usages {
        match usage.as_str() {
            "signing" | "digital signature" => keys.push(Key::DigitalSignature),
            "content commitment" => keys.push(Key::ContentCommitment),
            "key encipherment" => keys.push(Key::KeyEncipherment),
            "data encipherment" => keys.push(Key::DataEncipherment),
            "key agreement" => keys.push(Key::KeyAgreement),
            "cert sign" => keys.push(Key::KeyCertSign),
            "crl sign" => keys.push(Key::CrlSign),
            "encipher only" => keys.push(Key::EncipherOnly),
            "decipher only" => keys.push(Key::DecipherOnly),
            "any" => extended.push(Extended::Any),
            "server auth" => extended.push(Extended::ServerAuth),
            "client auth" => extended.push(Extended::ClientAuth),
            "code signing" => extended.push(Extended::CodeSigning),
            "email protection" | "s/mime" => extended.push(Extended::EmailProtection),
            "timestamping" => extended.push(Extended::TimeStamping),
            "ocsp signing" => extended.push(Extended::OcspSigning),
            other => return Err(format!("unrecognized usage {other:?}")),
        }
    }
    keys.dedup();
    extended.dedup();
    Ok((keys, extended))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_core::SystemClock;
    use rcgen::{CertificateParams, DistinguishedName, KeyPair};

    fn request(names: &[&str], organizations: &[&str]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "system:node:n1");
        let kinds = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
        for (kind, organization) in kinds.into_iter().zip(organizations) {
            params.distinguished_name.push(kind, *organization);
        }
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap().into_bytes()
    }

    #[test]
    fn a_request_is_read_and_signed() {
        let pem = request(&["box.example.dev", "10.0.0.1"], &["system:nodes", "more"]);
        let wanted = RequestedCertificate::from_pem(&pem).unwrap();
        assert_eq!((wanted.common_name.as_str(), wanted.organizations.len()), ("system:node:n1", 2));
        assert_eq!(
            (wanted.dns_names, wanted.ip_addresses),
            (vec!["box.example.dev".to_owned()], vec!["10.0.0.1".to_owned()])
        );
        let authority = CertificateAuthority::generate(&SystemClock).unwrap();
        let usages = ["client auth", "digital signature"].map(str::to_owned);
        let hour = Duration::from_secs(3600);
        let signed = authority.sign_request(&pem, &usages, hour, &SystemClock).unwrap();
        let ends = certificate_ends(signed.as_bytes()).unwrap();
        let now = SystemClock.now().as_second();
        assert!((now + 3590..=now + 3610).contains(&ends), "{ends} {now}");
        let (_, block) = parse_x509_pem(signed.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&block.contents).unwrap();
        let groups: Vec<&str> =
            certificate.subject().iter_organization().map(|o| o.as_str().unwrap()).collect();
        assert_eq!(groups, ["system:nodes", "more"]);
        assert!(certificate.extended_key_usage().unwrap().unwrap().value.client_auth && !certificate.is_ca());
        let century = Duration::from_secs(100 * 365 * 24 * 3600);
        let long = authority.sign_request(&pem, &usages, century, &SystemClock).unwrap();
        assert_eq!(
            certificate_ends(long.as_bytes()),
            certificate_ends(authority.certificate_pem().as_bytes())
        );
        assert!(authority.sign_request(&pem, &["odd".to_owned()], hour, &SystemClock).is_err());
    }

    #[test]
    fn what_is_no_request_is_told() {
        let check = |pem: &[u8], why: &str| {
            let e = RequestedCertificate::from_pem(pem).unwrap_err();
            assert!(e.contains(why), "{e}");
        };
        check(b"", "PEM block type must be CERTIFICATE REQUEST");
        check(
            b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
            "PEM block type must be CERTIFICATE REQUEST",
        );
        let pem = request(&[], &[]);
        let mut der = der(&pem).unwrap();
        let last = der.len() - 1;
        der[last] ^= 1;
        let block = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(&der)
        );
        assert!(RequestedCertificate::from_pem(block.as_bytes()).is_err());
    }
}
