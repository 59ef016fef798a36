//! The client against a driver that is served in this process.

use super::port::*;
use super::{CsiClient, CsiNodeMounter, CsiServer, DirectoryDriver, serve};
use crate::{CsiMounter as _, CsiVolume, Error, Reason};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

struct Bench {
    folder: tempfile::TempDir,
    client: CsiClient,
    server: Option<CsiServer>,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let client = CsiClient::new(&format!("unix://{}", folder.path().join("csi.sock").display())).unwrap();
        let mut bench = Bench { folder, client, server: None };
        bench.start();
        bench
    }

    fn start(&mut self) {
        let driver = DirectoryDriver::new("dir.csi.test", "node-1", self.path("volumes"));
        self.server = Some(serve(Arc::new(driver), self.path("csi.sock")).unwrap());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn create(&self, name: &str, bytes: i64) -> Result<Volume, Error> {
        let capacity = CapacityRange { required_bytes: bytes, limit_bytes: 0 };
        self.client
            .create_volume(CreateVolume { name: name.into(), capacity, ..CreateVolume::default() })
            .await
    }

    fn csi_volume(&self, handle: &str, pod: &str) -> CsiVolume {
        CsiVolume {
            driver: "dir.csi.test".into(),
            volume_handle: handle.into(),
            fs_type: String::new(),
            read_only: false,
            attributes: BTreeMap::new(),
            access_modes: vec!["ReadWriteOnce".into()],
            mount_options: vec![],
            secrets: BTreeMap::from([("password".into(), b"x".to_vec())]),
            staging_dir: self.path("staging").join(handle).join("globalmount"),
            target_dir: self.path(pod).join(handle).join("mount"),
            ephemeral: false,
        }
    }
}

fn mount(access_mode: AccessMode) -> VolumeCapability {
    let access_type = AccessType::Mount {
        fs_type: "".into(),
        mount_flags: vec!["noatime".into()],
        volume_mount_group: "7".into(),
    };
    VolumeCapability { access_type, access_mode }
}

#[tokio::test]
async fn a_driver_says_what_it_is() {
    let bench = Bench::new();
    let info = bench.client.plugin_info().await.unwrap();
    assert_eq!((info.name.as_str(), info.vendor_version.is_empty()), ("dir.csi.test", false));
    assert!(bench.client.probe().await.unwrap());
    let direct = DirectoryDriver::new("dir.csi.test", "node-1", bench.path("volumes"));
    assert_eq!(bench.client.plugin_capabilities().await, direct.plugin_capabilities().await);
    assert_eq!(bench.client.controller_capabilities().await, direct.controller_capabilities().await);
    assert_eq!(bench.client.node_capabilities().await, direct.node_capabilities().await);
    assert_eq!(bench.client.node_info().await.unwrap().node_id, "node-1");
}

#[tokio::test]
async fn volumes_come_and_go() {
    let bench = Bench::new();
    let first = bench.create("vol-a", 100).await.unwrap();
    assert_eq!((first.id.as_str(), first.capacity_bytes), ("vol-a", 100));
    assert_eq!(bench.create("vol-a", 50).await.unwrap(), first);
    assert_eq!(bench.create("vol-a", 200).await.unwrap_err().reason(), Reason::Invalid);
    std::fs::write(bench.path("volumes/vol-a/data/file"), "hello").unwrap();
    let source = Some(ContentSource::Volume("vol-a".into()));
    let clone = CreateVolume { name: "vol-b".into(), source: source.clone(), ..CreateVolume::default() };
    assert_eq!(bench.client.create_volume(clone).await.unwrap().source, source);
    assert_eq!(std::fs::read_to_string(bench.path("volumes/vol-b/data/file")).unwrap(), "hello");
    let grown = CapacityRange { required_bytes: 300, limit_bytes: 0 };
    let grown = bench.client.expand_volume("vol-a", grown, Secrets::default()).await.unwrap();
    assert_eq!(grown, Expanded { capacity_bytes: 300, node_expansion_required: false });
    let page = bench.client.list_volumes(1, "").await.unwrap();
    assert_eq!((page.items[0].volume.id.as_str(), page.next_token.as_str()), ("vol-a", "vol-b"));
    let page = bench.client.list_volumes(1, &page.next_token).await.unwrap();
    assert_eq!((page.items[0].volume.id.as_str(), page.next_token.as_str()), ("vol-b", ""));
    assert!(bench.client.capacity(Attributes::new(), Attributes::new()).await.unwrap() > 0);
    for _ in 0..2 {
        bench.client.delete_volume("vol-a", Secrets::default()).await.unwrap();
    }
    assert!(!bench.path("volumes/vol-a").exists());
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let bench = Bench::new();
    for name in ["", "../x", ".hidden", "a/b", "a b"] {
        let reason = bench.create(name, 1).await.map_err(|error| error.reason());
        assert_eq!(reason.err(), Some(Reason::Invalid), "{name:?}");
    }
    let both = CapacityRange { required_bytes: 2, limit_bytes: 1 };
    let request = CreateVolume { name: "a".into(), capacity: both, ..CreateVolume::default() };
    assert_eq!(bench.client.create_volume(request).await.unwrap_err().reason(), Reason::Invalid);
    let missing = bench.client.expand_volume("none", CapacityRange::default(), Secrets::default()).await;
    assert_eq!(missing.unwrap_err().reason(), Reason::NotFound);
    let snapshot = bench.client.create_snapshot("a", "s", Attributes::new(), Secrets::default()).await;
    assert_eq!(snapshot.unwrap_err().reason(), Reason::Unsupported);
    let snapshots = bench.client.list_snapshots(SnapshotFilter::default(), 0, "").await;
    assert_eq!(snapshots.unwrap_err().reason(), Reason::Unsupported);
    let relative = bench.client.unpublish("a", Path::new("relative")).await;
    assert_eq!(relative.unwrap_err().reason(), Reason::Invalid);
    for endpoint in ["", "csi.sock", "tcp://127.0.0.1:1"] {
        assert_eq!(
            CsiClient::new(endpoint).map(|_| ()).unwrap_err().reason(),
            Reason::Invalid,
            "{endpoint:?}"
        );
    }
}

#[tokio::test]
async fn capabilities_travel_whole() {
    let bench = Bench::new();
    bench.create("a", 1).await.unwrap();
    let modes = [
        AccessMode::SingleNodeWriter,
        AccessMode::SingleNodeReaderOnly,
        AccessMode::MultiNodeReaderOnly,
        AccessMode::MultiNodeSingleWriter,
        AccessMode::MultiNodeMultiWriter,
        AccessMode::SingleNodeSingleWriter,
        AccessMode::SingleNodeMultiWriter,
    ];
    for mode in modes {
        let there = super::convert::write_capability(mount(mode));
        assert_eq!(super::convert::read_capability(Some(there)), Ok(mount(mode)));
    }
    let fine = bench.client.validate_capabilities("a", Attributes::new(), modes.map(mount).to_vec()).await;
    assert_eq!(fine, Ok(None));
    let block =
        VolumeCapability { access_type: AccessType::Block, access_mode: AccessMode::SingleNodeWriter };
    let lacks = bench.client.validate_capabilities("a", Attributes::new(), vec![block]).await.unwrap();
    assert_eq!(lacks.as_deref(), Some("there are no block volumes"));
    assert!(super::convert::read_capability(None).is_err());
    assert!(super::convert::read_capability(Some(Default::default())).is_err());
}

#[tokio::test]
async fn volumes_are_published_to_pods() {
    let bench = Bench::new();
    bench.create("vol", 1).await.unwrap();
    let mounter = CsiNodeMounter::new();
    let socket = bench.path("csi.sock").display().to_string();
    assert_eq!(mounter.register_socket(&socket).await.unwrap(), "dir.csi.test");
    let (one, two) = (bench.csi_volume("vol", "pod-1"), bench.csi_volume("vol", "pod-2"));
    for volume in [&one, &two, &one] {
        mounter.publish(volume.clone()).await.unwrap();
    }
    std::fs::write(one.target_dir.join("file"), "hello").unwrap();
    assert_eq!(std::fs::read_to_string(two.target_dir.join("file")).unwrap(), "hello");
    let stats = bench.client.volume_stats("vol", &one.target_dir).await.unwrap();
    assert!(stats.total_bytes > 0 && stats.total_bytes >= stats.available_bytes, "{stats:?}");
    // Another mounter, as after a restart, undoes it.
    let mounter = CsiNodeMounter::new();
    mounter.register("dir.csi.test", Arc::new(bench.client.clone()));
    for _ in 0..2 {
        mounter.unpublish(&one.target_dir).await.unwrap();
    }
    assert!(!one.target_dir.exists() && two.target_dir.join("file").exists() && two.staging_dir.exists());
    mounter.unpublish(&two.target_dir).await.unwrap();
    assert!(!two.target_dir.exists() && !two.staging_dir.exists());
    assert_eq!(std::fs::read_to_string(bench.path("volumes/vol/data/file")).unwrap(), "hello");
}

#[tokio::test]
async fn a_volume_may_be_read_only() {
    let bench = Bench::new();
    bench.create("vol", 1).await.unwrap();
    let mounter = CsiNodeMounter::new();
    mounter.register("dir.csi.test", Arc::new(bench.client.clone()));
    let volume = CsiVolume { read_only: true, ..bench.csi_volume("vol", "pod") };
    match mounter.publish(volume.clone()).await {
        Ok(()) => assert!(std::fs::write(volume.target_dir.join("file"), "x").is_err()),
        Err(error) => assert_eq!(error.reason(), Reason::Unsupported, "{error}"),
    }
    mounter.unpublish(&volume.target_dir).await.unwrap();
    assert!(!volume.target_dir.exists());
}

#[tokio::test]
async fn missing_drivers_and_volumes_are_told() {
    let mut bench = Bench::new();
    let mounter = CsiNodeMounter::new();
    let volume = bench.csi_volume("none", "pod");
    let error = mounter.publish(volume.clone()).await.unwrap_err();
    assert!(
        error.to_string().contains("dir.csi.test not found in the list of registered CSI drivers"),
        "{error}"
    );
    mounter.register("dir.csi.test", Arc::new(bench.client.clone()));
    let error = mounter.publish(volume.clone()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NotFound, "{error}");
    let odd = CsiVolume { access_modes: vec!["Sometimes".into()], ..volume.clone() };
    assert_eq!(mounter.publish(odd).await.unwrap_err().reason(), Reason::Invalid);
    // The driver dies and comes back: the client finds it again.
    bench.server = None;
    let error = loop {
        match bench.client.plugin_info().await {
            // The connection is still being wound up.
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Reason::NotReady, "{error}");
    bench.start();
    assert_eq!(bench.client.plugin_info().await.unwrap().name, "dir.csi.test");
    mounter.unpublish(&volume.target_dir).await.unwrap();
}

#[test]
fn secrets_are_not_printed() {
    let secrets = Secrets(BTreeMap::from([("user".to_owned(), "hidden".to_owned())]));
    assert!(!format!("{secrets:?}").contains("hidden"));
}
