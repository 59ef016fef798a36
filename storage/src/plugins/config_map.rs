//! `configMap`: the keys of a ConfigMap as files, kept up to date.

use super::keys;
use crate::{Error, MountRequest, Mounted, Payload, Reason, VolumePlugin, VolumeSource};
use futures::future::{BoxFuture, ready};
use k8s_openapi::api::core::v1::{KeyToPath, Volume};
use std::path::Path;

/// Implements `configMap`.
#[derive(Debug, Default)]
pub struct ConfigMapPlugin;

/// The files of one ConfigMap; nothing where it is missing but optional.
pub(super) async fn collect(
    source: &dyn VolumeSource,
    namespace: &str,
    name: &str,
    items: Option<&Vec<KeyToPath>>,
    default_mode: i32,
    optional: bool,
) -> Result<Payload, Error> {
    match source.config_map(namespace, name).await? {
        Some(object) => keys::choose("config", &keys::of_config_map(&object), items, default_mode, optional)
            .map_err(|e| Error::new(e.reason(), format!("configmap {e}"))),
        None if optional => Ok(Payload::new()),
        None => Err(Error::new(Reason::NotFound, format!("configmap \"{name}\" not found"))),
    }
}

impl VolumePlugin for ConfigMapPlugin {
    fn name(&self) -> &'static str {
        "kubernetes.io/configmap"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.config_map.is_some()
    }

    fn mount<'a>(&'a self, r: MountRequest<'a>) -> BoxFuture<'a, Result<Mounted, Error>> {
        Box::pin(async move {
            let Some(spec) = &r.volume.config_map else {
                return Err(Error::invalid("the volume is no configMap"));
            };
            let namespace = r.pod.metadata.namespace.as_deref().unwrap_or("");
            let mode = spec.default_mode.unwrap_or(keys::DEFAULT_MODE);
            let optional = spec.optional.unwrap_or(false);
            let name: &str = spec.name.as_ref();
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
