//! The user that a client certificate names.

use crate::auth::add_authenticated;
use kubewright_core::UserInfo;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Common name and organizations of a certificate that TLS has verified; `None` without a common name.
pub(super) fn user_of(certificate: &[u8]) -> Option<UserInfo> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok().filter(|n| !n.is_empty())?.to_owned();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    let credential = format!("X509SHA256={}", hex::encode(Sha256::digest(certificate)));
    let extra = BTreeMap::from([("authentication.kubernetes.io/credential-id".to_owned(), vec![credential])]);
    let mut user = UserInfo { username: Some(name), groups: Some(groups), extra: Some(extra), uid: None };
    add_authenticated(&mut user);
    Some(user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::CertificateAuthority;
    use kubewright_core::SystemClock;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn a_certificate_names_user_and_groups() {
        let ca = CertificateAuthority::generate(&SystemClock).unwrap();
        let made = ca.issue_client("jane", &["dev", "system:masters"], &SystemClock).unwrap();
        let der = CertificateDer::from_pem_slice(made.certificate_pem.as_bytes()).unwrap();
        let user = user_of(&der).unwrap();
        assert_eq!(user.username.as_deref(), Some("jane"));
        assert_eq!(user.groups.unwrap(), ["dev", "system:masters", "system:authenticated"]);
        assert!(ca.issue_client("jane", &["a", "b", "c"], &SystemClock).is_err());
        assert!(user_of(b"no certificate").is_none());
    }
}
