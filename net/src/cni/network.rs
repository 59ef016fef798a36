//! Pod networking by plugin binaries: the [`Network`] port over a network configuration, with the results of ADD kept on disk.

use super::config::NetworkConfig;
use super::exec::{Call, PluginPaths};
use super::result::CniResult;
use crate::port::{Network, PodAddresses, PodAttachment};
use crate::{Error, Reason};
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Where plugins are and how they are run.
#[derive(Clone, Debug)]
pub struct CniOptions {
    /// Folders of plugin binaries.
    pub paths: PluginPaths,
    /// Folder in which results are kept; made where it is missing.
    pub cache_dir: PathBuf,
    /// The interface made in the pod.
    pub interface: String,
    /// How long one plugin may take.
    pub timeout: Duration,
}

impl CniOptions {
    /// The usual folders, `eth0`, 30 s, and results in `cache_dir`.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        CniOptions {
            paths: PluginPaths::default(),
            cache_dir: cache_dir.into(),
            interface: "eth0".to_owned(),
            timeout: Duration::from_secs(30),
        }
    }
}

/// A network made by CNI plugins.
#[derive(Clone, Debug)]
pub struct CniNetwork {
    config: NetworkConfig,
    options: CniOptions,
}

/// What is kept of an ADD until its DEL.
struct Kept {
    result: Value,
    config: NetworkConfig,
}

impl CniNetwork {
    /// A network of this configuration.
    pub fn new(config: NetworkConfig, options: CniOptions) -> Self {
        CniNetwork { config, options }
    }

    /// The configuration.
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }

    async fn add(&self, pod: &PodAttachment) -> Result<PodAddresses, Error> {
        if let Some(kept) = self.kept(pod)? {
            return addresses(kept.result);
        }
        let mut previous = Value::Null;
        for plugin in &self.config.plugins {
            match self.call(&self.config, plugin, "ADD", pod, &previous).await {
                // A plugin that chains without a result of its own passes the one before on.
                Ok(Value::Null) => {}
                Ok(result) => previous = result,
                Err(e) => {
                    // What the plugins before this one did is undone; the first error is the one to tell.
                    let undone = self.delete_all(&self.config, pod, &Value::Null).await;
                    if let Err(also) = undone {
                        tracing::warn!(sandbox = pod.sandbox_id, error = %also, "cleaning up after a failed ADD failed too");
                    }
                    return Err(e);
                }
            }
        }
        self.keep(pod, &previous)?;
        addresses(previous)
    }

    async fn check(&self, pod: &PodAttachment) -> Result<PodAddresses, Error> {
        let kept = self.kept(pod)?.ok_or_else(|| {
            Error::new(Reason::NotFound, format!("no attachment of sandbox {} is known", pod.sandbox_id))
        })?;
        // CHECK came with 0.4.0.
        if !kept.config.disable_check && !kept.config.cni_version.starts_with("0.3.") {
            for plugin in &kept.config.plugins {
                self.call(&kept.config, plugin, "CHECK", pod, &kept.result).await?;
            }
        }
        addresses(kept.result)
    }

    async fn delete(&self, pod: &PodAttachment) -> Result<(), Error> {
        // The configuration of the ADD counts, even where the folder has another one by now.
        let kept = self.kept(pod)?;
        let (config, result) = kept.map_or((self.config.clone(), Value::Null), |k| (k.config, k.result));
        self.delete_all(&config, pod, &result).await?;
        match std::fs::remove_file(self.cache_file(pod)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(&e)),
            _ => Ok(()),
        }
    }

    /// DEL of every plugin in reverse, going on after an error; gives the first one.
    async fn delete_all(
        &self,
        config: &NetworkConfig,
        pod: &PodAttachment,
        result: &Value,
    ) -> Result<(), Error> {
        let mut first = Ok(());
        for plugin in config.plugins.iter().rev() {
            match self.call(config, plugin, "DEL", pod, result).await {
                Err(e) if first.is_ok() && e.reason() != Reason::NotFound => first = Err(e),
                _ => {}
            }
        }
        first
    }

    async fn call(
        &self,
        network: &NetworkConfig,
        plugin: &Map<String, Value>,
        command: &'static str,
        pod: &PodAttachment,
        previous: &Value,
    ) -> Result<Value, Error> {
        let config = plugin_config(network, plugin, pod, previous);
        let call = Call {
            paths: &self.options.paths,
            plugin: plugin.get("type").and_then(Value::as_str).unwrap_or(""),
            command,
            container_id: &pod.sandbox_id,
            netns: pod.netns.as_deref().unwrap_or(""),
            interface: &self.options.interface,
            args: &kubernetes_args(pod),
            config: &config,
            timeout: self.options.timeout,
        };
        call.run().await
    }

    fn cache_file(&self, pod: &PodAttachment) -> PathBuf {
        let name = format!("{}-{}-{}", self.config.name, pod.sandbox_id, self.options.interface);
        self.options.cache_dir.join("results").join(name)
    }

    fn keep(&self, pod: &PodAttachment, result: &Value) -> Result<(), Error> {
        let file = self.cache_file(pod);
        let document = json!({
            "kind": "cniCacheV1",
            "containerId": pod.sandbox_id,
            "ifName": self.options.interface,
            "networkName": self.config.name,
            "config": {
                "cniVersion": self.config.cni_version,
                "name": self.config.name,
                "disableCheck": self.config.disable_check,
                "plugins": self.config.plugins,
            },
            "result": result,
        });
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(|e| io(&e))?;
        }
        // Written aside and renamed: a crash leaves the whole file or none.
        let aside = file.with_extension("tmp");
        std::fs::write(&aside, document.to_string()).map_err(|e| io(&e))?;
        std::fs::rename(&aside, &file).map_err(|e| io(&e))
    }

    fn kept(&self, pod: &PodAttachment) -> Result<Option<Kept>, Error> {
        let bytes = match std::fs::read(self.cache_file(pod)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(&e)),
        };
        let damaged = |e: serde_json::Error| {
            Error::new(Reason::Failed, format!("{} is damaged: {e}", self.cache_file(pod).display()))
        };
        let mut document: Value = serde_json::from_slice(&bytes).map_err(damaged)?;
        let config = NetworkConfig::parse(document["config"].to_string().as_bytes())?;
        Ok(Some(Kept { result: document["result"].take(), config }))
    }
}

fn io(e: &std::io::Error) -> Error {
    Error::new(Reason::Failed, format!("the kept result: {e}"))
}

fn addresses(result: Value) -> Result<PodAddresses, Error> {
    Ok(PodAddresses { ips: CniResult::parse(result)?.ips.into_iter().map(|ip| ip.address).collect() })
}

/// What kubelets tell plugins about the pod.
fn kubernetes_args(pod: &PodAttachment) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        pod.namespace, pod.name, pod.sandbox_id, pod.uid
    )
}

/// A plugin's configuration as it goes to its standard input: the network's name and version, the capabilities that it declares, and the
/// result so far.
fn plugin_config(
    network: &NetworkConfig,
    plugin: &Map<String, Value>,
    pod: &PodAttachment,
    previous: &Value,
) -> Value {
    let mut config = plugin.clone();
    config.insert("cniVersion".to_owned(), json!(network.cni_version));
    config.insert("name".to_owned(), json!(network.name));
    let wants = |capability: &str| {
        plugin.get("capabilities").and_then(|c| c.get(capability)).and_then(Value::as_bool).unwrap_or(false)
    };
    let mut runtime = Map::new();
    if wants("portMappings") {
        let ports = pod.ports.iter().map(|p| {
            let mut port = json!({
                "hostPort": p.host_port, "containerPort": p.container_port, "protocol": p.protocol.to_lowercase(),
            });
            if let Some(ip) = p.host_ip {
                port["hostIP"] = json!(ip);
            }
            port
        });
        runtime.insert("portMappings".to_owned(), ports.collect());
    }
    if wants("bandwidth")
        && let Some(bandwidth) = bandwidth(pod)
    {
        runtime.insert("bandwidth".to_owned(), bandwidth);
    }
    if wants("io.kubernetes.cri.pod-annotations") {
        runtime.insert("io.kubernetes.cri.pod-annotations".to_owned(), json!(pod.annotations));
    }
    if !runtime.is_empty() {
        config.insert("runtimeConfig".to_owned(), Value::Object(runtime));
    }
    if !previous.is_null() {
        config.insert("prevResult".to_owned(), previous.clone());
    }
    Value::Object(config)
}

/// The limits of `kubernetes.io/ingress-bandwidth` and `kubernetes.io/egress-bandwidth`, in bits a second.
fn bandwidth(pod: &PodAttachment) -> Option<Value> {
    let read = |name: &str| {
        let text = pod.annotations.get(&format!("kubernetes.io/{name}-bandwidth"))?;
        kubewright_core::quantity::Quantity::parse(text).ok().map(|q| q.value())
    };
    let (ingress, egress) = (read("ingress"), read("egress"));
    // The burst is what upstream's runtimes give: no limit but the field's own.
    let burst = i64::from(i32::MAX);
    let mut limits = Map::new();
    for (direction, rate) in [("ingress", ingress), ("egress", egress)] {
        if let Some(rate) = rate {
            limits.insert(format!("{direction}Rate"), json!(rate));
            limits.insert(format!("{direction}Burst"), json!(burst));
        }
    }
    (!limits.is_empty()).then_some(Value::Object(limits))
}

impl Network for CniNetwork {
    fn setup_pod(&self, pod: &PodAttachment) -> BoxFuture<'_, Result<PodAddresses, Error>> {
        let pod = pod.clone();
        Box::pin(async move { self.add(&pod).await })
    }

    fn check_pod(&self, pod: &PodAttachment) -> BoxFuture<'_, Result<PodAddresses, Error>> {
        let pod = pod.clone();
        Box::pin(async move { self.check(&pod).await })
    }

    fn teardown_pod(&self, pod: &PodAttachment) -> BoxFuture<'_, Result<(), Error>> {
        let pod = pod.clone();
        Box::pin(async move { self.delete(&pod).await })
    }

    /// Every plugin must be there; STATUS is asked of configurations from 1.1.0 on.
    fn status(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            for plugin in &self.config.plugins {
                self.options.paths.find(plugin.get("type").and_then(Value::as_str).unwrap_or(""))?;
                if self.config.cni_version == "1.1.0" {
                    let nobody = PodAttachment::default();
                    self.call(&self.config, plugin, "STATUS", &nobody, &Value::Null).await?;
                }
            }
            Ok(())
        })
    }

    fn needs_netns(&self) -> bool {
        true
    }
}
