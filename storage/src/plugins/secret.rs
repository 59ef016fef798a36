//! `secret`: the keys of a Secret as files, kept up to date.

use super::keys;
use crate::{Error, MountRequest, Mounted, Payload, Reason, VolumePlugin, VolumeSource};
use futures::future::{BoxFuture, ready};
use k8s_openapi::api::core::v1::{KeyToPath, Volume};
use std::path::Path;

/// Implements `secret`.
#[derive(Debug, Default)]
pub struct SecretPlugin;

/// The files of one Secret; nothing where it is missing but optional.
pub(super) async fn collect(
    source: &dyn VolumeSource,
    namespace: &str,
    name: &str,
    items: Option<&Vec<KeyToPath>>,
    default_mode: i32,
    optional: bool,
) -> Result<Payload, Error> {
    match source.secret(namespace, name).await? {
        Some(object) => keys::choose("secret", &keys::of_secret(&object), items, default_mode, optional),
        None if optional => Ok(Payload::new()),
        None => Err(Error::new(Reason::NotFound, format!("secret \"{name}\" not found"))),
    }
}

impl VolumePlugin for SecretPlugin {
    fn name(&self) -> &'static str {
        "kubernetes.io/secret"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.secret.is_some()
    }

    fn mount<'a>(&'a self, r: MountRequest<'a>) -> BoxFuture<'a, Result<Mounted, Error>> {
        Box::pin(async move {
            let Some(spec) = &r.volume.secret else {
                return Err(Error::invalid("the volume is no secret"));
            };
            let namespace = r.pod.metadata.namespace.as_deref().unwrap_or("");
            let mode = spec.default_mode.unwrap_or(keys::DEFAULT_MODE);
            let optional = spec.optional.unwrap_or(false);
            let name = spec.secret_name.as_deref().unwrap_or("");
            let files = collect(r.source, namespace, name, spec.items.as_ref(), mode, optional).await?;
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
