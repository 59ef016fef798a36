//! `projected`: several sources in one tree of files, the service account's token among them.

use super::{config_map, downward_api, keys, secret};
use crate::{Error, FileProjection, MountRequest, Mounted, Payload, TokenOrder, VolumePlugin};
use futures::future::{BoxFuture, ready};
use k8s_openapi::api::core::v1::{ServiceAccountTokenProjection, Volume, VolumeProjection};
use std::path::Path;

/// Implements `projected`.
#[derive(Debug, Default)]
pub struct ProjectedPlugin;

/// How long a token is good for when nobody says otherwise, seconds.
const TOKEN_SECONDS: i64 = 3600;

async fn collect(r: &MountRequest<'_>, source: &VolumeProjection, mode: i32) -> Result<Payload, Error> {
    let namespace = r.pod.metadata.namespace.as_deref().unwrap_or("");
    if let Some(s) = &source.config_map {
        let optional = s.optional.unwrap_or(false);
        return config_map::collect(r.source, namespace, s.name.as_ref(), s.items.as_ref(), mode, optional)
            .await;
    }
    if let Some(s) = &source.secret {
        let optional = s.optional.unwrap_or(false);
        return secret::collect(r.source, namespace, s.name.as_ref(), s.items.as_ref(), mode, optional).await;
    }
    if let Some(s) = &source.downward_api {
        return downward_api::collect(r.pod, s.items.as_deref().unwrap_or(&[]), mode, r.facts);
    }
    if let Some(s) = &source.service_account_token {
        return token(r, s, mode).await;
    }
    let kind = if source.cluster_trust_bundle.is_some() {
        "clusterTrustBundle"
    } else if source.pod_certificate.is_some() {
        "podCertificate"
    } else {
        return Err(Error::invalid("a source of the projected volume names nothing"));
    };
    Err(Error::new(crate::Reason::Unsupported, format!("projected source {kind} is not supported")))
}

async fn token(r: &MountRequest<'_>, s: &ServiceAccountTokenProjection, mode: i32) -> Result<Payload, Error> {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let spec = r.pod.spec.as_ref();
    let account = spec.and_then(|p| p.service_account_name.clone()).filter(|n| !n.is_empty());
    let order = TokenOrder {
        namespace: text(&r.pod.metadata.namespace),
        service_account: account.unwrap_or_else(|| "default".to_owned()),
        pod: text(&r.pod.metadata.name),
        pod_uid: text(&r.pod.metadata.uid),
        audience: text(&s.audience),
        expiration_seconds: s.expiration_seconds.unwrap_or(TOKEN_SECONDS),
    };
    let token = r.source.token(order).await?;
    // A container that runs as another user could not read the token with a tighter mode; upstream tightens
    // it to 0600 only where all containers run as one user.
    let mode = if r.fs_group.is_some() { 0o600 } else { keys::mode(mode) };
    Ok([(s.path.clone(), FileProjection { data: token.into_bytes(), mode })].into())
}

impl VolumePlugin for ProjectedPlugin {
    fn name(&self) -> &'static str {
        "kubernetes.io/projected"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.projected.is_some()
    }

    fn mount<'a>(&'a self, r: MountRequest<'a>) -> BoxFuture<'a, Result<Mounted, Error>> {
        Box::pin(async move {
            let Some(spec) = &r.volume.projected else {
                return Err(Error::invalid("the volume is not projected"));
            };
            let mode = spec.default_mode.unwrap_or(keys::DEFAULT_MODE);
            let mut files = Payload::new();
            for source in spec.sources.iter().flatten() {
                files.extend(collect(&r, source, mode).await?);
            }
            r.write(files).await
        })
    }

    fn unmount<'a>(&'a self, _dir: &'a Path) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(ready(Ok(())))
    }

    fn follows_source(&self) -> bool {
        true
    }
}
