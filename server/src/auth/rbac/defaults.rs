//! The default cluster roles and bindings of Kubernetes, for the parts that a plane can have.

use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use std::collections::BTreeMap;

const READ: &str = "get,list,watch";
const WRITE: &str = "create,delete,deletecollection,patch,update";
const READ_WRITE: &str = "create,delete,deletecollection,get,list,patch,update,watch";
const RBAC: &str = "rbac.authorization.k8s.io";

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

/// A rule out of comma-separated verbs, groups (an empty one is the core group) and resources.
pub(super) fn rule(verbs: &str, groups: &str, resources: &str) -> PolicyRule {
    PolicyRule {
        verbs: list(verbs),
        api_groups: Some(list(groups)),
        resources: Some(list(resources)),
        ..PolicyRule::default()
    }
}

fn named_rule(verbs: &str, group: &str, resources: &str, names: &str) -> PolicyRule {
    PolicyRule { resource_names: Some(list(names)), ..rule(verbs, group, resources) }
}

/// A rule about paths.
pub(super) fn path_rule(verbs: &str, paths: &str) -> PolicyRule {
    PolicyRule { verbs: list(verbs), non_resource_urls: Some(list(paths)), ..PolicyRule::default() }
}

fn metadata(name: &str) -> ObjectMeta {
    let text = |k: &str, v: &str| BTreeMap::from([(k.to_owned(), v.to_owned())]);
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(text("kubernetes.io/bootstrapping", "rbac-defaults")),
        annotations: Some(text("rbac.authorization.kubernetes.io/autoupdate", "true")),
        ..ObjectMeta::default()
    }
}

fn role(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    ClusterRole { metadata: metadata(name), rules: Some(rules), aggregation_rule: None }
}

fn aggregate_to(name: &str) -> (String, String) {
    (format!("rbac.authorization.k8s.io/aggregate-to-{name}"), "true".to_owned())
}

/// A role that collects the roles labelled for it, and is itself labelled for a wider one.
fn aggregating(name: &str, part_of: Option<&str>) -> ClusterRole {
    let selector = LabelSelector {
        match_labels: Some(BTreeMap::from([aggregate_to(name)])),
        ..LabelSelector::default()
    };
    let mut role = ClusterRole {
        metadata: metadata(name),
        rules: None,
        aggregation_rule: Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) }),
    };
    role.metadata.labels.get_or_insert_default().extend(part_of.map(aggregate_to));
    role
}

fn part(name: &str, part_of: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    let mut role = role(name, rules);
    role.metadata.labels.get_or_insert_default().extend([aggregate_to(part_of)]);
    role
}

/// All the default cluster roles.
pub(super) fn cluster_roles() -> Vec<ClusterRole> {
    let mut roles = vec![
        role("cluster-admin", vec![rule("*", "*", "*"), path_rule("*", "*")]),
        aggregating("admin", None),
        aggregating("edit", Some("admin")),
        aggregating("view", Some("edit")),
        part("system:aggregate-to-admin", "admin", admin_rules()),
        part("system:aggregate-to-edit", "edit", edit_rules()),
        part("system:aggregate-to-view", "view", view_rules()),
    ];
    roles.extend(everybodys_roles());
    roles.extend(component_roles());
    roles.extend(certificate_roles());
    roles.extend(controllers().into_iter().map(|(name, rules)| role(&controller_role(name), rules)));
    roles
}

fn admin_rules() -> Vec<PolicyRule> {
    vec![
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
        rule(READ_WRITE, RBAC, "roles,rolebindings"),
    ]
}

fn edit_rules() -> Vec<PolicyRule> {
    vec![
        rule(READ, "", "pods/attach,pods/proxy,pods/exec,pods/portforward,secrets,services/proxy"),
        rule("impersonate", "", "serviceaccounts"),
        rule(WRITE, "", "pods,pods/attach,pods/proxy,pods/exec,pods/portforward"),
        rule("create", "", "pods/eviction"),
        rule(
            WRITE,
            "",
            "configmaps,events,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,\
             serviceaccounts,services,services/proxy",
        ),
        rule("create", "", "serviceaccounts/token"),
        rule(
            WRITE,
            "apps",
            "daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,\
             statefulsets,statefulsets/scale",
        ),
        rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
        rule(WRITE, "batch", "cronjobs,jobs"),
        rule(WRITE, "policy", "poddisruptionbudgets"),
        rule(WRITE, "networking.k8s.io", "ingresses,networkpolicies"),
        rule(READ_WRITE, "coordination.k8s.io", "leases"),
        rule(WRITE, "resource.k8s.io", "resourceclaims,resourceclaimtemplates"),
    ]
}

fn view_rules() -> Vec<PolicyRule> {
    vec![
        rule(
            READ,
            "",
            "configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,\
             replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status",
        ),
        rule(
            READ,
            "",
            "bindings,events,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,\
             resourcequotas,resourcequotas/status",
        ),
        rule(READ, "", "namespaces"),
        rule(READ, "discovery.k8s.io", "endpointslices"),
        rule(
            READ,
            "apps",
            "controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,\
             replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status",
        ),
        rule(READ, "autoscaling", "horizontalpodautoscalers,horizontalpodautoscalers/status"),
        rule(READ, "batch", "cronjobs,cronjobs/status,jobs,jobs/status"),
        rule(READ, "policy", "poddisruptionbudgets,poddisruptionbudgets/status"),
        rule(READ, "networking.k8s.io", "ingresses,ingresses/status,networkpolicies"),
        rule(READ, "resource.k8s.io", "resourceclaims,resourceclaims/status,resourceclaimtemplates"),
    ]
}

fn everybodys_roles() -> Vec<ClusterRole> {
    let health = "/healthz,/livez,/readyz,/version,/version/";
    let discovery =
        "/api,/api/*,/apis,/apis/*,/healthz,/livez,/openapi,/openapi/*,/readyz,/version,/version/";
    vec![
        role("system:public-info-viewer", vec![path_rule("get", health)]),
        role("system:discovery", vec![path_rule("get", discovery)]),
        role(
            "system:basic-user",
            vec![
                rule("create", "authorization.k8s.io", "selfsubjectaccessreviews,selfsubjectrulesreviews"),
                rule("create", "authentication.k8s.io", "selfsubjectreviews"),
            ],
        ),
        role(
            "system:monitoring",
            vec![path_rule(
                "get",
                "/metrics,/metrics/slis,/livez,/readyz,/healthz,/livez/*,/readyz/*,/healthz/*",
            )],
        ),
        role(
            "system:service-account-issuer-discovery",
            vec![path_rule(
                "get",
                "/.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/",
            )],
        ),
        role(
            "system:auth-delegator",
            vec![
                rule("create", "authentication.k8s.io", "tokenreviews"),
                rule("create", "authorization.k8s.io", "subjectaccessreviews"),
            ],
        ),
        role(
            "system:kubelet-api-admin",
            vec![
                rule("get,list,watch,proxy", "", "nodes"),
                rule("*", "", "nodes/proxy,nodes/metrics,nodes/stats,nodes/log"),
            ],
        ),
    ]
}

/// Who may have node certificates approved, and who may approve for which signer.
fn certificate_roles() -> Vec<ClusterRole> {
    const GROUP: &str = "certificates.k8s.io";
    let own = |name: &str, rules| role(&format!("system:{GROUP}:{name}"), rules);
    let ask = |kind: &str| vec![rule("create", GROUP, &format!("certificatesigningrequests/{kind}"))];
    let mut roles = vec![
        own("certificatesigningrequests:nodeclient", ask("nodeclient")),
        own("certificatesigningrequests:selfnodeclient", ask("selfnodeclient")),
    ];
    for signer in
        ["kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown"]
    {
        let name = format!("kubernetes.io/{signer}");
        roles.push(own(&format!("{signer}-approver"), vec![named_rule("approve", GROUP, "signers", &name)]));
    }
    roles
}

fn events() -> PolicyRule {
    rule("create,patch,update", ",events.k8s.io", "events")
}

fn component_roles() -> Vec<ClusterRole> {
    vec![
        role("system:node", node_rules()),
        role(
            "system:node-proxier",
            vec![
                rule("list,watch", "", "services,endpoints"),
                rule("get,list,watch", "", "nodes"),
                events(),
                rule("list,watch", "discovery.k8s.io", "endpointslices"),
                rule("list,watch", "networking.k8s.io", "servicecidrs"),
            ],
        ),
        role(
            "system:node-bootstrapper",
            vec![rule("create,get,list,watch", "certificates.k8s.io", "certificatesigningrequests")],
        ),
        role("system:kube-dns", vec![rule("list,watch", "", "endpoints,services")]),
        role("system:kube-scheduler", scheduler_rules()),
        role(
            "system:volume-scheduler",
            vec![
                rule("get,list,patch,update,watch", "", "persistentvolumes"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("get,list,patch,update,watch", "", "persistentvolumeclaims"),
            ],
        ),
        role("system:kube-controller-manager", controller_manager_rules()),
        role(
            "system:persistent-volume-provisioner",
            vec![
                rule("create,delete,get,list,watch", "", "persistentvolumes"),
                rule("get,list,update,watch", "", "persistentvolumeclaims"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("watch,create,update,patch", "", "events"),
            ],
        ),
    ]
}

/// What node agents may do.
pub(in crate::auth) fn node_rules() -> Vec<PolicyRule> {
    vec![
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews,localsubjectaccessreviews"),
        rule(READ, "", "services"),
        rule("create,get,list,watch", "", "nodes"),
        rule("patch,update", "", "nodes/status"),
        rule("patch,update", "", "nodes"),
        events(),
        rule(READ, "", "pods"),
        rule("create,delete", "", "pods"),
        rule("patch,update", "", "pods/status"),
        rule("create", "", "pods/eviction"),
        rule(READ, "", "configmaps,secrets"),
        rule("get", "", "persistentvolumeclaims,persistentvolumes"),
        rule("patch,update,get", "", "persistentvolumeclaims/status"),
        rule("get", "", "endpoints"),
        rule("create,get,list,watch", "certificates.k8s.io", "certificatesigningrequests"),
        rule("create,delete,get,patch,update", "coordination.k8s.io", "leases"),
        rule("get", "storage.k8s.io", "volumeattachments"),
        rule("create", "", "serviceaccounts/token"),
        rule("create,delete,get,patch,update", "storage.k8s.io", "csinodes"),
        rule(READ, "storage.k8s.io", "csidrivers"),
        rule(READ, "node.k8s.io", "runtimeclasses"),
        rule("get", "resource.k8s.io", "resourceclaims"),
        rule("deletecollection,create,get,list,patch,update,watch", "resource.k8s.io", "resourceslices"),
    ]
}

fn scheduler_rules() -> Vec<PolicyRule> {
    vec![
        events(),
        rule("create", "coordination.k8s.io", "leases"),
        named_rule("get,update,list,watch", "coordination.k8s.io", "leases", "kube-scheduler"),
        rule(READ, "", "nodes"),
        rule("delete,get,list,watch", "", "pods"),
        rule("create", "", "bindings,pods/binding"),
        rule("patch,update", "", "pods/status"),
        rule(READ, "", "namespaces,replicationcontrollers,services"),
        rule(READ, "apps", "replicasets,statefulsets"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule(READ, "", "persistentvolumeclaims,persistentvolumes"),
        rule(
            READ,
            "storage.k8s.io",
            "csinodes,csidrivers,csistoragecapacities,storageclasses,volumeattachments",
        ),
        rule(READ, "scheduling.k8s.io", "priorityclasses"),
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        rule("get,list,watch,patch,update", "resource.k8s.io", "resourceclaims,resourceclaims/status"),
        rule(READ, "resource.k8s.io", "deviceclasses,resourceslices"),
    ]
}

fn controller_manager_rules() -> Vec<PolicyRule> {
    vec![
        events(),
        rule("create", "coordination.k8s.io", "leases"),
        named_rule("get,update", "coordination.k8s.io", "leases", "kube-controller-manager"),
        rule("create", "", "secrets,serviceaccounts"),
        rule("delete", "", "secrets"),
        rule("get", "", "configmaps,namespaces,secrets,serviceaccounts"),
        rule("update", "", "secrets,serviceaccounts"),
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        rule("list,watch", "*", "*"),
        rule("create", "", "serviceaccounts/token"),
    ]
}

/// The built-in controllers, each with what its service account in `kube-system` may do.
fn controllers() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let mut all = workload_controllers();
    all.extend(batch_controllers());
    all.extend(service_controllers());
    all.extend(cluster_controllers());
    all.extend(namespace_controllers());
    all
}

fn workload_controllers() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let pods = || rule("create,delete,get,list,patch,update,watch", "", "pods");
    let revisions = || rule("create,delete,get,list,patch,update,watch", "apps", "controllerrevisions");
    vec![
        (
            "deployment-controller",
            vec![
                rule("get,list,update,watch", "apps", "deployments"),
                rule("update", "apps", "deployments/status,deployments/finalizers"),
                rule("create,delete,get,list,patch,update,watch", "apps", "replicasets"),
                rule("get,list,update,watch", "", "pods"),
                events(),
            ],
        ),
        (
            "replicaset-controller",
            vec![
                rule("get,list,update,watch", "apps", "replicasets"),
                rule("update", "apps", "replicasets/status,replicasets/finalizers"),
                pods(),
                events(),
            ],
        ),
        (
            "statefulset-controller",
            vec![
                rule(READ, "apps", "statefulsets"),
                rule("update", "apps", "statefulsets/status,statefulsets/finalizers"),
                pods(),
                revisions(),
                rule("create,delete,get,list,update,watch", "", "persistentvolumeclaims"),
                events(),
            ],
        ),
        (
            "daemon-set-controller",
            vec![
                rule(READ, "apps", "daemonsets"),
                rule("update", "apps", "daemonsets/status,daemonsets/finalizers"),
                rule("list,watch", "", "nodes"),
                pods(),
                revisions(),
                events(),
            ],
        ),
    ]
}

fn batch_controllers() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let pods = || rule("create,delete,get,list,patch,update,watch", "", "pods");
    vec![
        (
            "job-controller",
            vec![
                rule("get,list,update,watch,patch", "batch", "jobs"),
                rule("update", "batch", "jobs/status,jobs/finalizers"),
                pods(),
                events(),
            ],
        ),
        (
            "cronjob-controller",
            vec![
                rule("get,list,update,watch", "batch", "cronjobs"),
                rule("create,delete,get,list,patch,update,watch", "batch", "jobs"),
                rule("update", "batch", "cronjobs/status,cronjobs/finalizers"),
                rule("delete,list", "", "pods"),
                events(),
            ],
        ),
        (
            "disruption-controller",
            vec![
                rule(READ, "apps", "deployments,replicasets,statefulsets"),
                rule(READ, "", "replicationcontrollers,pods"),
                rule("patch,update", "", "pods/status"),
                rule(READ, "policy", "poddisruptionbudgets"),
                rule("update", "policy", "poddisruptionbudgets/status"),
                rule("get", "*", "*/scale"),
                events(),
            ],
        ),
    ]
}

fn service_controllers() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "endpoint-controller",
            vec![
                rule(READ, "", "services,pods"),
                rule("create,delete,get,list,update,watch", "", "endpoints"),
                rule("create", "", "endpoints/restricted"),
                events(),
            ],
        ),
        (
            "endpointslice-controller",
            vec![
                rule(READ, "", "services,pods,nodes"),
                rule("update", "", "services/finalizers"),
                rule("create,delete,get,list,update,watch", "discovery.k8s.io", "endpointslices"),
                events(),
            ],
        ),
        (
            "endpointslicemirroring-controller",
            vec![
                rule(READ, "", "services,endpoints"),
                rule("update", "", "services/finalizers,endpoints/finalizers"),
                rule("create,delete,get,list,update,watch", "discovery.k8s.io", "endpointslices"),
                events(),
            ],
        ),
    ]
}

fn cluster_controllers() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "clusterrole-aggregation-controller",
            vec![rule("escalate,get,list,patch,update,watch", RBAC, "clusterroles")],
        ),
        ("generic-garbage-collector", vec![rule("delete,get,list,patch,update,watch", "*", "*"), events()]),
        (
            "node-controller",
            vec![
                rule("delete,get,list,patch,update,watch", "", "nodes"),
                rule("patch,update", "", "nodes/status"),
                rule("patch,update", "", "pods/status"),
                rule("delete,get,list,watch", "", "pods"),
                rule(READ, "coordination.k8s.io", "leases"),
                events(),
            ],
        ),
        (
            "pod-garbage-collector",
            vec![
                rule("delete,list,watch", "", "pods"),
                rule("get,list,watch", "", "nodes"),
                rule("patch", "", "pods/status"),
            ],
        ),
        (
            "persistent-volume-binder",
            vec![
                rule("create,delete,get,list,update,watch", "", "persistentvolumes"),
                rule("update", "", "persistentvolumes/status,persistentvolumeclaims/status"),
                rule("get,list,update,watch", "", "persistentvolumeclaims"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("get,list", "", "nodes"),
                events(),
            ],
        ),
        ("ttl-after-finished-controller", vec![rule("delete,get,list,watch", "batch", "jobs"), events()]),
    ]
}

/// Those that furnish, bound and empty namespaces.
fn namespace_controllers() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "namespace-controller",
            vec![
                rule("delete,get,list,watch", "", "namespaces"),
                rule("update", "", "namespaces/finalize,namespaces/status"),
                rule("delete,deletecollection,get,list", "*", "*"),
            ],
        ),
        (
            "resourcequota-controller",
            vec![rule("list,watch", "*", "*"), rule("update", "", "resourcequotas/status"), events()],
        ),
        (
            "root-ca-cert-publisher",
            vec![
                rule("create,get,update,list,watch", "", "configmaps"),
                rule("list,watch,get", "", "namespaces"),
                events(),
            ],
        ),
        (
            "service-account-controller",
            vec![
                rule("create,get,list,watch", "", "serviceaccounts"),
                rule("get,list,watch", "", "namespaces"),
                events(),
            ],
        ),
    ]
}

fn controller_role(name: &str) -> String {
    format!("system:controller:{name}")
}

/// Whom a binding is for.
enum Who<'a> {
    Group(&'a str),
    User(&'a str),
    /// A service account of `kube-system`.
    Account(&'a str),
}

fn binding(name: &str, role: &str, subjects: &[Who<'_>]) -> ClusterRoleBinding {
    let subject = |who: &Who<'_>| {
        let (kind, name, namespace) = match who {
            Who::Group(name) => ("Group", name, None),
            Who::User(name) => ("User", name, None),
            Who::Account(name) => ("ServiceAccount", name, Some("kube-system".to_owned())),
        };
        let api_group = namespace.is_none().then(|| RBAC.to_owned());
        Subject { api_group, kind: kind.to_owned(), name: (*name).to_owned(), namespace }
    };
    ClusterRoleBinding {
        metadata: metadata(name),
        role_ref: RoleRef {
            api_group: Some(RBAC.to_owned()),
            kind: "ClusterRole".to_owned(),
            name: role.to_owned(),
        },
        subjects: Some(subjects.iter().map(subject).collect()).filter(|s: &Vec<_>| !s.is_empty()),
    }
}

/// All the default bindings.
pub(super) fn cluster_role_bindings() -> Vec<ClusterRoleBinding> {
    use Who::{Account, Group, User};
    let authenticated = Group("system:authenticated");
    let everybody = [Group("system:authenticated"), Group("system:unauthenticated")];
    let same = |name: &str, subjects: &[Who<'_>]| binding(name, name, subjects);
    let mut bindings = vec![
        same("cluster-admin", &[Group(super::MASTERS)]),
        same("system:basic-user", std::slice::from_ref(&authenticated)),
        same("system:discovery", std::slice::from_ref(&authenticated)),
        same("system:public-info-viewer", &everybody),
        same("system:service-account-issuer-discovery", &[Group("system:serviceaccounts")]),
        same("system:monitoring", &[Group("system:monitoring")]),
        same("system:kube-scheduler", &[User("system:kube-scheduler")]),
        same("system:volume-scheduler", &[User("system:kube-scheduler")]),
        same("system:kube-controller-manager", &[User("system:kube-controller-manager")]),
        same("system:node-proxier", &[User("system:kube-proxy")]),
        same("system:kube-dns", &[Account("kube-dns")]),
        // Nodes are authorized by their own authorizer, which knows which node asks.
        same("system:node", &[]),
    ];
    bindings.extend(controllers().iter().map(|(name, _)| {
        let role = controller_role(name);
        binding(&role, &role, &[Account(name)])
    }));
    bindings
}
