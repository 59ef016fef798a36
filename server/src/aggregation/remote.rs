//! One version of a group that another server answers for.

use crate::outbound::{Destination, Identity, Place, Trust, trust};
use crate::paths::is_upstreams_group;
use crate::tls::FrontProxy;
use arc_swap::ArcSwap;
use bytes::Bytes;
use kubewright_core::meta;
use serde_json::Value;
use smol_str::SmolStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What was fetched of another server the last time that it answered.
#[derive(Default)]
pub(crate) struct Fetched {
    /// Its APIResourceList.
    pub(crate) resources: Option<Value>,
    /// The addresses of its OpenAPI v3 documents, by their keys.
    pub(crate) openapi_v3: Vec<(String, Value)>,
    /// Its OpenAPI v2 document.
    pub(crate) openapi_v2: Option<Bytes>,
}

/// Another server, as it is known for one version of a group.
pub(crate) struct Remote {
    /// The name of its APIService.
    pub(crate) name: SmolStr,
    pub(crate) group: SmolStr,
    pub(crate) version: SmolStr,
    pub(crate) group_priority: i64,
    pub(crate) version_priority: i64,
    /// Where it is, or why that can't be told.
    pub(crate) destination: Result<Destination, String>,
    /// `namespace/name` of its Service.
    service_key: String,
    spec: Value,
    available: AtomicBool,
    pub(crate) fetched: ArcSwap<Fetched>,
}

impl Remote {
    /// What an APIService says; `None` for one that this server itself answers for.
    pub(super) fn of(object: &Value, front_proxy: Option<&FrontProxy>) -> Option<Self> {
        let spec = &object["spec"];
        let service = spec.get("service").filter(|s| s.is_object())?;
        if is_upstreams_group(spec["group"].as_str().unwrap_or("")) {
            // The plane's own controllers rely on these being its own.
            return None;
        }
        let text = |value: &Value, field: &str| SmolStr::new(value[field].as_str().unwrap_or(""));
        let (namespace, name) = (text(service, "namespace"), text(service, "name"));
        let port = service["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443);
        let believed = match spec["insecureSkipTLSVerify"].as_bool() {
            Some(true) => Ok(Trust::Anybody),
            _ => trust(spec["caBundle"].as_str().unwrap_or("")),
        };
        let identity = front_proxy.map(|f| {
            let (certificate_pem, key_pem) = (f.client.certificate_pem.clone(), f.client.key_pem.clone());
            Arc::new(Identity { certificate_pem, key_pem })
        });
        let service_key = format!("{namespace}/{name}");
        let place = Place::Service { namespace, name, port };
        Some(Remote {
            name: SmolStr::new(meta::name(object)),
            group: text(spec, "group"),
            version: text(spec, "version"),
            group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or(0),
            version_priority: spec["versionPriority"].as_i64().unwrap_or(0),
            destination: believed.map(|trust| Destination { place, trust, identity }),
            service_key,
            spec: spec.clone(),
            available: AtomicBool::new(is_available(object)),
            fetched: ArcSwap::default(),
        })
    }

    /// Whether another object says the same.
    pub(super) fn is_same(&self, other: &Remote) -> bool {
        self.name == other.name && self.spec == other.spec
    }

    pub(super) fn service_key(&self) -> &[u8] {
        self.service_key.as_bytes()
    }

    /// Whether requests are passed on.
    pub(crate) fn is_available(&self) -> bool {
        self.available.load(Ordering::Relaxed)
    }

    /// Sets that; whether it changed.
    pub(super) fn set_available(&self, available: bool) -> bool {
        self.available.swap(available, Ordering::Relaxed) != available
    }

    /// `namespace`, name and port of its Service.
    pub(super) fn service(&self) -> (&str, &str, u16) {
        let (namespace, name) = self.service_key.split_once('/').unwrap_or(("", ""));
        let port = self.spec["service"]["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443);
        (namespace, name, port)
    }

    /// `/apis/<group>/<version>`.
    pub(crate) fn root(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}

/// What the object's own condition says, until it is looked at anew.
fn is_available(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == "Available" && c["status"] == "True")
}
