//! The three services of a driver, called over its socket.

use super::convert::{
    CONTROLLER, NODE, attributes, error_of, map, read_plugin_capability, read_snapshot, read_stats,
    read_topology, read_volume, text, write_capability, write_capacity, write_source, write_topology,
};
use super::port::*;
use super::wire;
use super::wire::controller_client::ControllerClient;
use super::wire::identity_client::IdentityClient;
use super::wire::node_client::NodeClient;
use crate::{Error, Reason};
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// How long a call may take; upstream's own bound.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A driver behind a socket. Cheap to clone; it connects when it is used, and again after the driver was restarted.
#[derive(Clone)]
pub struct CsiClient {
    channel: Channel,
    endpoint: String,
}

impl CsiClient {
    /// A client of the driver at `unix:///path`, or a plain absolute path. Nothing is sent yet.
    ///
    /// # Errors
    /// `Invalid` where it is no such address.
    pub fn new(endpoint: &str) -> Result<Self, Error> {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        let invalid = |why: &str| Error::invalid(format!("CSI endpoint {endpoint:?}: {why}"));
        if !Path::new(path).is_absolute() {
            return Err(invalid("neither unix:///path nor an absolute path"));
        }
        let url = format!("unix://{path}");
        let transport = Endpoint::from_shared(url.clone()).map_err(|error| invalid(&error.to_string()))?;
        Ok(CsiClient { channel: transport.connect_timeout(CONNECT_TIMEOUT).connect_lazy(), endpoint: url })
    }

    fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel.clone())
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }
}

impl std::fmt::Debug for CsiClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CsiClient({})", self.endpoint)
    }
}

/// Waits for an answer, but not for ever.
async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(error_of(&status)),
        Err(_) => {
            Err(Error::new(Reason::NotReady, format!("the driver did not answer within {CALL_TIMEOUT:?}")))
        }
    }
}

impl Identity for CsiClient {
    fn plugin_info(&self) -> BoxFuture<'_, Result<PluginInfo, Error>> {
        Box::pin(async move {
            let info = answer(self.identity().get_plugin_info(wire::GetPluginInfoRequest {})).await?;
            Ok(PluginInfo {
                name: info.name,
                vendor_version: info.vendor_version,
                manifest: attributes(info.manifest),
            })
        })
    }

    fn plugin_capabilities(&self) -> BoxFuture<'_, Result<BTreeSet<PluginCapability>, Error>> {
        Box::pin(async move {
            let request = wire::GetPluginCapabilitiesRequest {};
            let found = answer(self.identity().get_plugin_capabilities(request)).await?.capabilities;
            Ok(found.into_iter().filter_map(read_plugin_capability).collect())
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            // No word about it means that it is ready.
            Ok(answer(self.identity().probe(wire::ProbeRequest {})).await?.ready.unwrap_or(true))
        })
    }
}

impl Controller for CsiClient {
    fn controller_capabilities(&self) -> BoxFuture<'_, Result<BTreeSet<ControllerCapability>, Error>> {
        Box::pin(async move {
            use wire::controller_service_capability::Type;
            let request = wire::ControllerGetCapabilitiesRequest {};
            let found = answer(self.controller().controller_get_capabilities(request)).await?.capabilities;
            let known = |capability: wire::ControllerServiceCapability| {
                let Type::Rpc(rpc) = capability.r#type?;
                CONTROLLER.iter().find(|(_, theirs)| *theirs == rpc.r#type()).map(|(ours, _)| *ours)
            };
            Ok(found.into_iter().filter_map(known).collect())
        })
    }

    fn create_volume(&self, request: CreateVolume) -> BoxFuture<'_, Result<Volume, Error>> {
        Box::pin(async move {
            let topologies = |list: Vec<Attributes>| list.into_iter().map(write_topology).collect::<Vec<_>>();
            let anywhere = request.requisite.is_empty() && request.preferred.is_empty();
            let requirement = wire::TopologyRequirement {
                requisite: topologies(request.requisite),
                preferred: topologies(request.preferred),
            };
            let request = wire::CreateVolumeRequest {
                name: request.name,
                capacity_range: Some(write_capacity(request.capacity)),
                volume_capabilities: request.capabilities.into_iter().map(write_capability).collect(),
                parameters: map(request.parameters),
                secrets: map(request.secrets.0),
                volume_content_source: request.source.map(write_source),
                accessibility_requirements: (!anywhere).then_some(requirement),
                mutable_parameters: Default::default(),
            };
            read_volume(answer(self.controller().create_volume(request)).await?.volume)
        })
    }

    fn delete_volume(&self, volume_id: &str, secrets: Secrets) -> BoxFuture<'_, Result<(), Error>> {
        let request = wire::DeleteVolumeRequest { volume_id: volume_id.to_owned(), secrets: map(secrets.0) };
        Box::pin(async move { answer(self.controller().delete_volume(request)).await.map(|_| ()) })
    }

    fn controller_publish(&self, request: ControllerPublish) -> BoxFuture<'_, Result<Attributes, Error>> {
        Box::pin(async move {
            let request = wire::ControllerPublishVolumeRequest {
                volume_id: request.volume_id,
                node_id: request.node_id,
                volume_capability: Some(write_capability(request.capability)),
                readonly: request.readonly,
                secrets: map(request.secrets.0),
                volume_context: map(request.context),
            };
            let done = answer(self.controller().controller_publish_volume(request)).await?;
            Ok(attributes(done.publish_context))
        })
    }

    fn controller_unpublish(
        &self,
        volume_id: &str,
        node_id: &str,
        secrets: Secrets,
    ) -> BoxFuture<'_, Result<(), Error>> {
        let request = wire::ControllerUnpublishVolumeRequest {
            volume_id: volume_id.to_owned(),
            node_id: node_id.to_owned(),
            secrets: map(secrets.0),
        };
        Box::pin(
            async move { answer(self.controller().controller_unpublish_volume(request)).await.map(|_| ()) },
        )
    }

    fn validate_capabilities(
        &self,
        volume_id: &str,
        context: Attributes,
        capabilities: Vec<VolumeCapability>,
    ) -> BoxFuture<'_, Result<Option<String>, Error>> {
        let request = wire::ValidateVolumeCapabilitiesRequest {
            volume_id: volume_id.to_owned(),
            volume_context: map(context),
            volume_capabilities: capabilities.into_iter().map(write_capability).collect(),
            ..Default::default()
        };
        Box::pin(async move {
            let found = answer(self.controller().validate_volume_capabilities(request)).await?;
            Ok(found.confirmed.is_none().then_some(found.message))
        })
    }

    fn list_volumes(&self, max: i32, token: &str) -> BoxFuture<'_, Result<Page<ListedVolume>, Error>> {
        let request = wire::ListVolumesRequest { max_entries: max, starting_token: token.to_owned() };
        Box::pin(async move {
            let page = answer(self.controller().list_volumes(request)).await?;
            let entry = |entry: wire::list_volumes_response::Entry| {
                let status = entry.status.unwrap_or_default();
                let condition = status.volume_condition.unwrap_or_default();
                Ok(ListedVolume {
                    volume: read_volume(entry.volume)?,
                    published_nodes: status.published_node_ids,
                    abnormal: condition.abnormal.then_some(condition.message),
                })
            };
            let items = page.entries.into_iter().map(entry).collect::<Result<_, Error>>()?;
            Ok(Page { items, next_token: page.next_token })
        })
    }

    fn capacity(&self, parameters: Attributes, topology: Attributes) -> BoxFuture<'_, Result<i64, Error>> {
        Box::pin(async move {
            let request = wire::GetCapacityRequest {
                volume_capabilities: Vec::new(),
                parameters: map(parameters),
                accessible_topology: (!topology.is_empty()).then(|| write_topology(topology)),
            };
            Ok(answer(self.controller().get_capacity(request)).await?.available_capacity)
        })
    }

    fn create_snapshot(
        &self,
        source_volume_id: &str,
        name: &str,
        parameters: Attributes,
        secrets: Secrets,
    ) -> BoxFuture<'_, Result<Snapshot, Error>> {
        let request = wire::CreateSnapshotRequest {
            source_volume_id: source_volume_id.to_owned(),
            name: name.to_owned(),
            secrets: map(secrets.0),
            parameters: map(parameters),
        };
        Box::pin(
            async move { read_snapshot(answer(self.controller().create_snapshot(request)).await?.snapshot) },
        )
    }

    fn delete_snapshot(&self, snapshot_id: &str, secrets: Secrets) -> BoxFuture<'_, Result<(), Error>> {
        let request =
            wire::DeleteSnapshotRequest { snapshot_id: snapshot_id.to_owned(), secrets: map(secrets.0) };
        Box::pin(async move { answer(self.controller().delete_snapshot(request)).await.map(|_| ()) })
    }

    fn list_snapshots(
        &self,
        filter: SnapshotFilter,
        max: i32,
        token: &str,
    ) -> BoxFuture<'_, Result<Page<Snapshot>, Error>> {
        let request = wire::ListSnapshotsRequest {
            max_entries: max,
            starting_token: token.to_owned(),
            source_volume_id: filter.source_volume_id,
            snapshot_id: filter.snapshot_id,
            secrets: Default::default(),
        };
        Box::pin(async move {
            let page = answer(self.controller().list_snapshots(request)).await?;
            let items = page.entries.into_iter().map(|entry| read_snapshot(entry.snapshot));
            Ok(Page { items: items.collect::<Result<_, Error>>()?, next_token: page.next_token })
        })
    }

    fn expand_volume(
        &self,
        volume_id: &str,
        capacity: CapacityRange,
        secrets: Secrets,
    ) -> BoxFuture<'_, Result<Expanded, Error>> {
        let request = wire::ControllerExpandVolumeRequest {
            volume_id: volume_id.to_owned(),
            capacity_range: Some(write_capacity(capacity)),
            secrets: map(secrets.0),
            volume_capability: None,
        };
        Box::pin(async move {
            let done = answer(self.controller().controller_expand_volume(request)).await?;
            let node_expansion_required = done.node_expansion_required;
            Ok(Expanded { capacity_bytes: done.capacity_bytes, node_expansion_required })
        })
    }

    fn modify_volume(
        &self,
        volume_id: &str,
        parameters: Attributes,
        secrets: Secrets,
    ) -> BoxFuture<'_, Result<(), Error>> {
        let request = wire::ControllerModifyVolumeRequest {
            volume_id: volume_id.to_owned(),
            secrets: map(secrets.0),
            mutable_parameters: map(parameters),
        };
        Box::pin(async move { answer(self.controller().controller_modify_volume(request)).await.map(|_| ()) })
    }
}

impl Node for CsiClient {
    fn node_capabilities(&self) -> BoxFuture<'_, Result<BTreeSet<NodeCapability>, Error>> {
        Box::pin(async move {
            use wire::node_service_capability::Type;
            let request = wire::NodeGetCapabilitiesRequest {};
            let found = answer(self.node().node_get_capabilities(request)).await?.capabilities;
            let known = |capability: wire::NodeServiceCapability| {
                let Type::Rpc(rpc) = capability.r#type?;
                NODE.iter().find(|(_, theirs)| *theirs == rpc.r#type()).map(|(ours, _)| *ours)
            };
            Ok(found.into_iter().filter_map(known).collect())
        })
    }

    fn node_info(&self) -> BoxFuture<'_, Result<NodeInfo, Error>> {
        Box::pin(async move {
            let info = answer(self.node().node_get_info(wire::NodeGetInfoRequest {})).await?;
            Ok(NodeInfo {
                node_id: info.node_id,
                max_volumes: info.max_volumes_per_node,
                topology: info.accessible_topology.map(read_topology).unwrap_or_default(),
            })
        })
    }

    fn stage(&self, request: NodeStage) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let request = wire::NodeStageVolumeRequest {
                volume_id: request.volume_id,
                publish_context: map(request.publish_context),
                staging_target_path: text(&request.staging_path)?,
                volume_capability: Some(write_capability(request.capability)),
                secrets: map(request.secrets.0),
                volume_context: map(request.context),
            };
            answer(self.node().node_stage_volume(request)).await.map(|_| ())
        })
    }

    fn unstage(&self, volume_id: &str, staging_path: &Path) -> BoxFuture<'_, Result<(), Error>> {
        let (volume_id, path) = (volume_id.to_owned(), text(staging_path));
        Box::pin(async move {
            let request = wire::NodeUnstageVolumeRequest { volume_id, staging_target_path: path? };
            answer(self.node().node_unstage_volume(request)).await.map(|_| ())
        })
    }

    fn publish(&self, request: NodePublish) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let staging = request.staging_path.as_deref().map(text).transpose()?;
            let request = wire::NodePublishVolumeRequest {
                volume_id: request.volume_id,
                publish_context: map(request.publish_context),
                staging_target_path: staging.unwrap_or_default(),
                target_path: text(&request.target_path)?,
                volume_capability: Some(write_capability(request.capability)),
                readonly: request.readonly,
                secrets: map(request.secrets.0),
                volume_context: map(request.context),
            };
            answer(self.node().node_publish_volume(request)).await.map(|_| ())
        })
    }

    fn unpublish(&self, volume_id: &str, target_path: &Path) -> BoxFuture<'_, Result<(), Error>> {
        let (volume_id, path) = (volume_id.to_owned(), text(target_path));
        Box::pin(async move {
            let request = wire::NodeUnpublishVolumeRequest { volume_id, target_path: path? };
            answer(self.node().node_unpublish_volume(request)).await.map(|_| ())
        })
    }

    fn volume_stats(&self, volume_id: &str, volume_path: &Path) -> BoxFuture<'_, Result<VolumeStats, Error>> {
        let (volume_id, path) = (volume_id.to_owned(), text(volume_path));
        Box::pin(async move {
            let request = wire::NodeGetVolumeStatsRequest {
                volume_id,
                volume_path: path?,
                staging_target_path: String::new(),
            };
            Ok(read_stats(&answer(self.node().node_get_volume_stats(request)).await?.usage))
        })
    }

    fn node_expand(&self, request: NodeExpand) -> BoxFuture<'_, Result<i64, Error>> {
        Box::pin(async move {
            let request = wire::NodeExpandVolumeRequest {
                volume_id: request.volume_id,
                volume_path: text(&request.volume_path)?,
                capacity_range: Some(write_capacity(request.capacity)),
                secrets: map(request.secrets.0),
                ..Default::default()
            };
            Ok(answer(self.node().node_expand_volume(request)).await?.capacity_bytes)
        })
    }
}
