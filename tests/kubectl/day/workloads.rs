//! A Deployment behind a Service: roll it out, change it, scale it, take it away.

use crate::cluster::Cluster;
use crate::kubectl::{Kubectl, Outcome, has};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

fn web(k: &Kubectl, cluster: &Cluster) -> String {
    let image = cluster.image_file();
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: {namespace}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata:
      labels: {{app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: web
        image: {image}
        command: [sh, -c, 'echo started on $(hostname); mkdir -p /tmp/www; hostname > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www']
        ports: [{{containerPort: 8080, name: http}}]
        env: [{{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]
        readinessProbe: {{tcpSocket: {{port: http}}, periodSeconds: 1}}
",
        namespace = k.namespace
    )
}

pub(super) fn apply(k: &Kubectl, cluster: &Cluster) -> Outcome {
    has(&k.ok_with(&["apply", "-f", "-"], &web(k, cluster))?, "deployment.apps/web created")?;
    has(&k.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?, "successfully rolled out")?;
    has(&k.ok_with(&["apply", "-f", "-"], &web(k, cluster))?, "unchanged")?;
    k.shows(&["get", "deploy", "web"], &["READY", "UP-TO-DATE", "AVAILABLE", "2/2"])?;
    k.shows(&["get", "deploy", "web", "-o", "wide"], &["CONTAINERS", "IMAGES", "SELECTOR", "app=web"])?;
    k.shows(&["get", "rs"], &["DESIRED", "CURRENT", "READY"])
}

pub(super) fn get_pods(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(&["get", "pods"], &["NAME", "READY", "STATUS", "RESTARTS", "AGE", "1/1", "Running"])?;
    k.shows(&["get", "pods", "-o", "wide"], &["IP", "NODE", "NOMINATED NODE", "READINESS GATES", "127."])?;
    k.shows(&["get", "pods", "-A"], &["NAMESPACE", &k.namespace])?;
    k.shows(&["get", "pods", "--field-selector", "status.phase=Running", "-o", "name"], &["pod/web-"])?;
    k.shows(&["get", "events"], &["Scheduled", "Started"])
}

pub(super) fn describe(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(
        &["describe", &pod(k)?],
        &["Node:", "Containers:", "Conditions:", "Ready", "Events:", "Started"],
    )?;
    k.shows(
        &["describe", "deployment", "web"],
        &["Replicas:", "StrategyType:", "RollingUpdate", "NewReplicaSet"],
    )?;
    k.shows(&["describe", "rs"], &["Controlled By:"])?;
    k.shows(&["describe", "cm", "one"], &["Data"])?;
    k.shows(&["describe", "secret", "hidden"], &["Opaque"])?;
    k.shows(&["describe", "sa", "default"], &["Name:"])?;
    k.shows(&["describe", "ns", &k.namespace], &["Active"])?;
    k.shows(&["describe", "nodes"], &["Allocatable:", "Conditions:", "Non-terminated Pods:", "kubelet"])?;
    k.shows(&["describe", "clusterrole", "view"], &["PolicyRule:"])
}

/// Whatever can be listed can be listed in every form, and described.
pub(super) fn describe_all(k: &Kubectl, _: &Cluster) -> Outcome {
    let kinds = k.ok(&["api-resources", "--verbs=list", "-o", "name"])?;
    let kinds: Vec<&str> = kinds.split_whitespace().collect();
    if kinds.len() < 25 {
        return Err(format!("only {} kinds can be listed", kinds.len()));
    }
    let all = kinds.join(",");
    k.ok(&["get", &all, "-o", "wide"])?;
    k.ok(&["get", &all, "-o", "yaml"])?;
    // To describe these, kubectls before 1.33 ask for the versions before v1, which Kubernetes 1.36 has not either.
    let early = ["ipaddresses.networking.k8s.io", "servicecidrs.networking.k8s.io"];
    let described = kinds.iter().filter(|kind| k.minor >= 33 || !early.contains(*kind));
    let all = described.copied().collect::<Vec<_>>().join(",");
    // Other kubectls may delete what they made between the list and the look.
    let mut described = k.run(&["describe", &all]);
    for _ in 0..5 {
        if described.ok || !described.stderr.contains("not found") {
            break;
        }
        described = k.run(&["describe", &all]);
    }
    if !described.ok {
        return Err(format!("describing every kind failed: {}", described.stderr));
    }
    ["kube-root-ca.crt", "PolicyRule:", "Subjects:", "Opaque", "Allocatable:", "Replicas:", "QoS Class:"]
        .iter()
        .try_for_each(|words| has(&described.stdout, words))
}

pub(super) fn expose(k: &Kubectl, _: &Cluster) -> Outcome {
    has(&k.ok(&["expose", "deployment", "web", "--port=8080"])?, "service/web exposed")?;
    k.shows(&["get", "svc", "web"], &["TYPE", "CLUSTER-IP", "ClusterIP", "127.", "8080/TCP"])?;
    k.until(&["get", "endpointslices"], "127.")?;
    k.until(&["describe", "svc", "web"], "127.")?;
    let ip = k.ok(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    let start = Instant::now();
    let mut names = std::collections::BTreeSet::new();
    while names.len() < 2 && start.elapsed() < Duration::from_secs(20) {
        let mut text = String::new();
        if let Ok(mut stream) = std::net::TcpStream::connect(format!("{ip}:8080")) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
            let _ = stream.read_to_string(&mut text);
        }
        names.extend(text.lines().filter(|l| l.starts_with("web-")).map(str::to_owned));
        std::thread::sleep(Duration::from_millis(50));
    }
    if names.len() == 2 { Ok(()) } else { Err(format!("the cluster IP {ip} gave {names:?}")) }
}

pub(super) fn scale(k: &Kubectl, _: &Cluster) -> Outcome {
    has(&k.ok(&["scale", "deployment/web", "--replicas=3"])?, "scaled")?;
    k.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    k.shows(&["get", "deploy", "web"], &["3/3"])?;
    k.fails(
        &["scale", "deployment/web", "--replicas=9", "--current-replicas=1"],
        "Expected replicas to be 1",
    )?;
    k.ok(&["scale", "deployment/web", "--replicas=1"])?;
    k.until(&["get", "pods", "-l", "app=web", "-o", "go-template={{len .items}}"], "1")?;
    k.until(&["get", "deploy", "web"], "1/1")
}

pub(super) fn rollout(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(&["rollout", "history", "deployment/web"], &["REVISION", "1"])?;
    k.ok(&["rollout", "pause", "deployment/web"])?;
    k.ok(&["set", "env", "deployment/web", "ROUND=2"])?;
    k.shows(&["rollout", "history", "deployment/web"], &["1"])?;
    k.ok(&["rollout", "resume", "deployment/web"])?;
    k.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    k.until(&["rollout", "history", "deployment/web"], "2")?;
    k.shows(&["rollout", "history", "deployment/web", "--revision=2"], &["ROUND"])?;
    k.ok(&["rollout", "undo", "deployment/web"])?;
    k.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    k.shows(
        &["get", "deploy", "web", "-o", "jsonpath=[{.spec.template.spec.containers[0].env[*].name}]"],
        &["[POD]"],
    )?;
    has(&k.ok(&["rollout", "restart", "deployment/web"])?, "restarted")?;
    k.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]).map(drop)
}

pub(super) fn set_image(k: &Kubectl, cluster: &Cluster) -> Outcome {
    k.ok(&["set", "image", "deployment/web", "web=example.invalid/none:1"])?;
    k.until(&["get", "pods"], "Pull")?;
    k.shows(&["get", "deploy", "web"], &["1/1"])?;
    k.ok(&["set", "image", "deployment/web", &format!("web={}", cluster.image_file())])?;
    k.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]).map(drop)
}

pub(super) fn wait(k: &Kubectl, _: &Cluster) -> Outcome {
    has(&k.ok(&["wait", "--for=condition=Available", "deployment/web", "--timeout=30s"])?, "condition met")?;
    // A pod that is on its way out may go between kubectl's list and its look at that pod.
    k.until(&["wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=30s"], "condition met")?;
    k.fails(&["wait", "--for=condition=Nonsense", "deployment/web", "--timeout=1s"], "timed out")
}

pub(super) fn cascade(k: &Kubectl, cluster: &Cluster) -> Outcome {
    k.ok(&["delete", "deployment", "web", "--cascade=orphan"])?;
    k.shows(&["get", "rs", "-o", "name"], &["replicaset.apps/web-"])?;
    k.shows(&["get", "pods", "-o", "name"], &["pod/web-"])?;
    // A Deployment of the same selector adopts what was left.
    k.ok_with(&["apply", "-f", "-"], &web(k, cluster))?;
    k.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    has(&k.ok(&["delete", "deployment", "web", "--cascade=foreground", "--timeout=60s"])?, "deleted")?;
    let left = k.ok(&["get", "rs,pods", "-l", "app=web", "-o", "name"])?;
    if left.trim().is_empty() { Ok(()) } else { Err(format!("foreground deletion left {left}")) }
}

/// The name of a running pod of the Deployment, `pod/...`.
pub(super) fn pod(k: &Kubectl) -> Result<String, String> {
    let names =
        k.ok(&["get", "pods", "-l", "app=web", "--field-selector=status.phase=Running", "-o", "name"])?;
    names.lines().next().map(str::to_owned).ok_or_else(|| "no pod runs".to_owned())
}
