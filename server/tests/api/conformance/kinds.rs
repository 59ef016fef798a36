//! An object of each kind that upstream serves in a version of its own, with what is peculiar to the kind.

use serde_json::{Value, json};

/// A kind, and how its objects are made.
pub(crate) struct Kind {
    /// Group, version and plural: `apps/v1/deployments`, `v1/pods`.
    pub(crate) at: &'static str,
    pub(crate) cluster: bool,
    /// What the n-th object of a namespace has beside its metadata.
    pub(crate) body: fn(&str, usize) -> Value,
    pub(crate) name: fn(usize) -> String,
    /// A status that may be written.
    pub(crate) status: Option<Value>,
    /// Whether a write of the status keeps the annotations that come with it; `None` where upstream's suite does not ask.
    pub(crate) annotates: Option<bool>,
    /// A finalizer that somebody else than the server takes away.
    pub(crate) held: Option<&'static str>,
    /// Dependents of a deleted object are orphaned where nobody says otherwise.
    pub(crate) orphans: bool,
    /// What every write is warned of.
    pub(crate) warns: &'static str,
    /// The server writes conditions of its own, at any time.
    pub(crate) restless: bool,
}

impl Kind {
    fn new(at: &'static str, cluster: bool, body: fn(&str, usize) -> Value) -> Self {
        let name = |n| format!("it-{n}");
        let (status, annotates, held) = (None, None, None);
        Kind { at, cluster, body, name, status, annotates, held, orphans: false, warns: "", restless: false }
    }

    fn called(mut self, name: fn(usize) -> String) -> Self {
        self.name = name;
        self
    }

    /// With a status whose writes keep annotations.
    fn status(mut self, status: Value) -> Self {
        (self.status, self.annotates) = (Some(status), Some(true));
        self
    }

    /// With a status whose writes change nothing else.
    fn bare_status(mut self, status: Value) -> Self {
        (self.status, self.annotates) = (Some(status), Some(false));
        self
    }

    fn held(mut self, finalizer: &'static str) -> Self {
        self.held = Some(finalizer);
        self
    }

    fn restless(mut self) -> Self {
        self.restless = true;
        self
    }

    fn orphans(mut self) -> Self {
        self.orphans = true;
        self
    }

    fn warns(mut self, words: &'static str) -> Self {
        self.warns = words;
        self
    }

    /// `/apis/apps/v1`
    pub(crate) fn version_path(&self) -> String {
        let version = self.at.rsplit_once('/').unwrap().0;
        if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") }
    }

    pub(crate) fn plural(&self) -> &'static str {
        self.at.rsplit_once('/').unwrap().1
    }

    pub(crate) fn group(&self) -> &'static str {
        self.at.split_once('/').unwrap().0
    }
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn workload(more: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "a"}}, "template": template()});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({"spec": spec})
}

fn job() -> Value {
    json!({"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}})
}

fn condition(kind: &str) -> Value {
    json!([{"type": kind, "status": "True", "reason": "Test", "message": "set by a test"}])
}

/// As types of `meta/v1` have them, with all their fields.
fn dated(kind: &str) -> Value {
    let mut conditions = condition(kind);
    conditions[0]["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
    conditions
}

fn webhooks() -> Value {
    json!({"webhooks": [{"name": "hook.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://hooks.example.com/"}, "rules": []}]})
}

fn rules() -> Value {
    json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["deployments"]}]})
}

fn request() -> Value {
    use base64::Engine;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "e2e");
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    json!(base64::engine::general_purpose::STANDARD.encode(pem))
}

/// All of them.
pub(crate) fn kinds() -> Vec<Kind> {
    [core(), workloads(), networking(), policy(), storage(), extensions()].into_iter().flatten().collect()
}

fn core() -> Vec<Kind> {
    let spaced = |at, body| Kind::new(at, false, body);
    let volume = json!({"phase": "Failed", "reason": "Test", "message": "set by a test"});
    vec![
        spaced("v1/configmaps", |_, _| json!({"data": {"a": "b"}})),
        spaced("v1/endpoints", |_, n| {
            let address = format!("10.0.1.{n}");
            json!({"subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}]})
        })
        .warns("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        spaced("v1/events", |ns, _| {
            json!({"involvedObject": {"namespace": ns, "kind": "Pod", "name": "p"}, "reason": "Test", "message": "m",
                "type": "Normal", "source": {"component": "test"}, "count": 1})
        }),
        spaced("v1/limitranges", |_, _| {
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "default": {"cpu": "500m"}}]}})
        }),
        spaced("v1/persistentvolumeclaims", |_, _| {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}})
        })
        .status(json!({"conditions": condition("StatusPatched")}))
        .held("kubernetes.io/pvc-protection"),
        spaced("v1/pods", |_, _| json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}))
            .status(json!({"phase": "Running"})),
        spaced("v1/podtemplates", |_, _| json!({"template": template()})),
        spaced("v1/replicationcontrollers", |_, _| json!({"spec": {"replicas": 1, "selector": {"app": "a"}, "template": template()}}))
            .status(json!({"replicas": 1, "conditions": condition("Available")}))
            .orphans(),
        spaced("v1/resourcequotas", |_, _| json!({"spec": {"hard": {"cpu": "100", "memory": "500Gi"}}}))
            .status(json!({"hard": {"cpu": "100"}, "used": {"cpu": "0"}})),
        spaced("v1/secrets", |_, _| json!({"data": {"a": "Yg=="}})),
        spaced("v1/serviceaccounts", |_, _| json!({"automountServiceAccountToken": false})),
        spaced("v1/services", |_, _| {
            json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/none",
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}})
        })
        .status(json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1", "ipMode": "VIP"}]}})),
        Kind::new("v1/nodes", true, |_, _| json!({"spec": {"unschedulable": true}}))
            .status(json!({"conditions": condition("Tested")})),
        Kind::new("v1/persistentvolumes", true, |_, n| {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "none",
                "csi": {"driver": "none.example.com", "volumeHandle": format!("v{n}")}}})
        })
        .status(volume)
        .held("kubernetes.io/pv-protection"),
    ]
}

fn workloads() -> Vec<Kind> {
    let spaced = |at, body| Kind::new(at, false, body);
    let daemons = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0,
        "conditions": condition("StatusUpdate")});
    vec![
        spaced("apps/v1/controllerrevisions", |_, n| json!({"revision": n, "data": {"spec": {"a": "b"}}})),
        spaced("apps/v1/daemonsets", |_, _| workload(json!({}))).status(daemons),
        spaced("apps/v1/deployments", |_, _| workload(json!({"replicas": 1})))
            .status(json!({"conditions": condition("StatusUpdate")})),
        spaced("apps/v1/replicasets", |_, _| workload(json!({"replicas": 1})))
            .status(json!({"replicas": 0, "conditions": condition("StatusUpdate")})),
        spaced("apps/v1/statefulsets", |_, _| workload(json!({"serviceName": "s", "replicas": 1})))
            .status(json!({"replicas": 0, "conditions": condition("StatusUpdate")})),
        spaced("autoscaling/v1/horizontalpodautoscalers", |_, _| {
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}})
        })
        .status(json!({"currentReplicas": 1, "desiredReplicas": 2})),
        spaced("autoscaling/v2/horizontalpodautoscalers", |_, _| {
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}})
        })
        .status(json!({"currentReplicas": 1, "desiredReplicas": 2})),
        spaced("batch/v1/cronjobs", |_, _| json!({"spec": {"schedule": "*/1 * * * *", "suspend": true, "jobTemplate": {"spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}}))
            .status(json!({"lastScheduleTime": "2026-01-01T00:00:00Z"})),
        spaced("batch/v1/jobs", |_, _| json!({"spec": job()}))
            .status(json!({"conditions": condition("CustomConditionType")}))
            .orphans(),
        spaced("policy/v1/poddisruptionbudgets", |_, _| json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}}))
            .status(json!({"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2, "observedGeneration": 1})),
        spaced("coordination.k8s.io/v1/leases", |_, _| {
            json!({"spec": {"holderIdentity": "me", "leaseDurationSeconds": 30, "acquireTime": "2026-01-01T00:00:00.000000Z",
                "renewTime": "2026-01-01T00:00:05.000000Z", "leaseTransitions": 0}})
        }),
        Kind::new("scheduling.k8s.io/v1/priorityclasses", true, |_, n| json!({"value": 100 + n, "description": "d"})),
        Kind::new("node.k8s.io/v1/runtimeclasses", true, |_, _| json!({"handler": "runc", "scheduling": {"nodeSelector": {"a": "b"}}})),
    ]
}

fn networking() -> Vec<Kind> {
    let spaced = |at, body| Kind::new(at, false, body);
    vec![
        spaced("discovery.k8s.io/v1/endpointslices", |_, n| {
            let address = format!("10.0.1.{n}");
            json!({"addressType": "IPv4", "endpoints": [{"addresses": [address]}], "ports": [{"name": "http", "port": 80}]})
        }),
        spaced("events.k8s.io/v1/events", |ns, _| {
            json!({"regarding": {"namespace": ns, "kind": "Pod", "name": "p"}, "eventTime": "2026-01-01T00:00:00.000000Z",
                "reportingController": "test.example.com/controller", "reportingInstance": "test", "action": "Do",
                "reason": "Test", "type": "Normal", "note": "n"})
        }),
        spaced(
            "networking.k8s.io/v1/ingresses",
            |_, _| json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        )
        .status(json!({"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}})),
        spaced(
            "networking.k8s.io/v1/networkpolicies",
            |_, _| json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}),
        ),
        Kind::new(
            "networking.k8s.io/v1/ingressclasses",
            true,
            |_, _| json!({"spec": {"controller": "example.com/controller"}}),
        ),
        Kind::new(
            "networking.k8s.io/v1/ipaddresses",
            true,
            |ns, _| json!({"spec": {"parentRef": {"resource": "services", "namespace": ns, "name": "s"}}}),
        )
        .called(|n| format!("192.0.2.{}", n + 1)),
        Kind::new(
            "networking.k8s.io/v1/servicecidrs",
            true,
            |_, n| json!({"spec": {"cidrs": [format!("10.{}.0.0/24", 50 + n)]}}),
        )
        .status(json!({"conditions": dated("Tested")})),
    ]
}

fn policy() -> Vec<Kind> {
    fn cluster_grant(_: &str, _: usize) -> Value {
        json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": []})
    }
    vec![
        Kind::new("rbac.authorization.k8s.io/v1/roles", false, |_, _| json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})),
        Kind::new("rbac.authorization.k8s.io/v1/rolebindings", false, cluster_grant),
        Kind::new("rbac.authorization.k8s.io/v1/clusterroles", true, |_, _| json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})),
        Kind::new("rbac.authorization.k8s.io/v1/clusterrolebindings", true, cluster_grant),
        Kind::new("certificates.k8s.io/v1/certificatesigningrequests", true, |_, _| {
            json!({"spec": {"signerName": "example.com/test", "usages": ["digital signature", "key encipherment", "server auth"],
                "request": request(), "expirationSeconds": 3600}})
        })
        .status(json!({"conditions": condition("Failed")})),
        Kind::new("flowcontrol.apiserver.k8s.io/v1/flowschemas", true, |_, _| {
            json!({"spec": {"matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"},
                "distinguisherMethod": {"type": "ByUser"}, "rules": [{
                    "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}})
        })
        .bare_status(json!({"conditions": dated("Tested")}))
        .restless(),
        Kind::new("flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations", true, |_, _| {
            json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}})
        })
        .bare_status(json!({"conditions": dated("Tested")})),
    ]
}

fn storage() -> Vec<Kind> {
    let global = |at, body| Kind::new(at, true, body);
    vec![
        global("storage.k8s.io/v1/csidrivers", |_, _| json!({"spec": {"volumeLifecycleModes": ["Ephemeral"], "attachRequired": false}})),
        global("storage.k8s.io/v1/csinodes", |_, _| json!({"spec": {"drivers": [{"name": "d.example.com", "nodeID": "n", "topologyKeys": ["k"]}]}})),
        Kind::new("storage.k8s.io/v1/csistoragecapacities", false, |_, _| json!({"storageClassName": "class.example.com", "capacity": "1Gi"})),
        global("storage.k8s.io/v1/storageclasses", |_, _| json!({"provisioner": "example.com/none", "reclaimPolicy": "Delete"})),
        global("storage.k8s.io/v1/volumeattachments", |_, n| {
            json!({"spec": {"attacher": "none.example.com", "nodeName": "n", "source": {"persistentVolumeName": format!("v{n}")}}})
        })
        .bare_status(json!({"attached": true})),
        global("storage.k8s.io/v1/volumeattributesclasses", |_, _| json!({"driverName": "none.example.com", "parameters": {"iops": "1"}}))
            .held("kubernetes.io/vac-protection"),
        global("resource.k8s.io/v1/deviceclasses", |_, _| json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == \"d.example.com\""}}]}})),
        Kind::new("resource.k8s.io/v1/resourceclaims", false, |_, _| {
            json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}})
        }),
        Kind::new("resource.k8s.io/v1/resourceclaimtemplates", false, |_, _| {
            json!({"spec": {"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}}})
        }),
        global("resource.k8s.io/v1/resourceslices", |_, n| {
            json!({"spec": {"driver": "d.example.com", "nodeName": "n", "pool": {"name": format!("p{n}"), "generation": 1, "resourceSliceCount": 1},
                "devices": [{"name": "dev-0"}]}})
        }),
    ]
}

fn extensions() -> Vec<Kind> {
    let global = |at, body| Kind::new(at, true, body);
    fn binding(_: &str, _: usize) -> Value {
        json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}})
    }
    vec![
        global("admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", |_, _| webhooks()),
        global("admissionregistration.k8s.io/v1/validatingwebhookconfigurations", |_, _| webhooks()),
        global("admissionregistration.k8s.io/v1/validatingadmissionpolicies", |_, _| {
            json!({"spec": {"matchConstraints": rules(), "validations": [{"expression": "object.spec.replicas <= 100"}]}})
        })
        .bare_status(json!({"conditions": dated("Tested")})),
        global("admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", binding),
        global("admissionregistration.k8s.io/v1/mutatingadmissionpolicies", |_, _| {
            json!({"spec": {"matchConstraints": rules(), "reinvocationPolicy": "Never", "mutations": [{"patchType": "ApplyConfiguration",
                "applyConfiguration": {"expression": "Object{metadata: Object.metadata{annotations: {\"k\": \"v\"}}}"}}]}})
        }),
        global("admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings", |_, _| json!({"spec": {"policyName": "p"}})),
        global("apiextensions.k8s.io/v1/customresourcedefinitions", |_, n| {
            json!({"spec": {"group": "e2e.example.com", "scope": "Namespaced", "names": {"plural": format!("t{n}s"), "kind": format!("T{n}")},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
        })
        .called(|n| format!("t{n}s.e2e.example.com"))
        .bare_status(json!({"conditions": condition("Tested")}))
        .restless(),
        global("apiregistration.k8s.io/v1/apiservices", |_, n| {
            json!({"spec": {"group": format!("g{n}.example.com"), "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 15,
                "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "none"}}})
        })
        .called(|n| format!("v1.g{n}.example.com"))
        .bare_status(json!({"conditions": condition("Tested")}))
        .restless(),
    ]
}
