//! The built-in admission plugins, each by what it gives, refuses and warns of.

use crate::common::*;
use crate::kube::*;
use kubewright_core::Verb;
use serde_json::{Value, json};

async fn label(plane: &Plane, labels: Value) -> Result<Vec<String>, kubewright_core::ApiError> {
    let request = ask(Verb::Patch, "/namespaces", Some("default"))
        .body(kubewright_core::ContentType::MergePatch, json!({"metadata": {"labels": labels}}));
    plane.send(request).await.map(|r| r.warnings)
}

#[tokio::test]
async fn limit_ranges_fill_in_and_bound() {
    let plane = kube().await;
    let item = json!({"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "500m", "memory": "1Gi"},
        "default": {"cpu": "400m", "memory": "500Mi"}, "defaultRequest": {"cpu": "100m"}, "maxLimitRequestRatio": {"cpu": "4"}});
    let claim =
        json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}});
    let whole = json!({"type": "Pod", "max": {"memory": "2Gi"}});
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [item, claim, whole]}});
    plane.make("limitranges", range).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
    let pod = plane.make("pods", sized("a", json!({}))).await.unwrap();
    let resources =
        json!({"requests": {"cpu": "100m", "memory": "500Mi"}, "limits": {"cpu": "400m", "memory": "500Mi"}});
    let ratio = "403 pods \"b\" is forbidden: cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000";
    let check = async |resources: Value, want: &str| {
        assert_eq!(told(plane.make("pods", sized("b", resources)).await), want);
    };
    assert_eq!(pod["spec"]["containers"][0]["resources"], resources);
    assert_eq!(
        pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"
    );
    check(json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}), ratio).await;
    check(
        json!({"requests": {"cpu": "10m", "memory": "3Gi"}, "limits": {"cpu": "20m", "memory": "3Gi"}}),
        "403 pods \"b\" is forbidden: [minimum cpu usage per Container is 50m, but request is 10m, \
         maximum memory usage per Container is 1Gi, but limit is 3Gi, \
         maximum memory usage per Pod is 2Gi, but limit is 3Gi]",
    )
    .await;
    check(json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "500m"}}), "ok").await;
    let claim = |name: &str, size: &str| {
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}})
    };
    for (size, want) in [
        (
            "500Mi",
            "403 persistentvolumeclaims \"p\" is forbidden: minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi",
        ),
        (
            "3Gi",
            "403 persistentvolumeclaims \"p\" is forbidden: maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi",
        ),
        ("1Gi", "ok"),
    ] {
        assert_eq!(told(plane.make("persistentvolumeclaims", claim("p", size)).await), want);
    }
}

#[tokio::test]
async fn pod_security_follows_the_labels_of_the_namespace() {
    let plane = kube().await;
    let mut privileged = sized("p", json!({}));
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    plane.make("pods", privileged.clone()).await.unwrap();
    let said = label(&plane, json!({"pod-security.kubernetes.io/enforce": "odd"})).await;
    assert_eq!(
        told(said),
        "422 Namespace \"default\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"odd\": must be one of privileged, baseline, restricted"
    );
    let warnings = label(
        &plane,
        json!({"pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/warn": "restricted", "pod-security.kubernetes.io/warn-version": "v1.21"}),
    )
    .await;
    assert_eq!(
        warnings.unwrap(),
        [
            "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "p: privileged"
        ]
    );
    privileged["metadata"]["name"] = json!("q");
    assert_eq!(
        told(plane.make("pods", privileged.clone()).await),
        "403 pods \"q\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not set securityContext.privileged=true)"
    );
    let warned = plane.warned("pods", sized("r", json!({}))).await.unwrap();
    let why = "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
        runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
        seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    assert_eq!(warned, [format!("would violate PodSecurity \"restricted:v1.21\": {why}")]);
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": privileged["spec"]}}});
    let warned = plane.warned("deployments.apps", deployment).await.unwrap();
    assert!(
        warned[0].starts_with("would violate PodSecurity \"restricted:v1.21\": privileged (container \"c\""),
        "{warned:?}"
    );
    // What a pod may not be made as, it may not be changed into; labels may change.
    assert_eq!(told(plane.merge("pods", "p", json!({"metadata": {"labels": {"x": "y"}}})).await), "ok");
    let image = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "other"}]);
    let patch = ask(Verb::Patch, "pods", Some("p")).body(kubewright_core::ContentType::JsonPatch, image);
    assert!(told(plane.value(patch).await).contains("violates PodSecurity"));
}

#[tokio::test]
async fn classes_are_given_where_none_is_named() {
    let plane = kube().await;
    let marked = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    for (name, annotations) in [("plain", json!({})), ("gold", marked)] {
        let class =
            json!({"metadata": {"name": name, "annotations": annotations}, "provisioner": "p.example.dev"});
        plane.make("/storageclasses.storage.k8s.io", class).await.unwrap();
    }
    let class = json!({"metadata": {"name": "web", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "c.example.dev/x"}});
    plane.make("/ingressclasses.networking.k8s.io", class).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
    let claim = |name: &str, class: Value| {
        let mut claim = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
        if !class.is_null() {
            claim["spec"]["storageClassName"] = class;
        }
        claim
    };
    for (class, want) in
        [(Value::Null, json!("gold")), (json!(""), json!("")), (json!("plain"), json!("plain"))]
    {
        let made = plane.try_out("persistentvolumeclaims", claim("c", class)).await.unwrap();
        assert_eq!(made["spec"]["storageClassName"], want);
        assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    }
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    let made = plane.make("ingresses.networking.k8s.io", ingress).await.unwrap();
    assert_eq!(made["spec"]["ingressClassName"], "web");
    plane.make("persistentvolumeclaims", claim("c", json!("plain"))).await.unwrap();
    let grow = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let grown = async || told(plane.merge("persistentvolumeclaims", "c", grow.clone()).await);
    let refused = "403 persistentvolumeclaims \"c\" is forbidden: ";
    let first = grown().await;
    assert!(
        first.contains("Only bound persistent volume claims can be expanded") || first.starts_with("422"),
        "{first}"
    );
    plane.merge("persistentvolumeclaims", "c", json!({"spec": {"volumeName": "v"}})).await.unwrap();
    plane.merge("persistentvolumeclaims/status", "c", json!({"status": {"phase": "Bound"}})).await.unwrap();
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    assert_eq!(grown().await, format!("{refused}{why}"));
    plane
        .merge("/storageclasses.storage.k8s.io", "plain", json!({"allowVolumeExpansion": true}))
        .await
        .unwrap();
    plane.0.reader().consistent().await.unwrap();
    assert_eq!(grown().await, "ok");
}

#[tokio::test]
async fn a_runtime_class_shapes_its_pods() {
    let plane = kube().await;
    let class = json!({"metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "100m"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}});
    plane.make("/runtimeclasses.node.k8s.io", class).await.unwrap();
    let pod = |name: &str, class: &str, more: Value| {
        let mut pod = sized(name, json!({}));
        pod["spec"]["runtimeClassName"] = json!(class);
        for (key, value) in more.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        pod
    };
    let made = plane.make("pods", pod("a", "vm", json!({"nodeSelector": {"x": "y"}}))).await.unwrap();
    assert_eq!(made["spec"]["overhead"], json!({"cpu": "100m"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"x": "y", "vm": "yes"}));
    assert!(
        made["spec"]["tolerations"].as_array().unwrap().contains(&json!({"key": "vm", "operator": "Exists"}))
    );
    let check = async |pod: Value, want: &str| {
        assert_eq!(told(plane.make("pods", pod).await), format!("403 pods \"b\" is forbidden: {want}"));
    };
    check(pod("b", "none", json!({})), "pod rejected: RuntimeClass \"none\" not found").await;
    check(
        pod("b", "vm", json!({"overhead": {"cpu": "1"}})),
        "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
    )
    .await;
    check(
        pod("b", "vm", json!({"nodeSelector": {"vm": "no"}})),
        "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no",
    )
    .await;
    let mut bare = sized("b", json!({}));
    bare["spec"]["overhead"] = json!({"cpu": "1"});
    check(bare, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead").await;
}
