//! The environment of a container: services, `envFrom`, `env`, in upstream's order and with upstream's errors.

use crate::expand::expand;
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, Service};
use kubewright_storage::{NodeFacts, VolumeSource, fields};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why an environment can't be made; the container waits as `CreateContainerConfigError` with this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EnvError(pub String);

/// An ordered map of variables: a later value replaces an earlier one at its place.
#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
    at: BTreeMap<String, usize>,
}

impl Variables {
    fn set(&mut self, name: String, value: String) {
        match self.at.get(&name) {
            Some(i) => self.list[*i].1 = value,
            None => {
                self.at.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.at.get(name).map(|i| self.list[*i].1.as_str())
    }
}

/// What environments are made from.
pub(crate) struct EnvSources<'a> {
    /// ConfigMaps and Secrets.
    pub(crate) objects: &'a dyn VolumeSource,
    /// Values of downward fields.
    pub(crate) facts: &'a NodeFacts,
    /// The services of the pod's namespace, and the API server's own.
    pub(crate) services: &'a [Arc<Service>],
}

/// The environment of a container.
///
/// # Errors
/// A ConfigMap, Secret or key that is missing and not optional, or a field that can't be asked for.
pub(crate) async fn environment(
    pod: &Pod,
    container: &Container,
    sources: &EnvSources<'_>,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut vars = Variables::default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    let from_services = service_variables(pod, sources.services);
    let mut own = Variables::default();
    env_from(namespace, container, sources, &mut own).await?;
    for var in container.env.iter().flatten() {
        match value(pod, container, var, sources).await? {
            Some(Value::Plain(text)) => {
                // A reference sees what stands before it, then the services.
                let seen = |name: &str| own.get(name).or_else(|| from_services.get(name).map(String::as_str));
                let text = expand(&text, seen);
                own.set(var.name.clone(), text);
            }
            Some(Value::Taken(text)) => own.set(var.name.clone(), text),
            None => {}
        }
    }
    for (name, text) in own.list {
        vars.set(name, text);
    }
    for (name, text) in from_services {
        if vars.get(&name).is_none() {
            vars.set(name, text);
        }
    }
    Ok(vars.list)
}

async fn env_from(
    namespace: &str,
    container: &Container,
    sources: &EnvSources<'_>,
    vars: &mut Variables,
) -> Result<(), EnvError> {
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or("");
        let mut data: BTreeMap<String, String> = BTreeMap::new();
        if let Some(reference) = &source.config_map_ref {
            let name: &str = reference.name.as_ref();
            match fetch(sources.objects.config_map(namespace, name).await)? {
                Some(object) => data.extend(object.data.clone().unwrap_or_default()),
                None if reference.optional == Some(true) => {}
                None => return Err(missing("configmap", name)),
            }
        }
        if let Some(reference) = &source.secret_ref {
            let name: &str = reference.name.as_ref();
            match fetch(sources.objects.secret(namespace, name).await)? {
                Some(object) => data.extend(
                    object
                        .data
                        .iter()
                        .flatten()
                        .map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned())),
                ),
                None if reference.optional == Some(true) => {}
                None => return Err(missing("secret", name)),
            }
        }
        for (key, text) in data {
            let name = format!("{prefix}{key}");
            if is_variable_name(&name) {
                vars.set(name, text);
            }
        }
    }
    Ok(())
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b'=')
}

fn fetch<T>(result: Result<Option<Arc<T>>, kubewright_storage::Error>) -> Result<Option<Arc<T>>, EnvError> {
    result.map_err(|e| EnvError(e.to_string()))
}

fn missing(kind: &str, name: &str) -> EnvError {
    EnvError(format!("{kind} \"{name}\" not found"))
}

enum Value {
    /// Written in the pod: references in it are replaced.
    Plain(String),
    /// Taken from elsewhere: left as it is.
    Taken(String),
}

/// A variable's value; `None` where it is optional and missing, so that the variable does not exist.
async fn value(
    pod: &Pod,
    container: &Container,
    var: &EnvVar,
    sources: &EnvSources<'_>,
) -> Result<Option<Value>, EnvError> {
    let Some(from) = &var.value_from else {
        return Ok(Some(Value::Plain(var.value.clone().unwrap_or_default())));
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    if let Some(reference) = &from.field_ref {
        let text = fields::field(pod, &reference.field_path, sources.facts, true);
        return text.map(|t| Some(Value::Taken(t))).map_err(|e| EnvError(e.to_string()));
    }
    if let Some(reference) = &from.resource_field_ref {
        let name = reference.container_name.as_deref().filter(|n| !n.is_empty());
        let spec = pod.spec.as_ref();
        let mut all =
            spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
        let target = match name {
            Some(name) => {
                all.find(|c| c.name == name).ok_or_else(|| EnvError(format!("container {name} not found")))?
            }
            None => container,
        };
        let text = fields::resource(target, reference, sources.facts);
        return text.map(|t| Some(Value::Taken(t))).map_err(|e| EnvError(e.to_string()));
    }
    if let Some(reference) = &from.config_map_key_ref {
        let name: &str = reference.name.as_ref();
        let object = fetch(sources.objects.config_map(namespace, name).await)?;
        let found = object.as_ref().map(|o| o.data.as_ref().and_then(|d| d.get(&reference.key)).cloned());
        return key("configmap", "ConfigMap", namespace, name, &reference.key, reference.optional, found);
    }
    if let Some(reference) = &from.secret_key_ref {
        let name: &str = reference.name.as_ref();
        let object = fetch(sources.objects.secret(namespace, name).await)?;
        let found = object.as_ref().map(|o| {
            let bytes = o.data.as_ref().and_then(|d| d.get(&reference.key));
            bytes.map(|b| String::from_utf8_lossy(&b.0).into_owned())
        });
        return key("secret", "Secret", namespace, name, &reference.key, reference.optional, found);
    }
    Err(EnvError(format!("the source of variable {} is not supported", var.name)))
}

/// `found`: `None` without the object, `Some(None)` without the key.
fn key(
    resource: &str,
    kind: &str,
    namespace: &str,
    name: &str,
    key: &str,
    optional: Option<bool>,
    found: Option<Option<String>>,
) -> Result<Option<Value>, EnvError> {
    match found {
        Some(Some(text)) => Ok(Some(Value::Taken(text))),
        _ if optional == Some(true) => Ok(None),
        None => Err(missing(resource, name)),
        Some(None) => Err(EnvError(format!("couldn't find key {key} in {kind} {namespace}/{name}"))),
    }
}

/// The services whose variables a pod gets: all of its namespace, unless it wants no links; always the API server's.
fn service_variables(pod: &Pod, services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or("");
        let of = service.metadata.namespace.as_deref().unwrap_or("");
        if of == "default" && name == "kubernetes" {
            chosen.entry(name).or_insert(service);
        }
        if of == namespace && links {
            chosen.insert(name, service);
        }
    }
    chosen.into_iter().flat_map(|(name, service)| of_service(name, service)).collect()
}

fn of_service(name: &str, service: &Service) -> Vec<(String, String)> {
    let spec = service.spec.as_ref();
    let ip = spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or("");
    let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or(&[]);
    let Some(first) = ports.first().filter(|_| !ip.is_empty() && ip != "None") else { return Vec::new() };
    let prefix = name.to_uppercase().replace('-', "_");
    let mut out = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(n) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let n = n.to_uppercase().replace('-', "_");
            out.push((format!("{prefix}_SERVICE_PORT_{n}"), port.port.to_string()));
        }
    }
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    for (i, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        let base = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        if i == 0 {
            out.push((format!("{prefix}_PORT"), url.clone()));
        }
        out.push((base.clone(), url));
        out.push((format!("{base}_PROTO"), protocol.to_lowercase()));
        out.push((format!("{base}_PORT"), port.port.to_string()));
        out.push((format!("{base}_ADDR"), ip.to_owned()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Objects;
    use serde_json::{Value as Json, json};

    async fn env(container: Json, links: bool) -> Result<BTreeMap<String, String>, String> {
        let objects = Objects::from_json(&[
            json!({"kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "n"}, "data": {"k": "v", "a b": "bad", "B": "$(X)"}}),
            json!({"kind": "Secret", "metadata": {"name": "s", "namespace": "n"}, "data": {"p": "c2VjcmV0"}}),
        ]);
        let service = |ns: &str, name: &str, ip: &str| -> Arc<Service> {
            let ports =
                json!([{"name": "web-1", "port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]);
            Arc::new(
                serde_json::from_value(json!({"metadata": {"name": name, "namespace": ns},
                    "spec": {"clusterIP": ip, "ports": ports}}))
                .unwrap(),
            )
        };
        let services = [
            service("default", "kubernetes", "10.0.0.1"),
            service("n", "my-db", "10.0.0.2"),
            service("n", "none", "None"),
        ];
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [container], "enableServiceLinks": links}}))
        .unwrap();
        let facts = NodeFacts { pod_ips: vec!["10.1.1.1".into()], ..NodeFacts::default() };
        let sources = EnvSources { objects: &objects, facts: &facts, services: &services };
        let container = &pod.spec.as_ref().unwrap().containers[0];
        environment(&pod, container, &sources).await.map(|v| v.into_iter().collect()).map_err(|e| e.0)
    }

    #[tokio::test]
    async fn values_come_from_everywhere() {
        let vars = env(
            json!({"name": "c",
                "envFrom": [{"prefix": "CM_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}},
                    {"secretRef": {"name": "no", "optional": true}}],
                "env": [
                    {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(CM_k)$(MY_DB_SERVICE_HOST)$(LATER)$$(A)"},
                    {"name": "LATER", "value": "x"}, {"name": "A", "value": "2"},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "B"}}},
                    {"name": "OPT", "valueFrom": {"secretKeyRef": {"name": "s", "key": "none", "optional": true}}},
                ]}),
            true,
        )
        .await
        .unwrap();
        let check = |name: &str, wanted: Option<&str>| {
            assert_eq!(vars.get(name).map(String::as_str), wanted, "{name}")
        };
        check("A", Some("2"));
        check("B", Some("1v10.0.0.2$(LATER)$(A)"));
        check("CM_k", Some("v"));
        check("CM_a b", None);
        check("p", Some("secret"));
        check("IP", Some("10.1.1.1"));
        check("KEY", Some("$(X)"));
        check("OPT", None);
        check("KUBERNETES_SERVICE_HOST", Some("10.0.0.1"));
        check("KUBERNETES_SERVICE_PORT", Some("80"));
        check("MY_DB_SERVICE_PORT_WEB_1", Some("80"));
        check("MY_DB_PORT", Some("tcp://10.0.0.2:80"));
        check("MY_DB_PORT_53_UDP_ADDR", Some("10.0.0.2"));
        check("NONE_SERVICE_HOST", None);
    }

    #[tokio::test]
    async fn links_can_be_off_and_missing_objects_are_named() {
        let vars = env(json!({"name": "c"}), false).await.unwrap();
        assert!(vars.contains_key("KUBERNETES_SERVICE_HOST") && !vars.contains_key("MY_DB_SERVICE_HOST"));
        let check =
            async |container: Json, wanted: &str| assert_eq!(env(container, true).await.unwrap_err(), wanted);
        check(
            json!({"name": "c", "envFrom": [{"configMapRef": {"name": "no"}}]}),
            "configmap \"no\" not found",
        )
        .await;
        check(
            json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x"}}}]}),
            "couldn't find key x in Secret n/s",
        )
        .await;
        check(
            json!({"name": "c", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}),
            "unsupported fieldPath: spec.x",
        )
        .await;
    }
}
