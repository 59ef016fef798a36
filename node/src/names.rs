//! The labels and annotations by which an agent finds its pods' sandboxes and containers again, in upstream's spelling.

/// Label: the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: the pod's uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: the container's name in its pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: a hash of what a change of the container's specification must restart it for.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Annotation: how often the container was restarted.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: where the container may write why it ended.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: where the message comes from when that file is empty.
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the pod's grace period, seconds.
pub const TERMINATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Annotation on a pod: where its configuration came from.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// The version that nodes of this agent report.
pub const KUBELET_VERSION: &str = "v1.36.0";
