//! Plugins that a host composes in: those that upstream leaves off, and those of kinds that it dropped.

use crate::common::*;
use crate::kube::*;
use kubewright_core::{Described, SystemClock, Verb};
use kubewright_server::admission::historic::{
    PodPreset, PodPresetAdmission, PodSecurityPolicy, PodSecurityPolicyAdmission,
};
use kubewright_server::admission::{
    Admission, AlwaysPullImages, DenyServiceExternalIPs, EventLimit, EventLimitKind, EventRateLimit,
    ExtendedResourceToleration, LimitPodHardAntiAffinityTopology, OwnerReferencesPermissionEnforcement,
    PodNodeSelector, PodTolerationRestriction,
};
use kubewright_server::auth::{Access, SigningKey};
use serde_json::{Value, json};
use std::sync::Arc;

async fn with(plugin: impl Admission) -> Plane {
    kube_with(kube_builder().admission(Arc::new(plugin))).await
}

async fn annotate(plane: &Plane, key: &str, value: &str) {
    plane.merge("/namespaces", "default", json!({"metadata": {"annotations": {key: value}}})).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
}

fn pod(name: &str, more: Value) -> Value {
    let mut pod = sized(name, json!({}));
    for (key, value) in more.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

#[tokio::test]
async fn images_are_always_pulled() {
    let plane = with(AlwaysPullImages).await;
    let mut wanted = pod("p", json!({}));
    wanted["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    let made = plane.make("pods", wanted).await.unwrap();
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
}

#[tokio::test]
async fn no_external_addresses_come() {
    let plane = with(DenyServiceExternalIPs).await;
    let service = |name: &str, ips: Value| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "externalIPs": ips}});
    let refused = told(plane.make("services", service("s", json!(["192.0.2.1"]))).await);
    assert_eq!(
        refused,
        "403 services \"s\" is forbidden: Use of external IPs is denied by admission control"
    );
    plane.make("services", service("s", json!([]))).await.unwrap();
    let more = json!({"spec": {"externalIPs": ["192.0.2.1"]}});
    let refused = told(plane.merge("services", "s", more).await);
    assert_eq!(
        refused,
        "403 services \"s\" is forbidden: Use of external IPs is denied by admission control"
    );
}

#[tokio::test]
async fn pods_keep_no_whole_zone_free() {
    let plane = with(LimitPodHardAntiAffinityTopology).await;
    let apart = |key: &str| {
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": key, "labelSelector": {"matchLabels": {"a": "b"}}}]}}})
    };
    plane.make("pods", pod("p", apart("kubernetes.io/hostname"))).await.unwrap();
    let refused = told(plane.make("pods", pod("q", apart("zone"))).await);
    let why = "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed";
    assert_eq!(refused, format!("403 pods \"q\" is forbidden: {why}"));
}

#[tokio::test]
async fn nodes_and_tolerations_are_the_namespaces() {
    let plane = with(PodNodeSelector::new().allow("default", "zone", "a")).await;
    annotate(&plane, "scheduler.alpha.kubernetes.io/node-selector", "zone=a").await;
    let made = plane.make("pods", pod("p", json!({"nodeSelector": {"disk": "fast"}}))).await.unwrap();
    assert_eq!(made["spec"]["nodeSelector"], json!({"disk": "fast", "zone": "a"}));
    let refused = told(plane.make("pods", pod("q", json!({"nodeSelector": {"zone": "b"}}))).await);
    assert_eq!(
        refused,
        "403 pods \"q\" is forbidden: pod node label selector conflicts with its namespace node label selector"
    );
    let plane = with(PodTolerationRestriction::default()).await;
    annotate(
        &plane,
        "scheduler.alpha.kubernetes.io/defaultTolerations",
        "[{\"key\": \"a\", \"operator\": \"Exists\"}]",
    )
    .await;
    let made = plane.make("pods", pod("p", json!({}))).await.unwrap();
    let has = |key: &str| made["spec"]["tolerations"].as_array().unwrap().iter().any(|t| t["key"] == key);
    assert!(has("a") && !has("node.kubernetes.io/memory-pressure"), "{made}");
    let allowed = "[{\"key\": \"a\", \"operator\": \"Exists\"}, {\"key\": \"node.kubernetes.io/not-ready\", \"operator\": \"Exists\"}, \
        {\"key\": \"node.kubernetes.io/unreachable\", \"operator\": \"Exists\"}]";
    annotate(&plane, "scheduler.alpha.kubernetes.io/tolerationsWhitelist", allowed).await;
    let refused = told(
        plane.make("pods", pod("q", json!({"tolerations": [{"key": "b", "operator": "Exists"}]}))).await,
    );
    assert!(refused.ends_with("conflict with its namespace whitelist"), "{refused}");
    assert_eq!(told(plane.make("pods", pod("q", json!({}))).await), "ok");
    let plane = with(ExtendedResourceToleration).await;
    let gpu = json!({"limits": {"x.io/gpu": "1"}, "requests": {"x.io/gpu": "1", "cpu": "1"}});
    let made = plane.make("pods", sized("p", gpu)).await.unwrap();
    let wanted = json!({"key": "x.io/gpu", "operator": "Exists"});
    assert!(made["spec"]["tolerations"].as_array().unwrap().contains(&wanted), "{made}");
}

#[tokio::test]
async fn events_have_a_rate() {
    let limit = EventLimit { kind: EventLimitKind::Namespace, qps: 1, burst: 2 };
    let plane = with(EventRateLimit::new(Arc::new(SystemClock), vec![limit])).await;
    let event = |name: &str| json!({"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "type": "Normal"});
    let mut codes = Vec::new();
    for i in 0..4 {
        codes.push(plane.make("events", event(&format!("e{i}"))).await.map_or_else(|e| e.code(), |_| 201));
    }
    assert_eq!(codes[..2], [201, 201]);
    assert!(codes.contains(&429), "{codes:?}");
}

async fn secured() -> (Plane, Access) {
    let access = Access::rbac(SigningKey::generate().unwrap(), Arc::new(SystemClock));
    let psp = PodSecurityPolicyAdmission::new(access.authorizer().clone());
    let owners = OwnerReferencesPermissionEnforcement::new(access.authorizer().clone());
    let builder = kube_builder().kind(PodSecurityPolicy::descriptor());
    let builder = access.install(builder.admission(Arc::new(psp)).admission(Arc::new(owners)));
    let plane = kube_with(builder).await;
    access.start(&plane.0).await.unwrap();
    (plane, access)
}

async fn grant(plane: &Plane, name: &str, rules: Value) {
    let root = user("root", &["system:masters"]);
    let rbac = "rbac.authorization.k8s.io";
    let role = json!({"metadata": {"name": name}, "rules": rules});
    plane.make_as(&root, "/clusterroles.rbac.authorization.k8s.io", role).await.unwrap();
    let binding = json!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": "jane", "apiGroup": rbac}],
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name}});
    plane.make_as(&root, "/clusterrolebindings.rbac.authorization.k8s.io", binding).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
}

#[tokio::test]
async fn owners_are_set_by_those_who_may() {
    let (plane, _) = secured().await;
    let jane = user("jane", &[]);
    let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u", "blockOwnerDeletion": true});
    plane.make("configmaps", json!({"metadata": {"name": "m"}})).await.unwrap();
    let own = json!({"metadata": {"ownerReferences": [owner]}});
    let refused = told(plane.merge_as(&jane, "configmaps", "m", own.clone()).await);
    assert!(refused.contains("cannot set an ownerRef on a resource you can't delete"), "{refused}");
    grant(&plane, "deleter", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["delete"]}]))
        .await;
    let refused = told(plane.merge_as(&jane, "configmaps", "m", own.clone()).await);
    assert!(refused.contains("refers to a resource you can't set finalizers on"), "{refused}");
    grant(
        &plane,
        "holder",
        json!([{"apiGroups": ["apps"], "resources": ["deployments/finalizers"], "verbs": ["update"]}]),
    )
    .await;
    assert_eq!(told(plane.merge_as(&jane, "configmaps", "m", own).await), "ok");
}

#[tokio::test]
async fn a_pod_security_policy_is_used_by_those_who_may() {
    let (plane, _) = secured().await;
    let jane = user("jane", &[]);
    let any = json!({"rule": "RunAsAny"});
    let spec = json!({"seLinux": any, "supplementalGroups": any, "fsGroup": any, "volumes": ["secret", "emptyDir"],
        "runAsUser": {"rule": "MustRunAs", "ranges": [{"min": 1000, "max": 2000}]}, "requiredDropCapabilities": ["NET_RAW"],
        "allowPrivilegeEscalation": false});
    let policies = kubewright_core::GroupVersionResource::new("policy", "v1beta1", "podsecuritypolicies");
    let make = kubewright_core::ApiRequest::resource(Verb::Create, policies, None, None);
    let policy = json!({"metadata": {"name": "tight"}, "spec": spec});
    plane.value(make.body(kubewright_core::ContentType::Json, policy)).await.unwrap();
    let refused = told(plane.make_as(&jane, "pods", pod("p", json!({}))).await);
    assert_eq!(refused, "403 pods \"p\" is forbidden: no providers available to validate pod request");
    grant(&plane, "user", json!([{"apiGroups": ["policy"], "resources": ["podsecuritypolicies"], "resourceNames": ["tight"], "verbs": ["use"]}])).await;
    let made = plane.make_as(&jane, "pods", pod("p", json!({}))).await.unwrap();
    let context = &made["spec"]["containers"][0]["securityContext"];
    assert_eq!(
        *context,
        json!({"runAsUser": 1000, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["NET_RAW"]}})
    );
    assert_eq!(made["metadata"]["annotations"]["kubernetes.io/psp"], "tight");
    let bad = pod(
        "q",
        json!({"hostNetwork": true, "securityContext": {"runAsUser": 1},
        "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
    );
    let refused = told(plane.make_as(&jane, "pods", bad).await);
    for part in [
        "unable to validate against any pod security policy: [",
        "spec.securityContext.hostNetwork: Invalid value: true: Host network is not allowed to be used",
        "spec.volumes[0]: Invalid value: \"hostPath\": hostPath volumes are not allowed to be used",
        "spec.containers[0].securityContext.runAsUser: Invalid value: 1: must be in the ranges: [{1000 2000}]",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
}

#[tokio::test]
async fn presets_give_variables_and_volumes() {
    let builder = kube_builder().kind(PodPreset::descriptor()).admission(Arc::new(PodPresetAdmission));
    let plane = kube_with(builder).await;
    let preset = json!({"metadata": {"name": "db"}, "spec": {"selector": {"matchLabels": {"role": "web"}},
        "env": [{"name": "PORT", "value": "1"}], "volumes": [{"name": "cache", "emptyDir": {}}],
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}});
    let presets = kubewright_core::GroupVersionResource::new("settings.k8s.io", "v1alpha1", "podpresets");
    let make = kubewright_core::ApiRequest::resource(Verb::Create, presets, Some("default"), None);
    plane.value(make.body(kubewright_core::ContentType::Json, preset)).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
    let labelled = |name: &str, env: Value| {
        let mut pod = pod(name, json!({}));
        pod["metadata"]["labels"] = json!({"role": "web"});
        pod["spec"]["containers"][0]["env"] = env;
        pod
    };
    let made = plane.make("pods", labelled("p", json!([]))).await.unwrap();
    assert_eq!(made["spec"]["containers"][0]["env"], json!([{"name": "PORT", "value": "1"}]));
    assert!(made["spec"]["volumes"].as_array().unwrap().iter().any(|v| v["name"] == "cache"));
    assert!(made["metadata"]["annotations"]["podpreset.admission.kubernetes.io/podpreset-db"].is_string());
    let other = plane.make("pods", pod("q", json!({}))).await.unwrap();
    assert!(other["spec"]["containers"][0]["env"].is_null());
    let warned = plane.warned("pods", labelled("r", json!([{"name": "PORT", "value": "2"}]))).await.unwrap();
    assert!(warned[0].contains("merging env for db has a conflict on PORT"), "{warned:?}");
    assert!(
        plane.read("pods", "r").await.unwrap()["spec"]["volumes"]
            .as_array()
            .is_none_or(|v| v.iter().all(|v| v["name"] != "cache"))
    );
}
