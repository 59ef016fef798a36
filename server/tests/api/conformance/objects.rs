//! What single kinds promise beyond the life that all lead.

use super::site::{JSON_PATCH, MERGE, STRATEGIC, in_process};
use serde_json::{Value, json};

#[tokio::test]
async fn immutable_data_stays() {
    let site = in_process().await;
    let home = site.namespace("frozen").await;
    for (plural, value, other) in
        [("configmaps", "value-1", "value-2"), ("secrets", "dmFsdWUtMQ==", "dmFsdWUtMg==")]
    {
        let path = format!("{home}/{plural}");
        let at = format!("{path}/immutable");
        let made =
            site.make(&path, json!({"metadata": {"name": "immutable"}, "data": {"data-1": value}})).await;
        let mut current = made;
        current["data"]["data-4"] = json!(other);
        current = site.put(&at, &current).await.ok();
        current["immutable"] = json!(true);
        current = site.put(&at, &current).await.ok();
        let mut changed = current.clone();
        changed["data"]["data-5"] = json!(value);
        site.put(&at, &changed).await.refused(422, "Invalid");
        let mut thawed = current.clone();
        thawed["immutable"] = json!(false);
        site.put(&at, &thawed).await.refused(422, "Invalid");
        current["metadata"]["labels"] = json!({"label1": "value1"});
        site.put(&at, &current).await.ok();
        site.delete(&at).await.ok();
        site.post(&path, &json!({"metadata": {"name": "empty"}, "data": {"": value}}))
            .await
            .refused(422, "Invalid");
    }
}

#[tokio::test]
async fn a_config_map_is_fetched_by_label_after_a_patch() {
    let site = in_process().await;
    let home = site.namespace("maps").await;
    let maps = format!("{home}/configmaps");
    site.make(&maps, json!({"metadata": {"name": "m", "labels": {"test-configmap-static": "true"}}, "data": {"valueName": "value"}})).await;
    let patch =
        json!({"metadata": {"labels": {"test-configmap": "patched"}}, "data": {"valueName": "value1"}});
    site.patch(STRATEGIC, &format!("{maps}/m"), &patch).await.ok();
    let all = site.get("/api/v1/configmaps?labelSelector=test-configmap-static%3Dtrue").await.ok();
    let found = &all["items"][0];
    assert_eq!(
        (&found["data"]["valueName"], &found["metadata"]["labels"]["test-configmap"]),
        (&json!("value1"), &json!("patched"))
    );
    site.delete(&format!("{maps}?labelSelector=test-configmap-static%3Dtrue")).await.ok();
    site.get(&format!("{maps}/m")).await.refused(404, "NotFound");
}

#[tokio::test]
async fn events_of_both_groups_take_messages_and_series() {
    let site = in_process().await;
    let home = site.namespace("ev").await;
    let core = format!("{home}/events");
    let event = json!({"metadata": {"name": "event-test", "labels": {"testevent-constant": "true"}}, "message": "This is a test event", "reason": "Test", "type": "Normal",
        "count": 1, "involvedObject": {"namespace": "ev"}});
    site.make(&core, event).await;
    let at = format!("{core}/event-test");
    let patched =
        site.patch(STRATEGIC, &at, &json!({"message": "This is a test event - patched"})).await.ok();
    assert_eq!(patched["message"], "This is a test event - patched");
    let mut updated = patched;
    updated["series"] = json!({"count": 100, "lastObservedTime": "2026-01-01T00:00:00.000000Z"});
    assert_eq!(site.put(&at, &updated).await.ok()["series"]["count"], 100);
    let by_field =
        site.get(&format!("{core}?fieldSelector=reason%3DTest%2CinvolvedObject.namespace%3Dev")).await.ok();
    assert_eq!(by_field["items"].as_array().unwrap().len(), 1);
    site.delete(&at).await.ok();

    let newer = "/apis/events.k8s.io/v1/namespaces/ev/events";
    let event = json!({"metadata": {"name": "event-test", "labels": {"testevent-constant": "true"}}, "eventTime": "2026-01-01T00:00:00.000000Z", "note": "This is event-test", "action": "Do",
        "reason": "Test", "type": "Normal", "regarding": {"namespace": "ev"}, "reportingController": "test-controller", "reportingInstance": "test-node"});
    site.make(newer, event.clone()).await;
    let at = format!("{newer}/event-test");
    let all = site.get("/apis/events.k8s.io/v1/events?labelSelector=testevent-constant%3Dtrue").await.ok();
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
    let reports =
        site.get(&format!("{newer}?fieldSelector=reportingController%3Dtest-controller")).await.ok();
    assert_eq!(reports["items"].as_array().unwrap().len(), 1);
    // An event is patched in its series alone; what happened stays.
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
    let patched = site.patch(STRATEGIC, &at, &series).await.ok();
    assert_eq!(patched["series"]["count"], 2);
    let mut updated = patched;
    updated["series"] = json!({"count": 100, "lastObservedTime": "2026-01-01T00:02:01.000000Z"});
    assert_eq!(site.put(&at, &updated).await.ok()["series"]["count"], 100);
    let mut wrong = event;
    wrong["metadata"]["name"] = json!("wrong");
    wrong["reportingController"] = Value::Null;
    site.post(newer, &wrong).await.refused(422, "Invalid");
    site.delete(&format!("{newer}?labelSelector=testevent-constant%3Dtrue")).await.ok();
    assert_eq!(site.get(newer).await.ok()["items"], json!([]));
}

#[tokio::test]
async fn the_value_of_a_priority_class_stays() {
    let site = in_process().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    for (name, value) in [("p1", 1), ("p2", 2)] {
        site.make(classes, json!({"metadata": {"name": name}, "value": value})).await;
    }
    let listed = site.get(classes).await.ok();
    let names: Vec<&str> =
        listed["items"].as_array().unwrap().iter().map(|c| c["metadata"]["name"].as_str().unwrap()).collect();
    assert!(
        ["p1", "p2", "system-cluster-critical", "system-node-critical"].iter().all(|n| names.contains(n)),
        "{names:?}"
    );
    for (at, n) in [("p1", 1), ("p2", 2)] {
        let at = format!("{classes}/{at}");
        let mut current = site.get(&at).await.ok();
        current["description"] = json!("updated");
        site.put(&at, &current).await.ok();
        let patched = site.merge(&at, json!({"description": "patched"})).await.ok();
        assert_eq!(patched["description"], "patched");
        let mut wrong = patched;
        wrong["value"] = json!(n * 10);
        let refused = site.put(&at, &wrong).await;
        refused.refused(422, "Invalid");
        site.merge(&at, json!({"value": n * 10})).await.says(422, "may not be changed in an update");
    }
}

#[tokio::test]
async fn workloads_have_a_scale() {
    let site = in_process().await;
    let home = site.namespace("scales").await;
    let template =
        json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (path, selector) in [
        ("/api/v1/namespaces/scales/replicationcontrollers", json!({"app": "a"})),
        ("/apis/apps/v1/namespaces/scales/replicasets", json!({"matchLabels": {"app": "a"}})),
        ("/apis/apps/v1/namespaces/scales/deployments", json!({"matchLabels": {"app": "a"}})),
        ("/apis/apps/v1/namespaces/scales/statefulsets", json!({"matchLabels": {"app": "a"}})),
    ] {
        let made = site.make(path, json!({"metadata": {"name": "w"}, "spec": {"replicas": 1, "serviceName": "s", "selector": selector, "template": template}})).await;
        let at = format!("{path}/w/scale");
        let scale = site.get(&at).await.ok();
        assert_eq!(
            (&scale["kind"], &scale["apiVersion"]),
            (&json!("Scale"), &json!("autoscaling/v1")),
            "{path}"
        );
        assert_eq!(
            (&scale["spec"]["replicas"], &scale["status"]["selector"]),
            (&json!(1), &json!("app=a")),
            "{path}"
        );
        assert_eq!(scale["metadata"]["uid"], made["metadata"]["uid"]);
        let mut more = scale;
        more["spec"]["replicas"] = json!(2);
        assert_eq!(site.put(&at, &more).await.ok()["spec"]["replicas"], 2, "{path}");
        let patched = site.patch(STRATEGIC, &at, &json!({"spec": {"replicas": 4}})).await.ok();
        assert_eq!(patched["spec"]["replicas"], 4);
        assert_eq!(site.get(&format!("{path}/w")).await.ok()["spec"]["replicas"], 4);
        site.patch(MERGE, &at, &json!({"spec": {"replicas": -1}})).await.refused(422, "Invalid");
        site.put(&at, &more).await.refused(409, "Conflict");
    }
    let _ = home;
}

#[tokio::test]
async fn a_budget_blocks_evictions_until_it_allows_them() {
    let site = in_process().await;
    let home = site.namespace("pdb").await;
    let budgets = "/apis/policy/v1/namespaces/pdb/poddisruptionbudgets";
    let mut budget = site.make(budgets, json!({"metadata": {"name": "foo"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"foo": "bar"}}}})).await;
    budget["spec"]["minAvailable"] = json!("2%");
    assert_eq!(site.put(&format!("{budgets}/foo"), &budget).await.ok()["spec"]["minAvailable"], "2%");
    let patch = json!({"spec": {"minAvailable": "3%"}});
    assert_eq!(
        site.patch(STRATEGIC, &format!("{budgets}/foo"), &patch).await.ok()["spec"]["minAvailable"],
        "3%"
    );
    let pod = json!({"metadata": {"name": "p", "labels": {"foo": "bar"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    site.make(&format!("{home}/pods"), pod).await;
    let running =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    site.merge(&format!("{home}/pods/p/status"), running).await.ok();
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": "pdb"}});
    let evict = format!("{home}/pods/p/eviction");
    let refused = site.post(&evict, &eviction).await;
    let status = refused.refused(429, "TooManyRequests");
    assert_eq!(status["details"]["causes"][0]["reason"], "DisruptionBudget");
    let generation = site.get(&format!("{budgets}/foo")).await.ok()["metadata"]["generation"].clone();
    let allow = json!({"status": {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2, "observedGeneration": generation}});
    site.merge(&format!("{budgets}/foo/status"), allow).await.ok();
    assert_eq!(site.post(&evict, &eviction).await.code, 201);
    let spent = site.get(&format!("{budgets}/foo/status")).await.ok();
    assert_eq!(
        (&spent["status"]["disruptionsAllowed"], spent["status"]["disruptedPods"]["p"].is_string()),
        (&json!(0), true)
    );
    let clear = json!([{"op": "remove", "path": "/status/disruptedPods"}]);
    assert!(
        site.patch(JSON_PATCH, &format!("{budgets}/foo/status"), &clear).await.ok()["status"]
            .get("disruptedPods")
            .is_none()
    );
}

#[tokio::test]
async fn pods_may_have_volumes_of_drivers_inline() {
    let site = in_process().await;
    let home = site.namespace("inline").await;
    let pods = format!("{home}/pods");
    let pod = json!({"metadata": {"name": "p", "labels": {"p": "x"}}, "spec": {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/data"}]}],
        "volumes": [{"name": "v", "csi": {"driver": "e2e.example.com", "readOnly": true, "volumeAttributes": {"a": "b"}}}]}});
    let made = site.make(&pods, pod).await;
    let volumes = |p: &Value| {
        p["spec"]["volumes"].as_array().unwrap().iter().find(|v| v["name"] == "v").cloned().unwrap()
    };
    assert_eq!(
        volumes(&made)["csi"],
        json!({"driver": "e2e.example.com", "readOnly": true, "volumeAttributes": {"a": "b"}})
    );
    site.merge(&format!("{pods}/p"), json!({"metadata": {"labels": {"p": "y"}}})).await.ok();
    let listed = site.get(&format!("{pods}?labelSelector=p%3Dy")).await.ok();
    assert_eq!(volumes(&listed["items"][0]), volumes(&made));
    site.delete(&format!("{pods}/p")).await.ok();
    site.get(&format!("{pods}/p")).await.refused(404, "NotFound");
}

#[tokio::test]
async fn jobs_and_controllers_keep_their_dependents_unless_told() {
    let site = in_process().await;
    site.namespace("keeps").await;
    let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let jobs = "/apis/batch/v1/namespaces/keeps/jobs";
    site.make(jobs, json!({"metadata": {"name": "j"}, "spec": {"suspend": true, "template": template}}))
        .await;
    let got = site.delete(&format!("{jobs}/j")).await;
    let want = "299 - \"child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning\"";
    assert_eq!(got.warnings(), [want]);
    assert_eq!(got.ok()["metadata"]["finalizers"], json!(["orphan"]));
    let controllers = "/api/v1/namespaces/keeps/replicationcontrollers";
    let mut always = template;
    always["spec"]["restartPolicy"] = json!("Always");
    site.make(
        controllers,
        json!({"metadata": {"name": "c"}, "spec": {"selector": {"app": "a"}, "template": always}}),
    )
    .await;
    let got = site.delete(&format!("{controllers}/c")).await;
    assert!(got.warnings().is_empty());
    assert_eq!(got.ok()["metadata"]["finalizers"], json!(["orphan"]));
}

#[tokio::test]
async fn volumes_and_claims_have_phases() {
    let site = in_process().await;
    let home = site.namespace("pv").await;
    let (volumes, claims) = ("/api/v1/persistentvolumes", format!("{home}/persistentvolumeclaims"));
    let volume = json!({"metadata": {"name": "pv-1", "labels": {"e2e-pv-pool": "x"}}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"},
        "claimRef": {"name": "pvc-1", "namespace": "pv"}, "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": "/tmp/data"}, "storageClassName": ""}});
    let made = site.make(volumes, volume).await;
    assert_eq!(
        (&made["status"]["phase"], &made["spec"]["volumeMode"]),
        (&json!("Pending"), &json!("Filesystem"))
    );
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]));
    let claim = json!({"metadata": {"name": "pvc-1", "labels": {"e2e-pv-pool": "x"}}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}});
    let made = site.make(&claims, claim).await;
    assert_eq!(
        (&made["status"]["phase"], &made["metadata"]["finalizers"]),
        (&json!("Pending"), &json!(["kubernetes.io/pvc-protection"]))
    );
    for (at, plural) in [
        ("/api/v1/persistentvolumes/pv-1".to_owned(), "PersistentVolume"),
        (format!("{claims}/pvc-1"), "PersistentVolumeClaim"),
    ] {
        let patched =
            site.patch(STRATEGIC, &at, &json!({"metadata": {"labels": {"pv-1": "patched"}}})).await.ok();
        assert_eq!(
            (&patched["kind"], &patched["metadata"]["labels"]["pv-1"]),
            (&json!(plural), &json!("patched"))
        );
        let status = site.get(&format!("{at}/status")).await.ok();
        assert_eq!(status["status"]["phase"], "Pending");
    }
    let message = json!({"status": {"message": "StatusPatched", "reason": "E2E patchStatus"}});
    let patched = site.merge("/api/v1/persistentvolumes/pv-1/status", message).await.ok();
    assert_eq!(
        (&patched["status"]["message"], &patched["status"]["reason"]),
        (&json!("StatusPatched"), &json!("E2E patchStatus"))
    );
    let mut updated = patched;
    updated["status"] =
        json!({"phase": "Available", "message": "StatusUpdated", "reason": "E2E updateStatus"});
    assert_eq!(
        site.put("/api/v1/persistentvolumes/pv-1/status", &updated).await.ok()["status"]["message"],
        "StatusUpdated"
    );
    let bound =
        site.merge("/api/v1/persistentvolumes/pv-1/status", json!({"status": {"phase": "Bound"}})).await.ok();
    assert!(bound["status"]["lastPhaseTransitionTime"].is_string(), "{bound}");
    let condition = json!({"status": {"conditions": [{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "m"}]}});
    assert_eq!(
        site.merge(&format!("{claims}/pvc-1/status"), condition).await.ok()["status"]["conditions"][0]["type"],
        "StatusUpdate"
    );
    site.merge(&format!("{claims}/pvc-1"), json!({"spec": {"storageClassName": "other"}}))
        .await
        .refused(422, "Invalid");
}
