//! What node agents may write, and whose certificates are approved and signed by whom.

use crate::common::*;
use crate::kube::*;
use kubewright_core::{ApiRequest, ContentType, SystemClock, UserInfo, Verb};
use kubewright_server::auth::{Access, SigningKey};
use serde_json::{Value, json};
use std::sync::Arc;

async fn plane() -> (Plane, Access) {
    let access = Access::rbac(SigningKey::generate().unwrap(), Arc::new(SystemClock));
    let plane = kube_with(access.install(kube_builder())).await;
    access.start(&plane.0).await.unwrap();
    (plane, access)
}

fn node(name: &str) -> UserInfo {
    user(&format!("system:node:{name}"), &["system:nodes", "system:authenticated"])
}

fn lease(name: &str) -> ApiRequest {
    let request =
        ApiRequest::resource(Verb::Create, gvr("leases.coordination.k8s.io"), Some("kube-node-lease"), None);
    request.body(ContentType::Json, json!({"metadata": {"name": name}}))
}

#[tokio::test]
async fn a_node_describes_itself_within_bounds() {
    let (plane, _) = plane().await;
    let n1 = node("n1");
    let make = async |object: Value| told(plane.make_as(&n1, "/nodes", object).await);
    assert_eq!(
        make(json!({"metadata": {"name": "n2"}})).await,
        "403 nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\""
    );
    let labels = json!({"node-role.kubernetes.io/x": "", "kubernetes.io/hostname": "n1", "own": "y"});
    assert_eq!(
        make(json!({"metadata": {"name": "n1", "labels": labels}})).await,
        "403 nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: node-role.kubernetes.io/x"
    );
    let taints = json!([{"key": "a", "effect": "NoSchedule"}]);
    assert_eq!(make(json!({"metadata": {"name": "n1"}, "spec": {"taints": taints}})).await, "ok");
    let change = async |patch: Value| told(plane.merge_as(&n1, "/nodes", "n1", patch).await);
    assert_eq!(change(json!({"metadata": {"labels": {"own": "z"}}})).await, "ok");
    assert_eq!(
        change(json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "z"}}})).await,
        "403 nodes \"n1\" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/x"
    );
    assert_eq!(
        change(json!({"spec": {"taints": []}})).await,
        "403 nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints"
    );
    for (name, want) in [
        (
            "n2",
            "403 leases.coordination.k8s.io \"n2\" is forbidden: can only access node lease with the same name as the requesting node",
        ),
        ("n1", "ok"),
    ] {
        let mut request = lease(name);
        request.user = n1.clone().into();
        assert_eq!(told(plane.send(request).await), want);
    }
    let slice = json!({"metadata": {"name": "s"}, "spec": {"driver": "d.example.com", "nodeName": "n2",
        "pool": {"name": "n2", "resourceSliceCount": 1, "generation": 1}, "devices": []}});
    assert_eq!(
        told(plane.make_as(&n1, "/resourceslices.resource.k8s.io", slice).await),
        "403 resourceslices.resource.k8s.io \"s\" is forbidden: can only create ResourceSlice with the same NodeName as the requesting node"
    );
    assert_eq!(
        told(plane.make_as(&node(""), "/nodes", json!({"metadata": {"name": "n1"}})).await),
        "403 nodes \"n1\" is forbidden: could not determine node from user \"system:node:\""
    );
}

#[tokio::test]
async fn a_node_makes_mirror_pods_and_ends_its_own() {
    let (plane, _) = plane().await;
    let n1 = node("n1");
    let made = plane.make_as(&n1, "/nodes", json!({"metadata": {"name": "n1"}})).await.unwrap();
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": made["metadata"]["uid"], "controller": true});
    let pod = |annotations: Value, owners: Value, more: Value| {
        let mut pod = sized("m", json!({}));
        pod["metadata"]["annotations"] = annotations;
        pod["metadata"]["ownerReferences"] = owners;
        pod["spec"]["nodeName"] = json!("n1");
        for (key, value) in more.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        pod
    };
    let mirror = json!({"kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file"});
    let check = async |pod: Value, want: &str| {
        let want =
            if want == "ok" { want.to_owned() } else { format!("403 pods \"m\" is forbidden: {want}") };
        assert_eq!(told(plane.make_as(&n1, "pods", pod).await), want);
    };
    check(
        pod(json!({}), json!([owner]), json!({})),
        // Its service account is looked up before.
        "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods",
    )
    .await;
    check(
        pod(mirror.clone(), json!([]), json!({})),
        "node \"n1\" can only create pods with an owner reference set to itself",
    )
    .await;
    check(
        pod(mirror.clone(), json!([owner]), json!({"nodeName": "n2"})),
        "node \"n1\" can only create pods with spec.nodeName set to itself",
    )
    .await;
    let volumes = json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]});
    check(
        pod(mirror.clone(), json!([owner]), volumes),
        "node \"n1\" can not create pods that reference secrets",
    )
    .await;
    check(pod(mirror.clone(), json!([owner]), json!({})), "ok").await;
    let mut other = sized("o", json!({}));
    other["spec"]["nodeName"] = json!("n2");
    let other = plane.make("pods", other).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
    assert_eq!(
        told(plane.drop_as(&n1, "pods", "o").await),
        "403 pods \"o\" is forbidden: node \"n1\" can only delete pods with spec.nodeName set to itself"
    );
    let status = json!({"status": {"phase": "Running"}});
    assert_eq!(
        told(plane.merge_as(&n1, "pods/status", "o", status.clone()).await),
        "403 pods \"o\" is forbidden: node \"n1\" can only update pod status for pods with spec.nodeName set to itself"
    );
    assert_eq!(told(plane.merge_as(&node("n2"), "pods/status", "o", status).await), "ok");
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "o", "uid": other["metadata"]["uid"]});
    let token = async |who: &UserInfo, spec: Value| {
        let mut request = ask(Verb::Create, "serviceaccounts/token", Some("default"))
            .body(ContentType::Json, json!({"spec": spec}));
        request.user = who.clone().into();
        told(plane.send(request).await)
    };
    let refused = |why: &str| format!("403 serviceaccounts \"default\" is forbidden: {why}");
    assert_eq!(token(&n1, json!({})).await, refused("node requested token not bound to a pod"));
    assert_eq!(
        token(&n1, json!({"boundObjectRef": bound})).await,
        refused("node requested token bound to a pod scheduled on a different node")
    );
    assert_eq!(token(&node("n2"), json!({"boundObjectRef": bound})).await, "ok");
    assert_eq!(
        token(&node("n2"), json!({"boundObjectRef": bound, "audiences": ["x"]})).await,
        refused(
            "audience \"x\" not found in pod spec volume, system:node:n2 is not authorized to request tokens for this audience"
        )
    );
}

#[tokio::test]
async fn a_mirror_pod_and_an_enforcing_account_are_held_to_their_secrets() {
    let plane = kube().await;
    let account = json!({"metadata": {"name": "strict", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
        "secrets": [{"name": "ours"}], "imagePullSecrets": [{"name": "pull"}]});
    plane.make("serviceaccounts", account).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
    let pod = |more: Value| {
        let mut pod = sized("p", json!({}));
        pod["spec"]["serviceAccountName"] = json!("strict");
        for (key, value) in more.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        pod
    };
    let volume = |name: &str| json!({"volumes": [{"name": "v", "secret": {"secretName": name}}]});
    let check = async |pod: Value, why: &str| {
        let want = format!("403 pods \"p\" is forbidden: {why}");
        assert_eq!(told(plane.make("pods", pod).await), want);
    };
    let rest = "is not allowed because service account strict does not reference that";
    check(pod(volume("theirs")), &format!("volume with secret.secretName=\"theirs\" {rest} secret")).await;
    check(
        pod(json!({"imagePullSecrets": [{"name": "x"}]})),
        &format!("imagePullSecrets[0].name=\"x\" {rest} imagePullSecret"),
    )
    .await;
    let made = plane.make("pods", pod(volume("ours"))).await.unwrap();
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    let mut mirror = pod(json!({"nodeName": "n"}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    check(mirror, "a mirror pod may not reference service accounts").await;
}

fn request_for(subject: &str, organization: &str) -> Value {
    use base64::Engine;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
    params.distinguished_name.push(rcgen::DnType::CommonName, subject);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    json!(base64::engine::general_purpose::STANDARD.encode(pem))
}

#[tokio::test]
async fn certificates_are_approved_and_signed_by_those_who_may() {
    let (plane, _) = plane().await;
    let what = "/certificatesigningrequests.certificates.k8s.io";
    let request = |name: &str, signer: &str, pem: Value| json!({"metadata": {"name": name}, "spec": {"signerName": signer, "request": pem, "usages": ["client auth"]}});
    let client = "kubernetes.io/kube-apiserver-client";
    assert_eq!(
        told(plane.make(what, request("m", client, request_for("x", "system:masters"))).await),
        "403 certificatesigningrequests.certificates.k8s.io \"m\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    );
    let kubelet = request(
        "k",
        "kubernetes.io/kube-apiserver-client-kubelet",
        request_for("system:node:n2", "system:nodes"),
    );
    assert_eq!(
        told(plane.make_as(&node("n1"), what, kubelet).await),
        "403 certificatesigningrequests.certificates.k8s.io \"k\" is forbidden: can only create a node CSR with CN=system:node:n1"
    );
    plane.make(what, request("c", client, request_for("jane", "devs"))).await.unwrap();
    let role = json!({"metadata": {"name": "approver"}, "rules": [
        {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["kubernetes.io/*"], "verbs": ["approve"]}]});
    let root = user("root", &["system:masters"]);
    plane.make_as(&root, "/clusterroles.rbac.authorization.k8s.io", role).await.unwrap();
    let binding = json!({"metadata": {"name": "approver"}, "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "approver"}});
    plane.make_as(&root, "/clusterrolebindings.rbac.authorization.k8s.io", binding).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
    let approve = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "x", "message": "y"}]}});
    let approval = format!("{what}/approval");
    let name = "certificatesigningrequests.certificates.k8s.io \"c\"";
    let (ann, bob) = (user("ann", &[]), user("bob", &[]));
    assert_eq!(
        told(plane.merge_as(&bob, &approval, "c", approve.clone()).await),
        format!(
            "403 {name} is forbidden: user not permitted to approve requests with signerName \"{client}\""
        )
    );
    assert_eq!(told(plane.merge_as(&ann, &approval, "c", approve).await), "ok");
    let failed = json!({"status": {"conditions": [
        {"type": "Approved", "status": "True", "reason": "x", "message": "y"}, {"type": "Failed", "status": "True", "reason": "x"}]}});
    assert_eq!(
        told(plane.merge_as(&ann, &format!("{what}/status"), "c", failed.clone()).await),
        format!("403 {name} is forbidden: user not permitted to sign requests with signerName \"{client}\"")
    );
    assert_eq!(told(plane.merge_as(&root, &format!("{what}/status"), "c", failed).await), "ok");
}
