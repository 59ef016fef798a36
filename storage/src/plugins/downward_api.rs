//! `downwardAPI`: the pod's own fields as files, kept up to date.

use super::keys;
use crate::{Error, FileProjection, MountRequest, Mounted, NodeFacts, Payload, VolumePlugin, fields};
use futures::future::{BoxFuture, ready};
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, Pod, Volume};
use std::path::Path;

/// Implements `downwardAPI`.
#[derive(Debug, Default)]
pub struct DownwardApiPlugin;

/// The files of the items.
pub(super) fn collect(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: i32,
    facts: &NodeFacts,
) -> Result<Payload, Error> {
    let mut files = Payload::new();
    for item in items {
        let text = if let Some(reference) = &item.field_ref {
            fields::field(pod, &reference.field_path, facts, false)?
        } else if let Some(reference) = &item.resource_field_ref {
            let name = reference.container_name.as_deref().unwrap_or("");
            let spec = pod.spec.as_ref();
            let containers =
                spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
            let container = containers
                .into_iter()
                .find(|c| c.name == name)
                .ok_or_else(|| Error::invalid(format!("container {name} not found")))?;
            fields::resource(container, reference, facts)?
        } else {
            return Err(Error::invalid(format!("{}: neither fieldRef nor resourceFieldRef", item.path)));
        };
        let mode = keys::mode(item.mode.unwrap_or(default_mode));
        files.insert(item.path.clone(), FileProjection { data: text.into_bytes(), mode });
    }
    Ok(files)
}

impl VolumePlugin for DownwardApiPlugin {
    fn name(&self) -> &'static str {
        "kubernetes.io/downward-api"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.downward_api.is_some()
    }

    fn mount<'a>(&'a self, r: MountRequest<'a>) -> BoxFuture<'a, Result<Mounted, Error>> {
        Box::pin(async move {
            let Some(spec) = &r.volume.downward_api else {
                return Err(Error::invalid("the volume is no downwardAPI"));
            };
            let mode = spec.default_mode.unwrap_or(keys::DEFAULT_MODE);
            let files = collect(r.pod, spec.items.as_deref().unwrap_or(&[]), mode, r.facts)?;
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
