//! PodSecurityPolicy (`policy/v1beta1`): what pods may do, by the policies that their makers or accounts may use.

mod apply;
mod rules;

use crate::admission::{Admission, AdmissionRequest, Operation, forbidden};
use crate::auth::{Attributes, Authorizer, Decision, authenticated};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::SELinuxOptions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kubewright_core::schemars::JsonSchema;
use kubewright_core::{ApiError, GroupVersionResource, Resource, UserInfo, meta};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

const ANNOTATION: &str = "kubernetes.io/psp";

/// A policy of the cluster.
#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema, Resource)]
#[resource(
    group = "policy",
    version = "v1beta1",
    plural = "podsecuritypolicies",
    short_names("psp"),
    crate = "kubewright_core"
)]
#[schemars(crate = "kubewright_core::schemars")]
pub struct PodSecurityPolicy {
    /// Name, labels and so on.
    pub metadata: ObjectMeta,
    /// What it allows.
    #[serde(default)]
    pub spec: PodSecurityPolicySpec,
}

/// The spec of a [`PodSecurityPolicy`]; the fields are those of `policy/v1beta1`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(crate = "kubewright_core::schemars")]
pub struct PodSecurityPolicySpec {
    /// Whether containers may be privileged.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Capabilities that containers get.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_add_capabilities: Vec<String>,
    /// Capabilities that containers lose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_drop_capabilities: Vec<String>,
    /// Capabilities that may be added; `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_capabilities: Vec<String>,
    /// Kinds of volumes that may be used; `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Whether the node's network may be used.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
    /// Which ports of the node may be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPortRange>,
    /// Whether the node's processes may be seen.
    #[serde(rename = "hostPID", skip_serializing_if = "std::ops::Not::not")]
    pub host_pid: bool,
    /// Whether the node's IPC may be used.
    #[serde(rename = "hostIPC", skip_serializing_if = "std::ops::Not::not")]
    pub host_ipc: bool,
    /// How SELinux labels are chosen.
    pub se_linux: SeLinuxStrategy,
    /// As whom containers may run.
    pub run_as_user: IdStrategy,
    /// As which group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as_group: Option<IdStrategy>,
    /// Which further groups.
    pub supplemental_groups: IdStrategy,
    /// Which group of volumes.
    pub fs_group: IdStrategy,
    /// Whether the root of containers must be read-only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only_root_filesystem: bool,
    /// Whether containers may gain privileges where they do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_allow_privilege_escalation: Option<bool>,
    /// Whether they may say so; true where unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_privilege_escalation: Option<bool>,
    /// Paths of the node that may be mounted; all where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_host_paths: Vec<AllowedHostPath>,
    /// Flex drivers that may be used; all where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_flex_volumes: Vec<AllowedDriver>,
    /// CSI drivers that may be used inline; all where there is none.
    #[serde(rename = "allowedCSIDrivers", skip_serializing_if = "Vec::is_empty")]
    pub allowed_csi_drivers: Vec<AllowedDriver>,
    /// Unsafe sysctls that may be set; a name may end in `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Sysctls that may not be set; a name may end in `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forbidden_sysctls: Vec<String>,
    /// Ways of mounting `/proc` besides the default one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_proc_mount_types: Vec<String>,
    /// Which runtime classes may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class: Option<RuntimeClassStrategy>,
}

/// Ports from `min` to `max`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, JsonSchema)]
#[schemars(crate = "kubewright_core::schemars")]
pub struct HostPortRange {
    /// The first.
    pub min: i32,
    /// The last.
    pub max: i32,
}

/// Numbers from `min` to `max`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, JsonSchema)]
#[schemars(crate = "kubewright_core::schemars")]
pub struct IdRange {
    /// The first.
    pub min: i64,
    /// The last.
    pub max: i64,
}

/// How a number of a user or group is chosen.
#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
#[serde(default)]
#[schemars(crate = "kubewright_core::schemars")]
pub struct IdStrategy {
    /// `RunAsAny`, `MustRunAs`, `MayRunAs`, `MustRunAsNonRoot`.
    pub rule: String,
    /// The numbers that are possible.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<IdRange>,
}

/// How SELinux labels are chosen.
#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(crate = "kubewright_core::schemars")]
pub struct SeLinuxStrategy {
    /// `RunAsAny` or `MustRunAs`.
    pub rule: String,
    /// The labels of `MustRunAs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub se_linux_options: Option<SELinuxOptions>,
}

/// A path of the node and what is below.
#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(crate = "kubewright_core::schemars")]
pub struct AllowedHostPath {
    /// The path.
    pub path_prefix: String,
    /// Whether it may only be read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// A driver of volumes.
#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
#[serde(default)]
#[schemars(crate = "kubewright_core::schemars")]
pub struct AllowedDriver {
    /// Of CSI: its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Of Flex: its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
}

/// Which runtime classes may be used.
#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(crate = "kubewright_core::schemars")]
pub struct RuntimeClassStrategy {
    /// Their names; `*` for all.
    pub allowed_runtime_class_names: Vec<String>,
    /// That of pods that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_runtime_class_name: Option<String>,
}

/// Upstream's former plugin `PodSecurityPolicy`: a pod is made as one of the policies has it that its maker, or its service account, may
/// `use`.
pub struct PodSecurityPolicyAdmission(Arc<dyn Authorizer>);

impl PodSecurityPolicyAdmission {
    /// Asks this authorizer who may use which policy.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        PodSecurityPolicyAdmission(authorizer)
    }

    async fn may_use(&self, request: &AdmissionRequest<'_>, user: &UserInfo, policy: &str) -> bool {
        let attributes = Attributes {
            user: Cow::Borrowed(user),
            verb: "use",
            group: "policy",
            version: "*",
            resource: "podsecuritypolicies",
            namespace: request.namespace,
            name: policy,
            ..Attributes::default()
        };
        self.0.authorize(&attributes).await == Decision::Allow
    }

    /// The policies that may be used, by name.
    async fn usable(
        &self,
        request: &AdmissionRequest<'_>,
        pod: &Value,
    ) -> Result<Vec<Arc<PodSecurityPolicy>>, ApiError> {
        let policies = GroupVersionResource::new("policy", "v1beta1", "podsecuritypolicies");
        let namespace = request.namespace;
        let account = pod["spec"]["serviceAccountName"].as_str().filter(|a| !a.is_empty());
        let account = account.map(|name| {
            let groups = format!("system:serviceaccounts:{namespace}");
            let user = format!("system:serviceaccount:{namespace}:{name}");
            authenticated(&user, &["system:serviceaccounts", &groups])
        });
        let mut found = Vec::new();
        for object in request.reader.list(&policies, "")? {
            let name = object.header().name.as_str();
            let by_account = match &account {
                Some(account) => self.may_use(request, account, name).await,
                None => false,
            };
            if by_account || self.may_use(request, request.user, name).await {
                found.push(object.decode::<PodSecurityPolicy>()?);
            }
        }
        Ok(found)
    }
}

impl fmt::Debug for PodSecurityPolicyAdmission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PodSecurityPolicyAdmission")
    }
}

impl Admission for PodSecurityPolicyAdmission {
    fn name(&self) -> &'static str {
        "PodSecurityPolicy"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        request.creates_pod()
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        let pods = request.resource.group.is_empty() && request.resource.resource == "pods";
        pods && match request.operation {
            Operation::Create => request.subresource.is_none(),
            Operation::Update => matches!(request.subresource, None | Some("ephemeralcontainers")),
            Operation::Delete | Operation::Connect => false,
        }
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let Some(pod) = object.filter(|pod| pod["spec"].is_object()) else { return Ok(()) };
            let mut best: Option<(String, Value)> = None;
            // One that leaves the pod as it is goes before those that change it; of each, the first by name.
            for policy in self.usable(request, pod).await? {
                let changed = apply::defaults(&policy.spec, pod);
                if rules::broken(&policy.spec, &changed).is_empty() {
                    let same = changed == *pod;
                    if same || best.is_none() {
                        best = Some((policy.name().to_owned(), changed));
                    }
                    if same {
                        break;
                    }
                }
            }
            // Where none fits, the second half tells why.
            if let Some((name, changed)) = best {
                *pod = changed;
                if let Some(metadata) = meta::metadata_mut(pod) {
                    metadata.entry("annotations").or_insert_with(|| json!({}))[ANNOTATION] = json!(name);
                }
            }
            Ok(())
        })
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let Some(pod) = object else { return Ok(()) };
            let unchanged = request.old.is_some_and(|old| old["spec"] == pod["spec"]);
            if unchanged {
                return Ok(());
            }
            let policies = self.usable(request, pod).await?;
            if policies.is_empty() {
                return Err(forbidden(request, pod, "no providers available to validate pod request"));
            }
            let mut told: Vec<String> = Vec::new();
            for policy in policies {
                let broken = rules::broken(&policy.spec, pod);
                if broken.is_empty() {
                    return Ok(());
                }
                told.extend(broken.iter().map(ToString::to_string));
            }
            let why = format!("unable to validate against any pod security policy: [{}]", told.join(" "));
            Err(forbidden(request, pod, &why))
        })
    }
}
