//! Any driver that implements the port, served over a socket.

use super::convert::{
    CONTROLLER, NODE, attributes, map, path, read_capability, read_capacity, read_source, read_topology,
    secrets, status_of, write_plugin_capability, write_snapshot, write_stats, write_topology, write_volume,
};
use super::port::*;
use super::wire;
use super::wire::controller_server::{Controller as ControllerService, ControllerServer};
use super::wire::identity_server::{Identity as IdentityService, IdentityServer};
use super::wire::node_server::{Node as NodeService, NodeServer};
use crate::{Error, Reason};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// A driver that is served until this is dropped.
#[derive(Debug)]
pub struct CsiServer {
    /// Its end is the server's: calls under way are answered first.
    _stop: oneshot::Sender<()>,
    socket: PathBuf,
}

impl CsiServer {
    /// Where it is served.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for CsiServer {
    fn drop(&mut self) {
        // It may be gone with its folder.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Serves a driver at this path, in place of a socket that was left there.
///
/// # Errors
/// `Failed` where the socket can't be made.
pub fn serve(driver: Arc<dyn Driver>, socket: impl Into<PathBuf>) -> Result<CsiServer, Error> {
    let socket = socket.into();
    if socket.exists() {
        std::fs::remove_file(&socket).map_err(|error| Error::io("remove", &socket, &error))?;
    }
    let listener = UnixListener::bind(&socket).map_err(|error| Error::io("listen at", &socket, &error))?;
    let served = Served(driver);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tonic::transport::Server::builder()
        .add_service(IdentityServer::new(served.clone()))
        .add_service(ControllerServer::new(served.clone()))
        .add_service(NodeServer::new(served))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
            // The sender never sends; it is dropped.
            let _ = stopped.await;
        });
    let shown = socket.display().to_string();
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::warn!(%error, socket = shown, "a CSI driver is no longer served");
        }
    });
    Ok(CsiServer { _stop: stop, socket })
}

#[derive(Clone)]
struct Served(Arc<dyn Driver>);

type Answer<T> = Result<Response<T>, Status>;

fn answered<T>(result: Result<T, Error>) -> Answer<T> {
    result.map(Response::new).map_err(|error| status_of(&error))
}

/// A field that the specification requires.
fn required(value: &str, what: &str) -> Result<(), Status> {
    if value.is_empty() {
        Err(Status::invalid_argument(format!("{what} missing in request")))
    } else {
        Ok(())
    }
}

fn refused(error: Error) -> Status {
    status_of(&error)
}

#[tonic::async_trait]
impl IdentityService for Served {
    async fn get_plugin_info(
        &self,
        _: Request<wire::GetPluginInfoRequest>,
    ) -> Answer<wire::GetPluginInfoResponse> {
        answered(self.0.plugin_info().await.map(|info| wire::GetPluginInfoResponse {
            name: info.name,
            vendor_version: info.vendor_version,
            manifest: map(info.manifest),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<wire::GetPluginCapabilitiesRequest>,
    ) -> Answer<wire::GetPluginCapabilitiesResponse> {
        let found = self.0.plugin_capabilities().await;
        answered(found.map(|found| wire::GetPluginCapabilitiesResponse {
            capabilities: found.into_iter().map(write_plugin_capability).collect(),
        }))
    }

    async fn probe(&self, _: Request<wire::ProbeRequest>) -> Answer<wire::ProbeResponse> {
        answered(self.0.probe().await.map(|ready| wire::ProbeResponse { ready: Some(ready) }))
    }
}

#[tonic::async_trait]
impl ControllerService for Served {
    async fn create_volume(
        &self,
        request: Request<wire::CreateVolumeRequest>,
    ) -> Answer<wire::CreateVolumeResponse> {
        let request = request.into_inner();
        required(&request.name, "name")?;
        let topology = request.accessibility_requirements.unwrap_or_default();
        let capabilities = request.volume_capabilities.into_iter().map(|c| read_capability(Some(c)));
        let request = CreateVolume {
            name: request.name,
            capacity: read_capacity(request.capacity_range),
            capabilities: capabilities.collect::<Result<_, _>>().map_err(refused)?,
            parameters: attributes(request.parameters),
            secrets: secrets(request.secrets),
            source: read_source(request.volume_content_source),
            requisite: topology.requisite.into_iter().map(read_topology).collect(),
            preferred: topology.preferred.into_iter().map(read_topology).collect(),
        };
        let made = self.0.create_volume(request).await;
        answered(made.map(|volume| wire::CreateVolumeResponse { volume: Some(write_volume(volume)) }))
    }

    async fn delete_volume(
        &self,
        request: Request<wire::DeleteVolumeRequest>,
    ) -> Answer<wire::DeleteVolumeResponse> {
        let request = request.into_inner();
        required(&request.volume_id, "volume ID")?;
        let done = self.0.delete_volume(&request.volume_id, secrets(request.secrets)).await;
        answered(done.map(|()| wire::DeleteVolumeResponse {}))
    }

    async fn controller_publish_volume(
        &self,
        request: Request<wire::ControllerPublishVolumeRequest>,
    ) -> Answer<wire::ControllerPublishVolumeResponse> {
        let request = request.into_inner();
        required(&request.volume_id, "volume ID")?;
        required(&request.node_id, "node ID")?;
        let request = ControllerPublish {
            volume_id: request.volume_id,
            node_id: request.node_id,
            capability: read_capability(request.volume_capability).map_err(refused)?,
            readonly: request.readonly,
            secrets: secrets(request.secrets),
            context: attributes(request.volume_context),
        };
        let done = self.0.controller_publish(request).await;
        answered(done.map(|context| wire::ControllerPublishVolumeResponse { publish_context: map(context) }))
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<wire::ControllerUnpublishVolumeRequest>,
    ) -> Answer<wire::ControllerUnpublishVolumeResponse> {
        let request = request.into_inner();
        required(&request.volume_id, "volume ID")?;
        let secrets = secrets(request.secrets);
        let done = self.0.controller_unpublish(&request.volume_id, &request.node_id, secrets).await;
        answered(done.map(|()| wire::ControllerUnpublishVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<wire::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<wire::ValidateVolumeCapabilitiesResponse> {
        use wire::validate_volume_capabilities_response::Confirmed;
        let request = request.into_inner();
        required(&request.volume_id, "volume ID")?;
        let wanted = request.volume_capabilities.iter().cloned().map(|c| read_capability(Some(c)));
        let wanted = wanted.collect::<Result<Vec<_>, _>>().map_err(refused)?;
        let context = attributes(request.volume_context.clone());
        let lacks = self.0.validate_capabilities(&request.volume_id, context, wanted).await;
        answered(lacks.map(|lacks| match lacks {
            Some(message) => wire::ValidateVolumeCapabilitiesResponse { confirmed: None, message },
            None => {
                let confirmed = Confirmed {
                    volume_context: request.volume_context,
                    volume_capabilities: request.volume_capabilities,
                    parameters: request.parameters,
                    ..Default::default()
                };
                wire::ValidateVolumeCapabilitiesResponse {
                    confirmed: Some(confirmed),
                    message: String::new(),
                }
            }
        }))
    }

    async fn list_volumes(
        &self,
        request: Request<wire::ListVolumesRequest>,
    ) -> Answer<wire::ListVolumesResponse> {
        use wire::list_volumes_response::{Entry, VolumeStatus};
        let request = request.into_inner();
        let page = self.0.list_volumes(request.max_entries, &request.starting_token).await;
        let entry = |listed: ListedVolume| Entry {
            volume: Some(write_volume(listed.volume)),
            status: Some(VolumeStatus {
                published_node_ids: listed.published_nodes,
                volume_condition: Some(wire::VolumeCondition {
                    abnormal: listed.abnormal.is_some(),
                    message: listed.abnormal.unwrap_or_default(),
                }),
            }),
        };
        answered(page.map(|page| wire::ListVolumesResponse {
            entries: page.items.into_iter().map(entry).collect(),
            next_token: page.next_token,
        }))
    }

    async fn get_capacity(
        &self,
        request: Request<wire::GetCapacityRequest>,
    ) -> Answer<wire::GetCapacityResponse> {
        let request = request.into_inner();
        let topology = request.accessible_topology.map(read_topology).unwrap_or_default();
        let left = self.0.capacity(attributes(request.parameters), topology).await;
        answered(left.map(|available_capacity| wire::GetCapacityResponse {
            available_capacity,
            maximum_volume_size: None,
            minimum_volume_size: None,
        }))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<wire::ControllerGetCapabilitiesRequest>,
    ) -> Answer<wire::ControllerGetCapabilitiesResponse> {
        use wire::controller_service_capability::{Rpc, Type};
        let found = self.0.controller_capabilities().await;
        let shown = |(_, theirs): &(_, wire::controller_service_capability::rpc::Type)| {
            wire::ControllerServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: *theirs as i32 })) }
        };
        answered(found.map(|found| wire::ControllerGetCapabilitiesResponse {
            capabilities: CONTROLLER.iter().filter(|(ours, _)| found.contains(ours)).map(shown).collect(),
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<wire::CreateSnapshotRequest>,
    ) -> Answer<wire::CreateSnapshotResponse> {
        let request = request.into_inner();
        required(&request.name, "name")?;
        required(&request.source_volume_id, "source volume ID")?;
        let (parameters, secrets) = (attributes(request.parameters), secrets(request.secrets));
        let made =
            self.0.create_snapshot(&request.source_volume_id, &request.name, parameters, secrets).await;
        answered(made.map(|made| wire::CreateSnapshotResponse { snapshot: Some(write_snapshot(made)) }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<wire::DeleteSnapshotRequest>,
    ) -> Answer<wire::DeleteSnapshotResponse> {
        let request = request.into_inner();
        required(&request.snapshot_id, "snapshot ID")?;
        let done = self.0.delete_snapshot(&request.snapshot_id, secrets(request.secrets)).await;
        answered(done.map(|()| wire::DeleteSnapshotResponse {}))
    }

    async fn list_snapshots(
        &self,
        request: Request<wire::ListSnapshotsRequest>,
    ) -> Answer<wire::ListSnapshotsResponse> {
        use wire::list_snapshots_response::Entry;
        let request = request.into_inner();
        let filter =
            SnapshotFilter { source_volume_id: request.source_volume_id, snapshot_id: request.snapshot_id };
        let page = self.0.list_snapshots(filter, request.max_entries, &request.starting_token).await;
        let entry = |snapshot| Entry { snapshot: Some(write_snapshot(snapshot)) };
        answered(page.map(|page| wire::ListSnapshotsResponse {
            entries: page.items.into_iter().map(entry).collect(),
            next_token: page.next_token,
        }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<wire::ControllerExpandVolumeRequest>,
    ) -> Answer<wire::ControllerExpandVolumeResponse> {
        let request = request.into_inner();
        required(&request.volume_id, "volume ID")?;
        let capacity = read_capacity(request.capacity_range);
        let done = self.0.expand_volume(&request.volume_id, capacity, secrets(request.secrets)).await;
        answered(done.map(|done| wire::ControllerExpandVolumeResponse {
            capacity_bytes: done.capacity_bytes,
            node_expansion_required: done.node_expansion_required,
        }))
    }

    async fn controller_modify_volume(
        &self,
        request: Request<wire::ControllerModifyVolumeRequest>,
    ) -> Answer<wire::ControllerModifyVolumeResponse> {
        let request = request.into_inner();
        required(&request.volume_id, "volume ID")?;
        let parameters = attributes(request.mutable_parameters);
        let done = self.0.modify_volume(&request.volume_id, parameters, secrets(request.secrets)).await;
        answered(done.map(|()| wire::ControllerModifyVolumeResponse {}))
    }
}

#[tonic::async_trait]
impl NodeService for Served {
    async fn node_stage_volume(
        &self,
        request: Request<wire::NodeStageVolumeRequest>,
    ) -> Answer<wire::NodeStageVolumeResponse> {
        let request = request.into_inner();
        required(&request.volume_id, "volume ID")?;
        let request = NodeStage {
            volume_id: request.volume_id,
            publish_context: attributes(request.publish_context),
            staging_path: path(request.staging_target_path, "staging target path").map_err(refused)?,
            capability: read_capability(request.volume_capability).map_err(refused)?,
            secrets: secrets(request.secrets),
            context: attributes(request.volume_context),
        };
        answered(self.0.stage(request).await.map(|()| wire::NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<wire::NodeUnstageVolumeRequest>,
    ) -> Answer<wire::NodeUnstageVolumeResponse> {
        let request = request.into_inner();
        required(&request.volume_id, "volume ID")?;
        let staging = path(request.staging_target_path, "staging target path").map_err(refused)?;
        let done = self.0.unstage(&request.volume_id, &staging).await;
        answered(done.map(|()| wire::NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<wire::NodePublishVolumeRequest>,
    ) -> Answer<wire::NodePublishVolumeResponse> {
        let request = request.into_inner();
        required(&request.volume_id, "volume ID")?;
        let staging = Some(request.staging_target_path).filter(|staging| !staging.is_empty());
        let staging = staging.map(|staging| path(staging, "staging target path")).transpose();
        let request = NodePublish {
            volume_id: request.volume_id,
            publish_context: attributes(request.publish_context),
            staging_path: staging.map_err(refused)?,
            target_path: path(request.target_path, "target path").map_err(refused)?,
            capability: read_capability(request.volume_capability).map_err(refused)?,
            readonly: request.readonly,
            secrets: secrets(request.secrets),
            context: attributes(request.volume_context),
        };
        answered(self.0.publish(request).await.map(|()| wire::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<wire::NodeUnpublishVolumeRequest>,
    ) -> Answer<wire::NodeUnpublishVolumeResponse> {
        let request = request.into_inner();
        required(&request.volume_id, "volume ID")?;
        let target = path(request.target_path, "target path").map_err(refused)?;
        let done = self.0.unpublish(&request.volume_id, &target).await;
        answered(done.map(|()| wire::NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<wire::NodeGetVolumeStatsRequest>,
    ) -> Answer<wire::NodeGetVolumeStatsResponse> {
        let request = request.into_inner();
        required(&request.volume_id, "volume ID")?;
        let at = path(request.volume_path, "volume path").map_err(refused)?;
        let found = self.0.volume_stats(&request.volume_id, &at).await;
        answered(found.map(|stats| wire::NodeGetVolumeStatsResponse {
            usage: write_stats(stats),
            volume_condition: None,
        }))
    }

    async fn node_expand_volume(
        &self,
        request: Request<wire::NodeExpandVolumeRequest>,
    ) -> Answer<wire::NodeExpandVolumeResponse> {
        let request = request.into_inner();
        required(&request.volume_id, "volume ID")?;
        let request = NodeExpand {
            volume_id: request.volume_id,
            volume_path: path(request.volume_path, "volume path").map_err(refused)?,
            capacity: read_capacity(request.capacity_range),
            secrets: secrets(request.secrets),
        };
        let done = self.0.node_expand(request).await;
        answered(done.map(|capacity_bytes| wire::NodeExpandVolumeResponse { capacity_bytes }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<wire::NodeGetCapabilitiesRequest>,
    ) -> Answer<wire::NodeGetCapabilitiesResponse> {
        use wire::node_service_capability::{Rpc, Type};
        let found = self.0.node_capabilities().await;
        let shown = |(_, theirs): &(_, wire::node_service_capability::rpc::Type)| {
            wire::NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: *theirs as i32 })) }
        };
        answered(found.map(|found| wire::NodeGetCapabilitiesResponse {
            capabilities: NODE.iter().filter(|(ours, _)| found.contains(ours)).map(shown).collect(),
        }))
    }

    async fn node_get_info(&self, _: Request<wire::NodeGetInfoRequest>) -> Answer<wire::NodeGetInfoResponse> {
        let info = self.0.node_info().await;
        answered(info.and_then(|info| {
            if info.node_id.is_empty() {
                return Err(Error::new(Reason::Failed, "the driver has no name for this node"));
            }
            Ok(wire::NodeGetInfoResponse {
                node_id: info.node_id,
                max_volumes_per_node: info.max_volumes,
                accessible_topology: (!info.topology.is_empty()).then(|| write_topology(info.topology)),
            })
        }))
    }
}
