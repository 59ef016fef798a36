//! Images: whether to pull, with which credentials, and how long to wait after a failure.

use crate::backoff::{Backoff, go_duration};
use crate::events::{Events, NORMAL, WARNING};
use k8s_openapi::api::core::v1::{Container, Pod};
use kubewright_core::SharedClock;
use kubewright_runtime::port::{AuthConfig, Image};
use kubewright_runtime::{ImageService, Reason};
use kubewright_storage::VolumeSource;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How many pulls run at once on a node.
const PULLS_MAX: usize = 8;
/// How many failures are remembered by their words.
const FAILURES_MAX: usize = 4096;

/// Why a container can't have its image: the reason and message that it waits with, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageFailure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// `None`: no retry helps before the pod changes.
    pub(crate) retry_at: Option<jiff::Timestamp>,
}

/// The image that a container runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct PulledImage {
    /// What to run it by.
    pub(crate) reference: String,
    pub(crate) image: Image,
}

/// Gets images for containers.
pub(crate) struct Images {
    service: Arc<dyn ImageService>,
    clock: SharedClock,
    backoff: Mutex<Backoff<(String, String)>>,
    /// Why the last pull failed, for those who wait for the next one.
    failures: Mutex<BTreeMap<(String, String), String>>,
    pulls: Semaphore,
}

/// Images that lie on the node's disk are named by their address; no registry's name can begin so.
const FILE_SCHEME: &str = "file://";

/// The name with its default tag; the error is the sentence of `InvalidImageName`.
pub(crate) fn with_default_tag(name: &str) -> Result<String, String> {
    let bad = |why: &str| {
        Err(format!(
            "Failed to apply default image tag \"{name}\": couldn't parse image name \"{name}\": {why}"
        ))
    };
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return bad("invalid reference format");
    }
    if name.len() > FILE_SCHEME.len() && name.starts_with(FILE_SCHEME) {
        return Ok(name.to_owned());
    }
    let path = name.split('@').next().unwrap_or(name);
    let last = path.rsplit('/').next().unwrap_or(path);
    let repository = if last.contains(':') { path.rsplit_once(':').map_or(path, |(r, _)| r) } else { path };
    let host_free = repository.split_once('/').map_or(repository, |(_, rest)| rest);
    if host_free.chars().any(|c| c.is_ascii_uppercase()) {
        return bad("invalid reference format: repository name must be lowercase");
    }
    if last.is_empty() || last.starts_with(':') {
        return bad("invalid reference format");
    }
    Ok(if name.contains('@') || last.contains(':') { name.to_owned() } else { format!("{name}:latest") })
}

impl Images {
    pub(crate) fn new(service: Arc<dyn ImageService>, clock: SharedClock) -> Self {
        Images {
            service,
            clock,
            backoff: Mutex::default(),
            failures: Mutex::default(),
            pulls: Semaphore::new(PULLS_MAX),
        }
    }

    /// Makes sure that a container's image is there.
    pub(crate) async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        source: &dyn VolumeSource,
        events: &Events,
    ) -> Result<PulledImage, ImageFailure> {
        let wanted = container.image.as_deref().unwrap_or("");
        let event = |kind: &'static str, reason: &'static str, message: String| {
            events.container(pod, &container.name, kind, reason, message);
        };
        let name = with_default_tag(wanted).map_err(|message| {
            event(WARNING, "InspectFailed", message.clone());
            ImageFailure { reason: "InvalidImageName", message, retry_at: None }
        })?;
        let present = self.service.image_status(&name).await.map_err(|e| {
            let message = format!("Failed to inspect image \"{wanted}\": {e}");
            event(WARNING, "InspectFailed", message.clone());
            ImageFailure { reason: "ImageInspectError", message, retry_at: self.soon() }
        })?;
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        match (policy, present) {
            ("Never" | "IfNotPresent", Some(image)) => {
                event(NORMAL, "Pulled", format!("Container image \"{wanted}\" already present on machine"));
                let reference = if image.id.is_empty() { name } else { image.id.clone() };
                Ok(PulledImage { reference, image })
            }
            ("Never", None) => {
                let message =
                    format!("Container image \"{wanted}\" is not present with pull policy of Never");
                event(WARNING, "ErrImageNeverPull", message.clone());
                Err(ImageFailure { reason: "ErrImageNeverPull", message, retry_at: self.soon() })
            }
            _ => self.pull(pod, container, wanted, &name, source, events).await,
        }
    }

    /// Keeps a failure's words for those who wait for the next pull.
    fn remember(&self, key: (String, String), words: String) {
        let mut failures = self.failures.lock();
        if failures.len() >= FAILURES_MAX {
            failures.clear();
        }
        failures.insert(key, words);
    }

    fn soon(&self) -> Option<jiff::Timestamp> {
        self.clock.now().checked_add(jiff::SignedDuration::from_secs(10)).ok()
    }

    async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        wanted: &str,
        name: &str,
        source: &dyn VolumeSource,
        events: &Events,
    ) -> Result<PulledImage, ImageFailure> {
        let event = |kind: &'static str, reason: &'static str, message: String| {
            events.container(pod, &container.name, kind, reason, message);
        };
        let key = (pod.metadata.uid.clone().unwrap_or_default(), name.to_owned());
        let asked = self.clock.now();
        let held = {
            let backoff = self.backoff.lock();
            backoff.since(&key).and_then(|failed| backoff.until(&key, failed, asked))
        };
        if let Some(until) = held {
            let mut message = format!("Back-off pulling image \"{wanted}\"");
            event(NORMAL, "BackOff", message.clone());
            if let Some(why) = self.failures.lock().get(&key) {
                message.push_str(": ");
                message.push_str(why);
            }
            return Err(ImageFailure { reason: "ImagePullBackOff", message, retry_at: Some(until) });
        }
        event(NORMAL, "Pulling", format!("Pulling image \"{wanted}\""));
        let auth = credentials(pod, name, source).await;
        let slot = self.pulls.acquire().await;
        let began = self.clock.now();
        let result = self.service.pull_image(name, auth).await;
        drop(slot);
        let now = self.clock.now();
        match result {
            Ok(reference) => {
                self.failures.lock().remove(&key);
                let image = self.service.image_status(&reference).await.ok().flatten().unwrap_or_default();
                let took = |from| Seconds(now.duration_since(from).as_secs_f64());
                event(
                    NORMAL,
                    "Pulled",
                    format!(
                        "Successfully pulled image \"{wanted}\" in {} ({} including waiting). Image size: {} bytes.",
                        took(began),
                        took(asked),
                        image.size_bytes
                    ),
                );
                Ok(PulledImage { reference, image })
            }
            Err(e) => {
                self.backoff.lock().failed(&key, now);
                let wait = self.backoff.lock().wait(&key);
                tracing::debug!(image = wanted, wait = go_duration(wait), error = %e, "pull failed");
                event(WARNING, "Failed", format!("Failed to pull image \"{wanted}\": {e}"));
                event(WARNING, "Failed", "Error: ErrImagePull".to_owned());
                let reason =
                    if e.reason() == Reason::Unsupported { "RegistryUnavailable" } else { "ErrImagePull" };
                self.remember(key, format!("{reason}: {e}"));
                Err(ImageFailure {
                    reason,
                    message: e.to_string(),
                    retry_at: now.checked_add(jiff::SignedDuration::from_millis(100)).ok(),
                })
            }
        }
    }
}

/// A time as Go prints it, roughly: `1.5s`, `20ms`.
struct Seconds(f64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 < 1.0 { write!(f, "{:.0}ms", self.0 * 1000.0) } else { write!(f, "{:.3}s", self.0) }
    }
}

/// The registry of an image's name, as docker's configuration spells it.
fn registry(name: &str) -> &str {
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// The first credentials among the pod's pull secrets that fit the image's registry. A secret that is missing is passed over,
/// as upstream does.
async fn credentials(pod: &Pod, name: &str, source: &dyn VolumeSource) -> Option<AuthConfig> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    for reference in pod.spec.as_ref()?.image_pull_secrets.iter().flatten() {
        let secret_name: &str = reference.name.as_ref();
        let Ok(Some(secret)) = source.secret(namespace, secret_name).await else { continue };
        let data = secret.data.clone().unwrap_or_default();
        let config = [".dockerconfigjson", ".dockercfg"].iter().find_map(|key| data.get(*key));
        if let Some(auth) = config.and_then(|bytes| pick(&bytes.0, registry(name))) {
            return Some(auth);
        }
    }
    None
}

fn pick(config: &[u8], registry: &str) -> Option<AuthConfig> {
    let value: Value = serde_json::from_slice(config).ok()?;
    let auths = value.get("auths").unwrap_or(&value).as_object()?;
    let host = |entry: &str| {
        let entry = entry.trim_start_matches("https://").trim_start_matches("http://");
        let host = entry.split('/').next().unwrap_or(entry);
        if host == "index.docker.io" { "docker.io".to_owned() } else { host.to_owned() }
    };
    let (server, entry) = auths.iter().find(|(k, _)| host(k) == registry)?;
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    Some(AuthConfig {
        username: text("username"),
        password: text("password"),
        auth: text("auth"),
        server_address: server.clone(),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_their_tag() {
        let check = |name: &str, wanted: Option<&str>| {
            assert_eq!(with_default_tag(name).ok().as_deref(), wanted, "{name}");
        };
        check("a", Some("a:latest"));
        check("a:1", Some("a:1"));
        check("localhost:5000/a", Some("localhost:5000/a:latest"));
        check("r.io/a@sha256:00", Some("r.io/a@sha256:00"));
        check("file:///data/Images/a.tar", Some("file:///data/Images/a.tar"));
        for bad in ["", "a b", "file://", "http://r.io/Upper", "Upper", "r.io/Upper", "r.io/", "a\n"] {
            check(bad, None);
        }
    }

    #[test]
    fn credentials_fit_their_registry() {
        let config = br#"{"auths": {"https://index.docker.io/v1/": {"auth": "x"}, "r.io:5000": {"username": "u", "password": "p"}}}"#;
        let check = |name: &str, wanted: Option<(&str, &str)>| {
            let got = pick(config, registry(name));
            assert_eq!(got.as_ref().map(|a| (a.auth.as_str(), a.username.as_str())), wanted, "{name}");
        };
        check("busybox", Some(("x", "")));
        check("library/busybox", Some(("x", "")));
        check("r.io:5000/a", Some(("", "u")));
        check("other.io/a", None);
        assert_eq!(pick(b"no json", "docker.io"), None);
    }
}
