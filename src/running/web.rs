//! The way in from outside: the socket, its certificate and the renewal of it, and the HTTP face as the options want it.

use crate::Https;
use crate::error::StartError;
use crate::parts::ApiService;
use crate::plane::Builder;
use kubewright_core::SharedClock;
use kubewright_server::audit::Audit;
use kubewright_server::http::HttpService;
use kubewright_server::tls::{
    CertificateAuthority, FrontProxyAuthority, KeyCertificate, Server, ServingCertificate, TlsError,
};
use kubewright_server::{DEFAULT_SERVICE_CIDR, api_service_address};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the serving certificate is looked at.
const RENEWAL_PAUSE: Duration = Duration::from_secs(3600);

/// Where HTTPS listens and with which certificate.
pub(super) struct Web {
    listen: SocketAddr,
    names: Vec<String>,
    present: KeyCertificate,
    shown: Arc<ServingCertificate>,
    authority: Arc<CertificateAuthority>,
    folder: Option<PathBuf>,
    front: Option<FrontProxyAuthority>,
    clock: SharedClock,
}

impl Web {
    /// Made before anything is awaited, so that a start can be spawned; `None` for a plane without HTTPS.
    pub(super) fn new(
        parts: &Builder,
        authority: Option<&Arc<CertificateAuthority>>,
    ) -> Result<Option<Self>, TlsError> {
        let (Some(https), Some(authority)) = (&parts.https, authority) else { return Ok(None) };
        let more: Vec<&str> = https.names.iter().map(String::as_str).collect();
        let cidr = parts.service_cidr.as_deref().unwrap_or(DEFAULT_SERVICE_CIDR);
        let mut names = CertificateAuthority::server_names(api_service_address(cidr).ok(), &more);
        let own = https.listen.ip().to_string();
        if !https.listen.ip().is_unspecified() && !names.contains(&own) {
            names.push(own);
        }
        let present = match &parts.keys {
            Some(folder) => authority.serving_certificate(folder, &names, &*parts.clock)?,
            None => authority.issue_server(&names, &*parts.clock)?,
        };
        let front = https.front_proxy_authority.as_deref().map(FrontProxyAuthority::from_pem).transpose()?;
        Ok(Some(Web {
            listen: https.listen,
            names,
            shown: ServingCertificate::new(&present)?,
            present,
            authority: authority.clone(),
            folder: parts.keys.clone(),
            front,
            clock: parts.clock.clone(),
        }))
    }

    /// Listens.
    pub(super) async fn bind(&self, limits: kubewright_server::tls::Limits) -> Result<Server, TlsError> {
        let config = self.authority.changeable_config(self.shown.clone(), self.front.as_ref())?;
        let server = Server::bind(self.listen, config).await?.limits(limits);
        Ok(match &self.front {
            Some(front) => server.front_proxies(front.clone()),
            None => server,
        })
    }

    /// Renews the serving certificate in good time, until cancelled.
    pub(super) async fn renew(mut self, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(RENEWAL_PAUSE) => {}
            }
            if let Err(e) = self.renewed() {
                tracing::warn!(error = %e, "the serving certificate could not be renewed");
            }
        }
    }

    fn renewed(&mut self) -> Result<(), TlsError> {
        let next = match &self.folder {
            Some(folder) => Some(self.authority.serving_certificate(folder, &self.names, &*self.clock)?),
            None => self.authority.renewed(&self.present, &self.names, &*self.clock)?,
        };
        let Some(next) = next.filter(|n| n.certificate_pem != self.present.certificate_pem) else {
            return Ok(());
        };
        self.shown.replace(&next)?;
        self.present = next;
        tracing::info!("the serving certificate was renewed");
        Ok(())
    }
}

/// The HTTP face as the options want it.
pub(super) fn configured(
    mut service: HttpService<ApiService>,
    https: Option<&Https>,
    audit: Option<&Audit>,
) -> Result<HttpService<ApiService>, StartError> {
    if let Some(audit) = audit {
        service = service.audit(audit.clone());
    }
    let Some(https) = https else { return Ok(service) };
    if let Some(origins) = &https.allowed_origins {
        service = service.allowed_origins(origins.clone());
    }
    if !https.strict_transport.is_empty() {
        let with = service.strict_transport(&https.strict_transport);
        service = with.map_err(|e| StartError::new("HTTPS", e))?;
    }
    Ok(service)
}
