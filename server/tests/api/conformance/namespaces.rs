//! Namespaces, and the accounts, limits and quotas in them.

use super::site::{JSON_PATCH, STRATEGIC, in_process};
use serde_json::{Value, json};

#[tokio::test]
async fn a_namespace_takes_labels_a_status_and_finalizers() {
    let site = in_process().await;
    site.namespace("n").await;
    let at = "/api/v1/namespaces/n";
    let patched =
        site.patch(STRATEGIC, at, &json!({"metadata": {"labels": {"testLabel": "testValue"}}})).await.ok();
    assert_eq!(
        patched["metadata"]["labels"],
        json!({"kubernetes.io/metadata.name": "n", "testLabel": "testValue"})
    );
    let mut updated = patched;
    updated["metadata"]["labels"]["n"] = json!("updated");
    assert_eq!(site.put(at, &updated).await.ok()["metadata"]["labels"]["n"], "updated");
    // The label with the name comes back.
    let bare = site.merge(at, json!({"metadata": {"labels": null}})).await.ok();
    assert_eq!(bare["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "n"}));

    let status = format!("{at}/status");
    assert_eq!(site.get(&status).await.ok()["status"], json!({"phase": "Active"}));
    let patch = json!({"metadata": {"annotations": {"e2e-patched-ns": "n"}}, "status": {"conditions": [{"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "Patched by an e2e test"}]}});
    let mut patched = site.merge(&status, patch).await.ok();
    assert_eq!(
        (
            &patched["metadata"]["annotations"]["e2e-patched-ns"],
            &patched["status"]["conditions"][0]["reason"]
        ),
        (&json!("n"), &json!("E2E"))
    );
    patched["status"]["conditions"].as_array_mut().unwrap().push(json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Updated by an e2e test", "lastTransitionTime": null}));
    let updated = site.put(&status, &patched).await.ok();
    let conditions = updated["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions.iter().any(|c| c["type"] == "StatusUpdate")
            && conditions.iter().any(|c| c["type"] == "StatusPatch"),
        "{conditions:?}"
    );

    // Finalizers of the spec go through a subresource of their own.
    let finalize = format!("{at}/finalize");
    let mut current = site.get(at).await.ok();
    current["spec"]["finalizers"].as_array_mut().unwrap().push(json!("e2e.example.com/fakeFinalizer"));
    let with = site.put(&finalize, &current).await.ok();
    assert_eq!(with["spec"]["finalizers"], json!(["kubernetes", "e2e.example.com/fakeFinalizer"]));
    let mut without = with;
    without["spec"]["finalizers"] = json!(["kubernetes"]);
    assert_eq!(site.put(&finalize, &without).await.ok()["spec"]["finalizers"], json!(["kubernetes"]));
}

#[tokio::test]
async fn a_service_account_lives_its_life() {
    let site = in_process().await;
    let accounts = format!("{}/serviceaccounts", site.namespace("sa").await);
    let mut watch = site.watch(&format!("{accounts}?labelSelector=test-serviceaccount-static%3Dtrue")).await;
    site.make(
        &accounts,
        json!({"metadata": {"name": "testserviceaccount", "labels": {"test-serviceaccount-static": "true"}}}),
    )
    .await;
    let at = format!("{accounts}/testserviceaccount");
    let patched = site.patch(STRATEGIC, &at, &json!({"automountServiceAccountToken": false})).await.ok();
    assert_eq!(patched["automountServiceAccountToken"], false);
    let all = site.get("/api/v1/serviceaccounts?labelSelector=test-serviceaccount-static%3Dtrue").await.ok();
    assert_eq!(all["items"][0]["automountServiceAccountToken"], false);
    let mut updated = patched;
    updated["automountServiceAccountToken"] = json!(true);
    assert_eq!(site.put(&at, &updated).await.ok()["automountServiceAccountToken"], true);
    site.delete(&format!("{accounts}?labelSelector=test-serviceaccount-static%3Dtrue")).await.ok();
    watch
        .expect(&[
            "ADDED testserviceaccount",
            "MODIFIED testserviceaccount",
            "MODIFIED testserviceaccount",
            "DELETED testserviceaccount",
        ])
        .await;
}

#[tokio::test]
async fn tokens_are_mounted_where_neither_the_pod_nor_its_account_says_no() {
    let site = in_process().await;
    let home = site.namespace("mounts").await;
    for (name, mounts) in [("mount", json!(true)), ("nomount", json!(false)), ("unset", Value::Null)] {
        site.make(
            &format!("{home}/serviceaccounts"),
            json!({"metadata": {"name": name}, "automountServiceAccountToken": mounts}),
        )
        .await;
    }
    let check = async |account: &str, pod: Value, wanted: bool| {
        let object = json!({"metadata": {"generateName": "p-"}, "spec": {"serviceAccountName": account, "automountServiceAccountToken": pod,
            "containers": [{"name": "c", "image": "i"}]}});
        let made = site.make(&format!("{home}/pods"), object).await;
        let mounts = made["spec"]["containers"][0]["volumeMounts"].as_array().into_iter().flatten();
        let mounted =
            mounts.filter(|m| m["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount").count();
        assert_eq!(mounted, usize::from(wanted), "{account} {pod}: {made}");
        if wanted {
            let sources = &made["spec"]["volumes"][0]["projected"]["sources"];
            assert_eq!(sources[0]["serviceAccountToken"]["path"], "token");
            assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
            assert_eq!(sources[2]["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"], "metadata.namespace");
        }
    };
    for (account, with_unset, with_true) in
        [("unset", true, true), ("mount", true, true), ("nomount", false, true)]
    {
        check(account, Value::Null, with_unset).await;
        check(account, json!(true), with_true).await;
        check(account, json!(false), false).await;
    }
}

#[tokio::test]
async fn reviews_say_what_the_impersonated_may_do() {
    let site = in_process().await;
    let home = site.namespace("reviews").await;
    site.make(&format!("{home}/serviceaccounts"), json!({"metadata": {"name": "e2e"}})).await;
    let user = "system:serviceaccount:reviews:e2e";
    let list = async || {
        let headers = [("impersonate-user", user), ("impersonate-group", "system:serviceaccounts")];
        site.call("GET", &format!("{home}/configmaps"), &headers, "").await.code == 200
    };
    let attributes = json!({"namespace": "reviews", "verb": "list", "resource": "configmaps", "group": "", "version": "v1"});
    let review = async |local: bool| {
        let spec = json!({"user": user, "resourceAttributes": attributes});
        let (path, object) = if local {
            (
                "/apis/authorization.k8s.io/v1/namespaces/reviews/localsubjectaccessreviews",
                json!({"metadata": {"namespace": "reviews"}, "spec": spec}),
            )
        } else {
            ("/apis/authorization.k8s.io/v1/subjectaccessreviews", json!({"spec": spec}))
        };
        site.make(path, object).await["status"]["allowed"] == true
    };
    assert_eq!((review(false).await, review(true).await, list().await), (false, false, false));
    let binding = json!({"metadata": {"name": "b"}, "subjects": [{"kind": "ServiceAccount", "name": "e2e", "namespace": "reviews"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
    site.make("/apis/rbac.authorization.k8s.io/v1/namespaces/reviews/rolebindings", binding).await;
    super::definitions::eventually("the binding counts", async || review(false).await).await;
    assert_eq!((review(true).await, list().await), (true, true));
}

#[tokio::test]
async fn a_token_of_an_account_is_known_by_its_issuer() {
    let site = in_process().await;
    let home = site.namespace("tokens").await;
    let request = json!({"spec": {"audiences": [], "expirationSeconds": 3600}});
    let token = site.make(&format!("{home}/serviceaccounts/default/token"), request).await;
    let jwt = token["status"]["token"].as_str().unwrap();
    assert_eq!(jwt.split('.').count(), 3);
    let review =
        site.make("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": jwt}})).await;
    assert_eq!(
        (&review["status"]["authenticated"], &review["status"]["user"]["username"]),
        (&json!(true), &json!("system:serviceaccount:tokens:default"))
    );
    let configuration = site.get("/.well-known/openid-configuration").await.ok();
    let keys = configuration["jwks_uri"].as_str().unwrap();
    assert!(keys.ends_with("/openid/v1/jwks"), "{keys}");
    let keys = site.get("/openid/v1/jwks").await.ok();
    assert!(keys["keys"][0]["kid"].is_string() && keys["keys"][0]["alg"].is_string(), "{keys}");
}

#[tokio::test]
async fn quotas_take_a_status_that_leaves_their_spec() {
    let site = in_process().await;
    let quotas = format!("{}/resourcequotas", site.namespace("quotas").await);
    let at = format!("{quotas}/q");
    site.make(&quotas, json!({"metadata": {"name": "q", "labels": {"e2e-test": "q"}}, "spec": {"hard": {"cpu": "500", "memory": "500Gi"}}})).await;
    let mut current = site.get(&at).await.ok();
    current["status"]["hard"] = json!({"cpu": "500", "memory": "500Gi"});
    assert_eq!(
        site.put(&format!("{at}/status"), &current).await.ok()["status"]["hard"],
        current["spec"]["hard"]
    );
    let patched = site.merge(&at, json!({"spec": {"hard": {"cpu": "1", "memory": "1Gi"}}})).await.ok();
    assert_eq!(patched["spec"]["hard"], json!({"cpu": "1", "memory": "1Gi"}));
    let status = site
        .merge(&format!("{at}/status"), json!({"status": {"hard": {"cpu": "1", "memory": "1Gi"}}}))
        .await
        .ok();
    assert_eq!(status["status"]["hard"], status["spec"]["hard"]);
    let other = json!([{"op": "replace", "path": "/spec/hard", "value": {"cpu": "9"}}, {"op": "replace", "path": "/status/hard/cpu", "value": "2"}]);
    let status = site.patch(JSON_PATCH, &format!("{at}/status"), &other).await.ok();
    assert_eq!(
        (&status["spec"]["hard"], &status["status"]["hard"]["cpu"]),
        (&json!({"cpu": "1", "memory": "1Gi"}), &json!("2"))
    );
    site.post(&quotas, &json!({"metadata": {"name": "bad"}, "spec": {"hard": {"cpu": "-1"}}}))
        .await
        .refused(422, "Invalid");
}

#[tokio::test]
async fn limits_are_given_to_pods_and_bound_them() {
    let site = in_process().await;
    let home = site.namespace("limits").await;
    let range = json!({"metadata": {"name": "limit-range"}, "spec": {"limits": [{"type": "Container",
        "min": {"cpu": "50m", "memory": "100Mi", "ephemeral-storage": "100Gi"}, "max": {"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"},
        "default": {"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"},
        "defaultRequest": {"cpu": "100m", "memory": "200Mi", "ephemeral-storage": "200Gi"}}]}});
    let mut watch = site.watch(&format!("{home}/limitranges")).await;
    site.make(&format!("{home}/limitranges"), range).await;
    watch.expect(&["ADDED limit-range"]).await;
    let pod = |name: &str, resources: Value| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}});
    let pods = format!("{home}/pods");
    let bare = site.make(&pods, pod("no-resources", json!({}))).await;
    let resources = &bare["spec"]["containers"][0]["resources"];
    assert_eq!(
        resources["requests"],
        json!({"cpu": "100m", "memory": "200Mi", "ephemeral-storage": "200Gi"})
    );
    assert_eq!(resources["limits"], json!({"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"}));
    let partial = json!({"requests": {"cpu": "300m", "memory": "150Mi"}, "limits": {"cpu": "300m"}});
    let partial = site.make(&pods, pod("partial", partial)).await;
    let resources = &partial["spec"]["containers"][0]["resources"];
    assert_eq!(
        resources["requests"],
        json!({"cpu": "300m", "memory": "150Mi", "ephemeral-storage": "200Gi"})
    );
    assert_eq!(resources["limits"], json!({"cpu": "300m", "memory": "500Mi", "ephemeral-storage": "500Gi"}));
    let small =
        pod("small", json!({"requests": {"cpu": "10m", "memory": "50Mi", "ephemeral-storage": "50Gi"}}));
    site.post(&pods, &small).await.refused(403, "Forbidden");
    let large =
        pod("large", json!({"requests": {"cpu": "600m", "memory": "600Mi", "ephemeral-storage": "600Gi"}}));
    site.post(&pods, &large).await;
    let mut current = site.get(&format!("{home}/limitranges/limit-range")).await.ok();
    current["spec"]["limits"][0]["min"] = json!({"cpu": "9m", "memory": "49Mi", "ephemeral-storage": "49Gi"});
    site.put(&format!("{home}/limitranges/limit-range"), &current).await.ok();
    watch.expect(&["MODIFIED limit-range"]).await;
    super::definitions::eventually("the new limits hold", async || {
        site.post(&pods, &small).await.code == 201
    })
    .await;
    site.post(&pods, &pod("larger", json!({"requests": {"cpu": "600m"}, "limits": {"cpu": "600m"}})))
        .await
        .refused(403, "Forbidden");
    site.delete(&format!("{home}/limitranges/limit-range")).await.ok();
    watch.expect(&["DELETED limit-range"]).await;
}
