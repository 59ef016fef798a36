//! Talks to HTTP extenders: filter, prioritize, preempt and bind calls, each within its time, few at once, answers bounded.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod};
use kubewright_core::ApiError;
use kubewright_reconcile::Informer;
use kubewright_reconcile::client::{Config, ConfigError, JsonClient};
use kubewright_sched::extender::{self, Candidate};
use kubewright_sched::{Consultation, ExtenderConfig, PodInfo, PodKey};
use serde_json::Value;
use smol_str::SmolStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Upstream's default.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Calls to one extender at once.
const CALLS_MAX: usize = 32;
/// The largest answer; 50,000 whole nodes are about half of it.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The extenders of a scheduler, in its order.
pub(super) struct Extenders {
    all: Vec<Extender>,
}

struct Extender {
    config: ExtenderConfig,
    /// Or why its server can't be spoken to.
    client: Result<JsonClient, String>,
    slots: Semaphore,
}

impl Extenders {
    /// Makes the clients. What is wrong with one is told by each call to it, so that `ignorable` holds for it too.
    pub(super) fn new(configs: &[ExtenderConfig]) -> Self {
        let made = configs.iter().map(|config| {
            let client = client(config).map_err(|e| format!("{}: {e}", config.url_prefix));
            Extender { config: config.clone(), client, slots: Semaphore::new(CALLS_MAX) }
        });
        Extenders { all: made.collect() }
    }

    /// Whether one of them has to be told of whole nodes.
    pub(super) fn want_whole_nodes(&self, asked: &[usize]) -> bool {
        asked.iter().filter_map(|at| self.all.get(*at)).any(|e| !e.config.node_cache_capable)
    }

    /// Whether one of them has a say in where room is made for a pod.
    pub(super) fn preempt(&self, pod: &PodInfo) -> bool {
        self.all.iter().any(|e| !e.config.preempt_verb.is_empty() && e.config.is_interested(pod))
    }

    /// Whether one of them binds a pod.
    pub(super) fn bind_instead(&self, pod: &PodInfo) -> bool {
        self.binder(pod).is_some()
    }

    fn binder(&self, pod: &PodInfo) -> Option<&Extender> {
        self.all.iter().find(|e| !e.config.bind_verb.is_empty() && e.config.is_interested(pod))
    }

    /// Asks about a pod: the filters one after the other, each about what the ones before left, then all scores at once.
    ///
    /// # Errors
    /// An extender that can't be ignored failed or lied.
    pub(super) async fn consult(
        &self,
        asked: &[usize],
        pod: &PodInfo,
        nodes: &[SmolStr],
        whole: &[Arc<Node>],
    ) -> Result<Consultation, String> {
        let mut answer = Consultation::of(nodes);
        let asked: Vec<&Extender> = asked.iter().filter_map(|at| self.all.get(*at)).collect();
        for extender in asked.iter().filter(|e| !e.config.filter_verb.is_empty()) {
            if answer.nodes.is_empty() {
                break;
            }
            let arguments = extender.config.arguments(pod, &answer.nodes, whole);
            let before = answer.clone();
            let told = extender.post(&extender.config.filter_verb, &arguments).await;
            if let Err(error) = told.and_then(|value| answer.filtered(&value)) {
                extender.forgive(pod, error)?;
                answer = before;
            }
        }
        if answer.nodes.len() > 1 {
            self.prioritize(&asked, pod, whole, &mut answer).await;
        }
        Ok(answer)
    }

    /// Scores that can't be had are done without, as upstream.
    async fn prioritize(
        &self,
        asked: &[&Extender],
        pod: &PodInfo,
        whole: &[Arc<Node>],
        answer: &mut Consultation,
    ) {
        let scoring = asked.iter().filter(|e| !e.config.prioritize_verb.is_empty());
        let nodes = &answer.nodes;
        let calls = scoring.map(|extender| async move {
            let arguments = extender.config.arguments(pod, nodes, whole);
            (extender, extender.post(&extender.config.prioritize_verb, &arguments).await)
        });
        for (extender, told) in join_all(calls).await {
            let weight = extender.config.weight;
            if let Err(error) = told.and_then(|value| answer.prioritized(&value, weight)) {
                tracing::warn!(pod = %pod.key, %error, "an extender's scores are left out");
            }
        }
    }

    /// Asks where room may be made; gives what is left of the candidates, the best first.
    ///
    /// # Errors
    /// An extender that can't be ignored failed or lied.
    pub(super) async fn choose_victims(
        &self,
        pod: &PodInfo,
        mut candidates: Vec<Candidate>,
        pods: &Informer<Pod>,
    ) -> Result<Vec<Candidate>, String> {
        let victim = |key: &PodKey| pods.get(&key.namespace, &key.name);
        let uid_of = |key: &PodKey| victim(key).and_then(|p| p.metadata.uid.clone()).map(SmolStr::from);
        let interested =
            self.all.iter().filter(|e| !e.config.preempt_verb.is_empty() && e.config.is_interested(pod));
        for extender in interested {
            if candidates.is_empty() {
                break;
            }
            let arguments = extender.config.preemption_arguments(pod, &candidates, victim);
            let told = extender.post(&extender.config.preempt_verb, &arguments).await;
            match told.and_then(|value| extender::preempted(&value, &candidates, uid_of)) {
                Ok(left) => candidates = left,
                Err(error) => extender.forgive(pod, error)?,
            }
        }
        Ok(candidates)
    }

    /// Has a pod bound by the extender that binds it. `Ok(false)` where it failed and may be passed over.
    ///
    /// # Errors
    /// It failed and can't be ignored.
    pub(super) async fn bind(&self, pod: &PodInfo, node: &str) -> Result<bool, ApiError> {
        let Some(extender) = self.binder(pod) else { return Ok(false) };
        let arguments = extender::binding_arguments(pod, node);
        let told = extender.post(&extender.config.bind_verb, &arguments).await;
        match told.and_then(|value| extender::bound_answer(&value)) {
            Ok(()) => Ok(true),
            Err(error) => extender.forgive(pod, error).map(|()| false).map_err(ApiError::unavailable),
        }
    }
}

impl Extender {
    async fn post(&self, verb: &str, body: &Value) -> Result<Value, String> {
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let _slot = self.slots.acquire().await.map_err(|e| e.to_string())?;
        client.post(verb, body).await.map_err(|e| e.to_string())
    }

    /// Lets a failure pass where the extender is ignorable.
    fn forgive(&self, pod: &PodInfo, error: String) -> Result<(), String> {
        if !self.config.ignorable {
            return Err(error);
        }
        tracing::warn!(pod = %pod.key, %error, "an extender failed; the pod goes on without it");
        Ok(())
    }
}

fn client(config: &ExtenderConfig) -> Result<JsonClient, ConfigError> {
    let scheme = if config.enable_https { "https" } else { "http" };
    let url = match config.url_prefix.contains("://") {
        true => config.url_prefix.clone(),
        false => format!("{scheme}://{}", config.url_prefix),
    };
    let tls = config.tls_config.clone().unwrap_or_default();
    let to = Config::at(&url)?.with_pem(
        (&tls.ca_data, &tls.ca_file),
        (&tls.cert_data, &tls.cert_file),
        (&tls.key_data, &tls.key_file),
    );
    let mut to = to?;
    // Without an authority any server is trusted, as upstream has it.
    to.insecure_skip_tls_verify = tls.insecure || to.certificate_authority_pem.is_none();
    to.tls_server_name = Some(tls.server_name).filter(|n| !n.is_empty());
    let timeout = config.http_timeout.filter(|t| !t.is_zero()).unwrap_or(TIMEOUT);
    JsonClient::new(to, timeout, ANSWER_BYTES_MAX)
}
