//! The CNI executor with the real `bridge`, `host-local` and `portmap` plugins in network namespaces of this test.

use kubewright_net::cni::{CniNetwork, CniOptions, NetworkConfig, PluginPaths};
use kubewright_net::{Network, PodAttachment, PortMapping, Reason};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Says why the real plugins can't be used here.
fn missing() -> Option<&'static str> {
    let uid = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !uid.lines().any(|l| l.starts_with("Uid:") && l.split_whitespace().nth(2) == Some("0")) {
        return Some("this user is not root");
    }
    if PluginPaths::default().find("bridge").is_err() || PluginPaths::default().find("host-local").is_err() {
        return Some("the plugins are not installed");
    }
    if !Command::new("ip").args(["netns", "list"]).output().is_ok_and(|o| o.status.success()) {
        return Some("`ip netns` does not work");
    }
    None
}

/// A network namespace that goes with the value.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Self {
        let name = format!("kubewright-{name}-{}", std::process::id());
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Namespace(name)
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }

    fn addresses(&self) -> String {
        ip(&["-n", &self.0, "-o", "addr", "show"])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().expect("ip runs");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The real plugins, started inside the node's own network namespace so that bridges of this test stay in it.
fn plugins_in(node: &Namespace, folder: &Path) -> PluginPaths {
    use std::os::unix::fs::PermissionsExt;
    let real = PluginPaths::default();
    for plugin in ["bridge", "host-local", "portmap", "loopback"] {
        let Ok(binary) = real.find(plugin) else { continue };
        let script = format!("#!/bin/sh\nexec nsenter --net={} {} \"$@\"\n", node.path(), binary.display());
        let path = folder.join(plugin);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    PluginPaths(vec![folder.to_owned()])
}

struct Bench {
    node: Namespace,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(name: &str) -> Self {
        Bench { node: Namespace::new(name), folder: tempfile::tempdir().unwrap() }
    }

    fn options(&self) -> CniOptions {
        let binaries = self.folder.path().join("bin");
        std::fs::create_dir_all(&binaries).unwrap();
        CniOptions {
            paths: plugins_in(&self.node, &binaries),
            ..CniOptions::new(self.folder.path().join("cache"))
        }
    }

    fn config(&self, further: serde_json::Value) -> NetworkConfig {
        let mut plugins = vec![json!({
            "type": "bridge", "bridge": "kw0", "isGateway": true,
            "ipam": {"type": "host-local", "dataDir": self.folder.path().join("ipam"),
                "ranges": [[{"subnet": "10.88.77.0/29"}]], "routes": [{"dst": "0.0.0.0/0"}]},
        })];
        plugins.extend(further.as_array().cloned().unwrap_or_default());
        let list = json!({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins});
        NetworkConfig::parse(list.to_string().as_bytes()).unwrap()
    }
}

fn pod(id: &str, netns: &Namespace) -> PodAttachment {
    PodAttachment {
        sandbox_id: id.to_owned(),
        namespace: "default".to_owned(),
        name: id.to_owned(),
        uid: id.to_owned(),
        netns: Some(netns.path()),
        ..PodAttachment::default()
    }
}

fn results(bench: &Bench) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(bench.folder.path().join("cache/results"));
    folder.into_iter().flatten().flatten().map(|e| e.path()).collect()
}

#[tokio::test]
async fn add_check_and_del_with_the_real_bridge() {
    if let Some(why) = missing() {
        return println!("skipped: real CNI plugins because {why}");
    }
    let bench = Bench::new("n1");
    let network = CniNetwork::new(bench.config(json!([])), bench.options());
    network.status().await.unwrap();
    let (a, b) = (Namespace::new("a1"), Namespace::new("b1"));
    let (pod_a, pod_b) = (pod("a", &a), pod("b", &b));

    assert_eq!(network.check_pod(&pod_a).await.unwrap_err().reason(), Reason::NotFound);
    let first = network.setup_pod(&pod_a).await.unwrap();
    assert!(a.addresses().contains(&first.ips[0].to_string()), "{}", a.addresses());
    assert_eq!(network.setup_pod(&pod_a).await.unwrap(), first, "a second ADD gives the same");
    let second = network.setup_pod(&pod_b).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(network.check_pod(&pod_a).await.unwrap(), first);
    // The two pods reach each other over the bridge.
    let ping = Command::new("ip")
        .args(["netns", "exec", &a.0, "busybox", "ping", "-c", "1", "-W", "2", &second.ips[0].to_string()])
        .output();
    match ping {
        Ok(ping) if ping.status.code() != Some(255) => assert!(ping.status.success(), "{ping:?}"),
        _ => println!("skipped: ping between the pods because busybox is not installed"),
    }
    // Another instance, as after a restart, knows the attachment by its kept result.
    let again = CniNetwork::new(bench.config(json!([])), bench.options());
    assert_eq!(again.check_pod(&pod_a).await.unwrap(), first);
    ip(&["-n", &a.0, "link", "del", "eth0"]);
    assert!(again.check_pod(&pod_a).await.is_err(), "the interface is gone");
    for pod in [&pod_a, &pod_b, &pod_a] {
        again.teardown_pod(pod).await.unwrap();
    }
    assert!(!b.addresses().contains("eth0"));
    assert!(results(&bench).is_empty());
}

#[tokio::test]
async fn addresses_run_out_and_come_back() {
    if let Some(why) = missing() {
        return println!("skipped: real CNI plugins because {why}");
    }
    let bench = Bench::new("n2");
    let network = CniNetwork::new(bench.config(json!([])), bench.options());
    let pods: Vec<(Namespace, String)> =
        (0..6).map(|n| (Namespace::new(&format!("x{n}")), format!("x{n}"))).collect();
    for (netns, id) in &pods[..5] {
        network.setup_pod(&pod(id, netns)).await.unwrap();
    }
    let (netns, id) = &pods[5];
    let full = network.setup_pod(&pod(id, netns)).await.unwrap_err();
    assert!(full.to_string().contains("no IP addresses available"), "{full}");
    assert_eq!(results(&bench).len(), 5, "nothing of the failed ADD is kept");
    network.teardown_pod(&pod("x0", &pods[0].0)).await.unwrap();
    network.setup_pod(&pod(id, netns)).await.unwrap();
}

#[tokio::test]
async fn a_failing_plugin_undoes_the_ones_before() {
    if let Some(why) = missing() {
        return println!("skipped: real CNI plugins because {why}");
    }
    let bench = Bench::new("n3");
    let network = CniNetwork::new(bench.config(json!([{"type": "no-such-plugin"}])), bench.options());
    assert_eq!(network.status().await.unwrap_err().reason(), Reason::Unsupported);
    let netns = Namespace::new("y");
    let e = network.setup_pod(&pod("y", &netns)).await.unwrap_err();
    assert!(e.to_string().contains("failed to find plugin \"no-such-plugin\""), "{e}");
    assert!(!netns.addresses().contains("eth0"), "the bridge plugin's work is undone");
    let missing = PodAttachment { netns: Some("/run/netns/none".to_owned()), ..pod("z", &netns) };
    let network = CniNetwork::new(bench.config(json!([])), bench.options());
    assert!(network.setup_pod(&missing).await.is_err());
}

#[tokio::test]
async fn host_ports_reach_the_pod() {
    if let Some(why) = missing() {
        return println!("skipped: real CNI plugins because {why}");
    }
    let bench = Bench::new("n4");
    let config = bench.config(json!([{"type": "portmap", "capabilities": {"portMappings": true}}]));
    let network = CniNetwork::new(config, bench.options());
    let netns = Namespace::new("p");
    let mut pod = pod("p", &netns);
    pod.ports =
        vec![PortMapping { host_port: 18080, container_port: 80, protocol: "TCP".to_owned(), host_ip: None }];
    match network.setup_pod(&pod).await {
        Ok(_) => network.teardown_pod(&pod).await.unwrap(),
        Err(e) => {
            assert!(e.to_string().contains("tables"), "{e}");
            println!("skipped: portmap because {e}");
        }
    }
}
