//! A cluster's life: killed and started again, stopped by signals; nothing lost, and nothing left behind.

use crate::common::{Folder, Launch, left_of, processes_of};
use crate::{client, config_maps, create_map, delete_demo, ready_pods, until};
use k8s_openapi::api::core::v1::Pod;
use kubewright::client::Client;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;

const WRITERS: usize = 8;

/// What must be the same after a restart: a pod's uid, address, node, and its container's id and restarts.
fn identity(pod: &Pod) -> (String, String, String, String, i32) {
    let status = pod.status.clone().unwrap_or_default();
    let container = status.container_statuses.unwrap_or_default().remove(0);
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
    (
        pod.metadata.uid.clone().unwrap_or_default(),
        status.pod_ip.unwrap_or_default(),
        node.unwrap_or_default(),
        container.container_id.unwrap_or_default(),
        container.restart_count,
    )
}

/// The supervisors of containers and pods, by process id.
fn supervisors(folder: &Path) -> Vec<i32> {
    let all = processes_of(folder).into_iter().filter(|(_, line)| line.starts_with("kubewright-runtime"));
    all.map(|(pid, _)| pid).collect()
}

/// Creates ConfigMaps as fast as it can until the server is gone; gives the names and uids that were acknowledged.
async fn write_on(client: Client, writer: usize, count: Arc<AtomicUsize>) -> Vec<(String, String)> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let name = format!("map-{writer}-{number}");
        let Ok(made) = create_map(&client, &name, &name).await else { break };
        acknowledged.push((name, made.metadata.uid.clone().unwrap_or_default()));
        count.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cluster_goes_on_where_it_was() {
    let folder = Folder::new();
    let launch = || Launch::new(folder.path()).args(&["--nodes", "2"]).spawn().printed("stays up");
    let cluster = launch();
    let before = client(&cluster.kubeconfig());
    let pods: Vec<_> = ready_pods(&before, 3).await.iter().map(|p| identity(p)).collect();
    let processes = supervisors(folder.path());
    assert_eq!(processes.len(), 6, "three pods and three containers: {:?}", processes_of(folder.path()));

    let count = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write_on(before.clone(), writer, count.clone()));
    }
    until(
        "writes",
        async || if count.load(Ordering::Relaxed) > 200 { Ok(()) } else { Err("too few".into()) },
    )
    .await;
    assert_eq!(cluster.end(Signal::SIGKILL), None, "ended by the signal");
    let acknowledged: Vec<_> = writers.join_all().await.concat();

    let cluster = launch();
    let after = client(&cluster.kubeconfig());
    let found = config_maps(&after).list(Default::default()).await.expect("a list").items;
    let found: BTreeMap<_, _> = found.iter().map(|m| (m.metadata.name.clone(), m)).collect();
    for (name, uid) in &acknowledged {
        let map =
            found.get(&Some(name.clone())).unwrap_or_else(|| panic!("{name} was acknowledged and is lost"));
        assert_eq!((map.metadata.uid.as_ref(), &map.data.as_ref().expect("data")["text"]), (Some(uid), name));
    }
    println!("{} acknowledged ConfigMaps are there", acknowledged.len());
    let pods_after: Vec<_> = ready_pods(&after, 3).await.iter().map(|p| identity(p)).collect();
    assert_eq!(pods_after, pods, "pods and containers went on");
    assert_eq!(supervisors(folder.path()), processes, "none was started anew");

    delete_demo(&after).await;
    assert_eq!(cluster.end(Signal::SIGTERM), Some(0));
    assert_eq!(left_of(folder.path()), Vec::<String>::new());
}

#[test]
fn ctrl_c_ends_it_cleanly() {
    let folder = Folder::new();
    let cluster = Launch::new(folder.path()).args(&["--runtime", "fake"]).spawn().printed("stays up");
    assert_eq!(cluster.end(Signal::SIGINT), Some(0));
    let log = std::fs::read_to_string(folder.path().join("log")).expect("a log");
    assert!(log.trim_end().ends_with("stopped"), "{log}");
    assert_eq!(left_of(folder.path()), Vec::<String>::new());
}
