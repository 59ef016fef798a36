//! What every runtime does, also one without processes.

use super::{Case, CaseResult, Subject, holds, same};
use crate::port::{
    ContainerConfig, ContainerFilter, ContainerMetadata, ContainerState, Labels, PodSandboxConfig,
    PodSandboxFilter, PodSandboxMetadata, PodSandboxState,
};
use crate::{Error, Reason};
use futures::StreamExt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

pub(super) const ALL: &[Case] = &[
    Case { name: "it says what it is", needs: |_, _| true, run: |s| Box::pin(says_what_it_is(s)) },
    Case { name: "images are found by their names", needs: |_, _| true, run: |s| Box::pin(images(s)) },
    Case { name: "a sandbox comes and goes", needs: |_, _| true, run: |s| Box::pin(sandbox(s)) },
    Case { name: "each sandbox has an address", needs: |_, _| true, run: |s| Box::pin(addresses(s)) },
    Case { name: "a container comes and goes", needs: |_, _| true, run: |s| Box::pin(container(s)) },
    Case { name: "what is missing is not found", needs: |_, _| true, run: |s| Box::pin(missing(s)) },
    Case { name: "lists are narrowed", needs: |_, _| true, run: |s| Box::pin(filters(s)) },
    Case {
        name: "a sandbox takes its containers along",
        needs: |_, _| true,
        run: |s| Box::pin(takes_along(s)),
    },
    Case { name: "changes are told", needs: |_, _| true, run: |s| Box::pin(changes(s)) },
];

/// A sandbox with a name of its own.
pub(super) struct Pod<'a> {
    pub(super) subject: &'a Subject,
    pub(super) config: PodSandboxConfig,
    pub(super) id: String,
    /// How many containers were configured.
    attempts: AtomicU32,
}

pub(super) fn said(error: Error) -> String {
    format!("{:?}: {error}", error.reason())
}

impl<'a> Pod<'a> {
    pub(super) async fn run(subject: &'a Subject) -> Result<Self, String> {
        Self::run_with(subject, |_| {}).await
    }

    pub(super) async fn run_with(
        subject: &'a Subject,
        change: impl FnOnce(&mut PodSandboxConfig),
    ) -> Result<Self, String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("conformance-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let metadata = PodSandboxMetadata {
            name: name.clone(),
            uid: name.clone(),
            namespace: "conformance".to_owned(),
            attempt: 0,
        };
        let mut config = PodSandboxConfig {
            metadata,
            hostname: name.clone(),
            log_directory: subject.directory.join(&name).display().to_string(),
            labels: Labels::from([("conformance".to_owned(), name)]),
            ..PodSandboxConfig::default()
        };
        change(&mut config);
        let id = subject.runtime.run_pod_sandbox(&config, "").await.map_err(said)?;
        Ok(Pod { subject, config, id, attempts: AtomicU32::new(0) })
    }

    pub(super) async fn config(&self, command: &[&str]) -> Result<ContainerConfig, String> {
        let image = match self.subject.images.image_status(&self.subject.image).await.map_err(said)? {
            Some(image) => image.id,
            None => self.subject.images.pull_image(&self.subject.image, None).await.map_err(said)?,
        };
        // A name with its attempt is taken once in a sandbox.
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        Ok(ContainerConfig {
            metadata: ContainerMetadata { name: "main".to_owned(), attempt },
            image,
            user_specified_image: self.subject.image.clone(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            log_path: "main/0.log".to_owned(),
            labels: self.config.labels.clone(),
            ..ContainerConfig::default()
        })
    }

    /// Makes and starts a container.
    pub(super) async fn start(&self, config: &ContainerConfig) -> Result<String, String> {
        let runtime = &self.subject.runtime;
        let id = runtime.create_container(&self.id, config, &self.config).await.map_err(said)?;
        runtime.start_container(&id).await.map_err(said)?;
        Ok(id)
    }

    /// Removes the sandbox, and fails where something went wrong before.
    pub(super) async fn done(self, result: CaseResult) -> CaseResult {
        let removed = self.subject.runtime.remove_pod_sandbox(&self.id).await.map_err(said);
        result.and(removed)
    }
}

async fn says_what_it_is(subject: &Subject) -> CaseResult {
    let version = subject.runtime.version().await.map_err(said)?;
    holds("it has a name", !version.runtime_name.is_empty())?;
    same("version of the interface", version.runtime_api_version.as_str(), "v1")?;
    for name in ["RuntimeReady", "NetworkReady"] {
        let conditions = subject.runtime.status().await.map_err(said)?;
        let found = conditions.iter().find(|condition| condition.condition == name);
        holds(name, found.is_some_and(|condition| condition.status))?;
    }
    Ok(())
}

async fn images(subject: &Subject) -> CaseResult {
    if subject.images.image_status(&subject.image).await.map_err(said)?.is_none() {
        subject.images.pull_image(&subject.image, None).await.map_err(said)?;
    }
    let found = subject.images.image_status(&subject.image).await.map_err(said)?;
    let found = found.ok_or("the image is there, but has no status")?;
    let by_id = subject.images.image_status(&found.id).await.map_err(said)?;
    same("by its id", by_id.map(|image| image.id), Some(found.id.clone()))?;
    let all = subject.images.list_images().await.map_err(said)?;
    holds("the list has it", all.iter().any(|image| image.id == found.id))?;
    let none = subject.images.image_status("localhost/no-such-image:1").await.map_err(said)?;
    same("status of a missing one", none, None)?;
    subject.images.remove_image("localhost/no-such-image:1").await.map_err(said)?;
    holds("the disk's use is told", !subject.images.image_fs_info().await.map_err(said)?.is_empty())
}

async fn sandbox(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let runtime = &subject.runtime;
    let status = runtime.pod_sandbox_status(&pod.id).await.map_err(said)?;
    same("state", status.state, PodSandboxState::Ready)?;
    same("metadata", &status.metadata, &pod.config.metadata)?;
    holds("it has a time", status.created_at > 0)?;
    for _ in 0..2 {
        runtime.stop_pod_sandbox(&pod.id).await.map_err(said)?;
    }
    let status = runtime.pod_sandbox_status(&pod.id).await.map_err(said)?;
    same("state after stop", status.state, PodSandboxState::NotReady)?;
    let config = pod.config(&[]).await?;
    let refused = runtime.create_container(&pod.id, &config, &pod.config).await;
    holds("a stopped sandbox takes no container", refused.is_err())?;
    for _ in 0..2 {
        runtime.remove_pod_sandbox(&pod.id).await.map_err(said)?;
    }
    let gone = runtime.pod_sandbox_status(&pod.id).await.map_err(|e| e.reason());
    same("status after removal", gone.err(), Some(Reason::NotFound))
}

async fn addresses(subject: &Subject) -> CaseResult {
    let (a, b) = (Pod::run(subject).await?, Pod::run(subject).await?);
    let ips =
        async |pod: &Pod<'_>| subject.runtime.pod_sandbox_status(&pod.id).await.map(|s| s.ips).map_err(said);
    let (of_a, of_b) = (ips(&a).await?, ips(&b).await?);
    let result = holds("both have one", !of_a.is_empty() && !of_b.is_empty())
        .and(holds("they differ", of_a != of_b))
        .and(holds("they are addresses", of_a[0].parse::<std::net::IpAddr>().is_ok()));
    let result = a.done(result).await;
    b.done(result).await
}

async fn container(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let result = container_in(&pod).await;
    pod.done(result).await
}

async fn container_in(pod: &Pod<'_>) -> CaseResult {
    let runtime = &pod.subject.runtime;
    let config = pod.config(&["sleep", "1000"]).await?;
    let id = runtime.create_container(&pod.id, &config, &pod.config).await.map_err(said)?;
    let status = async || runtime.container_status(&id).await.map_err(said);
    same("state", status().await?.state, ContainerState::Created)?;
    same("image", status().await?.image, pod.subject.image.clone())?;
    runtime.start_container(&id).await.map_err(said)?;
    let running = status().await?;
    same("state after start", running.state, ContainerState::Running)?;
    holds("it has times", running.created_at > 0 && running.started_at >= running.created_at)?;
    let again = runtime.start_container(&id).await.map_err(|e| e.reason());
    same("second start", again, Err(Reason::FailedPrecondition))?;
    for _ in 0..2 {
        runtime.stop_container(&id, Duration::ZERO).await.map_err(said)?;
    }
    let ended = status().await?;
    same("state after stop", ended.state, ContainerState::Exited)?;
    holds("it has an end", ended.finished_at >= ended.started_at && !ended.reason.is_empty())?;
    for _ in 0..2 {
        runtime.remove_container(&id).await.map_err(said)?;
    }
    let gone = runtime.container_status(&id).await.map_err(|e| e.reason());
    same("status after removal", gone.err(), Some(Reason::NotFound))
}

async fn missing(subject: &Subject) -> CaseResult {
    let runtime = &subject.runtime;
    let none = "0123456789abcdef";
    let reason = |result: Result<(), Error>| result.err().map(|e| e.reason());
    same("start", reason(runtime.start_container(none).await), Some(Reason::NotFound))?;
    same("stop", reason(runtime.stop_container(none, Duration::ZERO).await), None)?;
    same("remove", reason(runtime.remove_container(none).await), None)?;
    same("stop sandbox", reason(runtime.stop_pod_sandbox(none).await), None)?;
    same("remove sandbox", reason(runtime.remove_pod_sandbox(none).await), None)?;
    let exec = runtime.exec_sync(none, vec!["true".to_owned()], Duration::from_secs(1)).await;
    same("exec", exec.err().map(|e| e.reason()), Some(Reason::NotFound))?;
    let pod = Pod::run(subject).await?;
    let config = pod.config(&[]).await?;
    let made = runtime.create_container(none, &config, &pod.config).await.map_err(|e| e.reason());
    let result = same("container in no sandbox", made, Err(Reason::NotFound));
    let unknown = ContainerConfig { image: format!("sha256:{}", "0".repeat(64)), ..config };
    let made = runtime.create_container(&pod.id, &unknown, &pod.config).await.map_err(|e| e.reason());
    pod.done(result.and(same("container of no image", made, Err(Reason::NotFound)))).await
}

async fn filters(subject: &Subject) -> CaseResult {
    let (a, b) = (Pod::run(subject).await?, Pod::run(subject).await?);
    let result = filters_in(&a).await;
    let result = a.done(result).await;
    b.done(result).await
}

async fn filters_in(pod: &Pod<'_>) -> CaseResult {
    let runtime = &pod.subject.runtime;
    let sandboxes = async |filter| {
        let found = runtime.list_pod_sandbox(filter).await.map_err(said)?;
        Ok::<_, String>(found.into_iter().map(|sandbox| sandbox.id).collect::<Vec<_>>())
    };
    let only = vec![pod.id.clone()];
    let labels = pod.config.labels.clone();
    let by_label = PodSandboxFilter { labels: labels.clone(), ..PodSandboxFilter::default() };
    same("sandboxes by label", sandboxes(by_label.clone()).await?, only.clone())?;
    let by_id = PodSandboxFilter { id: Some(pod.id.clone()), ..PodSandboxFilter::default() };
    same("sandboxes by id", sandboxes(by_id).await?, only.clone())?;
    let stopped = PodSandboxFilter { state: Some(PodSandboxState::NotReady), ..by_label };
    same("sandboxes by state", sandboxes(stopped).await?, Vec::new())?;
    let id = pod.start(&pod.config(&["sleep", "1000"]).await?).await?;
    let containers = async |filter| {
        let found = runtime.list_containers(filter).await.map_err(said)?;
        Ok::<_, String>(found.into_iter().map(|container| container.id).collect::<Vec<_>>())
    };
    let of_pod = ContainerFilter { sandbox_id: Some(pod.id.clone()), ..ContainerFilter::default() };
    same("containers of a sandbox", containers(of_pod.clone()).await?, vec![id.clone()])?;
    let running = ContainerFilter { state: Some(ContainerState::Running), labels, ..of_pod.clone() };
    same("running containers", containers(running).await?, vec![id])?;
    let ended = ContainerFilter { state: Some(ContainerState::Exited), ..of_pod };
    same("ended containers", containers(ended).await?, Vec::new())
}

async fn takes_along(subject: &Subject) -> CaseResult {
    let pod = Pod::run(subject).await?;
    let id = pod.start(&pod.config(&["sleep", "1000"]).await?).await?;
    subject.runtime.stop_pod_sandbox(&pod.id).await.map_err(said)?;
    let status = subject.runtime.container_status(&id).await.map_err(said)?;
    let result = same("state after the sandbox's stop", status.state, ContainerState::Exited);
    pod.done(result).await?;
    let gone = subject.runtime.container_status(&id).await.map_err(|e| e.reason());
    same("status after the sandbox's removal", gone.err(), Some(Reason::NotFound))
}

async fn changes(subject: &Subject) -> CaseResult {
    let Some(mut changes) = subject.runtime.changes() else { return Ok(()) };
    let pod = Pod::run(subject).await?;
    let told = tokio::time::timeout(Duration::from_secs(10), changes.next()).await;
    pod.done(holds("a new sandbox is a change", matches!(told, Ok(Some(()))))).await
}
