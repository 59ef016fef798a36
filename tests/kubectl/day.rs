//! The checks, in the order of a user's day. Each leaves the namespace as the next expects it.

use crate::cluster::Cluster;
use crate::kubectl::{Kubectl, Outcome, has};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

type Check = fn(&Kubectl, &Cluster) -> Outcome;

/// All checks by name.
pub(crate) const CHECKS: &[(&str, Check)] = &[
    ("version and discovery", discovery),
    ("explain", explain),
    ("namespace", namespace),
    ("create, get, replace", config_maps),
    ("output formats", output_formats),
    ("selectors and sorting", selectors),
    ("patch, label, annotate", patches),
    ("edit", edit),
    ("diff", diff),
    ("bad input", bad_input),
    ("apply a Deployment", apply),
    ("get pods", get_pods),
    ("watch", watch),
    ("describe", describe),
    ("logs", logs),
    ("exec", exec),
    ("cp", cp),
    ("port-forward", port_forward),
    ("expose", expose),
    ("scale", scale),
    ("rollout", rollout),
    ("set image", set_image),
    ("wait", wait),
    ("auth", auth),
    ("tokens", tokens),
    ("raw", raw),
    ("top", top),
    ("nodes", nodes),
    ("delete with cascade", cascade),
    ("clean up", clean_up),
];

fn discovery(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(&["version"], &["Server Version: v1.36"])?;
    k.shows(
        &["api-versions"],
        &["apps/v1", "v1", "rbac.authorization.k8s.io/v1", "apiextensions.k8s.io/v1"],
    )?;
    k.shows(&["api-resources"], &["deployments", "deploy", "apps/v1", "pods", "po", "endpointslices"])?;
    k.shows(&["api-resources", "--namespaced=false", "-o", "name"], &["nodes", "namespaces"])?;
    k.shows(&["cluster-info"], &["control plane", "is running at"])
}

fn explain(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(&["explain", "pods"], &["KIND:", "Pod", "spec", "status"])?;
    k.shows(&["explain", "deployment.spec.strategy"], &["rollingUpdate"])?;
    k.shows(&["explain", "pods", "--recursive"], &["terminationGracePeriodSeconds", "livenessProbe"])?;
    k.fails(&["explain", "pods.spec.nonsense"], "does not exist")
}

fn namespace(k: &Kubectl, _: &Cluster) -> Outcome {
    has(&k.ok(&["create", "namespace", &k.namespace])?, "created")?;
    k.fails(&["create", "namespace", &k.namespace], "already exists")?;
    k.until(&["get", "serviceaccounts"], "default")?;
    k.shows(&["get", "ns"], &["NAME", "STATUS", "AGE", &k.namespace, "Active"])
}

fn config_maps(k: &Kubectl, _: &Cluster) -> Outcome {
    has(
        &k.ok(&["create", "configmap", "one", "--from-literal=a=1", "--from-literal=b=2"])?,
        "configmap/one created",
    )?;
    k.shows(&["get", "configmap", "one"], &["NAME", "DATA", "AGE", "one", "2"])?;
    let yaml = k.ok(&["get", "cm", "one", "-o", "yaml"])?;
    has(&yaml, "a: \"1\"")?;
    has(&k.ok_with(&["replace", "-f", "-"], &yaml.replace("a: \"1\"", "a: \"3\""))?, "replaced")?;
    k.shows(&["get", "cm", "one", "-o", "jsonpath={.data.a}"], &["3"])?;
    // The version in that text is an old one now.
    k.fails_with(&["replace", "-f", "-"], &yaml, "the object has been modified")?;
    has(&k.ok(&["create", "secret", "generic", "hidden", "--from-literal=p=s"])?, "created")?;
    k.shows(&["get", "secret", "hidden"], &["TYPE", "Opaque", "1"])?;
    k.shows(
        &["create", "configmap", "two", "--from-literal=x=y", "--dry-run=server", "-o", "yaml"],
        &["x: \"y\"", "uid"],
    )?;
    k.fails(&["get", "configmap", "two"], "configmaps \"two\" not found")?;
    has(&k.ok(&["create", "configmap", "two", "--from-literal=x=y"])?, "created")
}

fn output_formats(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(&["get", "cm", "one", "-o", "json"], &["\"kind\": \"ConfigMap\"", "\"b\": \"2\""])?;
    k.shows(&["get", "cm", "one", "-o", "name"], &["configmap/one"])?;
    k.shows(&["get", "cm", "-o", "custom-columns=N:.metadata.name,B:.data.b"], &["N", "one", "2"])?;
    k.shows(&["get", "cm", "one", "-o", "go-template={{.data.b}}"], &["2"])?;
    k.shows(&["get", "cm", "--show-labels"], &["LABELS"])?;
    k.shows(&["get", "cm", "-A"], &["NAMESPACE", "kube-system"])?;
    k.shows(&["get", "all,cm"], &["configmap/one"])
}

fn selectors(k: &Kubectl, _: &Cluster) -> Outcome {
    k.ok(&["label", "cm", "one", "tier=front", "n=1"])?;
    k.ok(&["label", "cm", "two", "tier=back"])?;
    let front = k.ok(&["get", "cm", "-l", "tier=front", "-o", "name"])?;
    if front.trim() != "configmap/one" {
        return Err(format!("-l gave {front}"));
    }
    k.shows(&["get", "cm", "-l", "tier in (front,back),n", "-o", "name"], &["configmap/one"])?;
    let two = k.ok(&["get", "cm", "--field-selector", "metadata.name=two", "-o", "name"])?;
    if two.trim() != "configmap/two" {
        return Err(format!("--field-selector gave {two}"));
    }
    k.shows(
        &["get", "cm", "-l", "tier", "--sort-by=.metadata.name", "-L", "tier"],
        &["TIER", "front", "back"],
    )?;
    k.fails(&["get", "cm", "--field-selector", "spec.x=1"], "field label not supported")
}

fn patches(k: &Kubectl, _: &Cluster) -> Outcome {
    let get = ["get", "cm", "one", "-o", "jsonpath={.data.a}{.metadata.labels.tier}"];
    k.ok(&["patch", "cm", "one", "-p", r#"{"data":{"a":"4"}}"#])?;
    k.ok(&["patch", "cm", "one", "--type=merge", "-p", r#"{"metadata":{"labels":{"tier":"mid"}}}"#])?;
    k.shows(&get, &["4mid"])?;
    k.ok(&["patch", "cm", "one", "--type=json", "-p", r#"[{"op":"replace","path":"/data/a","value":"5"}]"#])?;
    k.shows(&get, &["5mid"])?;
    k.fails(&["patch", "cm", "one", "--type=json", "-p", r#"[{"op":"remove","path":"/data/none"}]"#], "")?;
    k.fails(&["label", "cm", "one", "tier=front"], "--overwrite")?;
    k.ok(&["label", "cm", "one", "tier=front", "--overwrite"])?;
    k.ok(&["annotate", "cm", "one", "note=hello"])?;
    k.shows(&["get", "cm", "one", "-o", "jsonpath={.metadata.annotations.note}"], &["hello"])?;
    k.ok(&["annotate", "cm", "one", "note-"])?;
    k.shows(&["get", "cm", "one", "-o", "jsonpath=[{.metadata.annotations.note}]"], &["[]"])
}

fn edit(k: &Kubectl, _: &Cluster) -> Outcome {
    let mut command = k.command(&["edit", "cm", "one"]);
    let output =
        command.env("EDITOR", "sed -i s/\\\"2\\\"/\\\"edited\\\"/").output().map_err(|e| e.to_string())?;
    has(&String::from_utf8_lossy(&output.stdout), "edited")
        .map_err(|e| format!("{e} {}", String::from_utf8_lossy(&output.stderr)))?;
    k.shows(&["get", "cm", "one", "-o", "jsonpath={.data.b}"], &["edited"])
}

fn diff(k: &Kubectl, _: &Cluster) -> Outcome {
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: three\ndata:\n  x: \"1\"\n";
    has(&k.ok_with(&["apply", "-f", "-"], manifest)?, "configmap/three created")?;
    has(&k.ok_with(&["apply", "-f", "-"], manifest)?, "unchanged")?;
    let output = k.run_with(&["diff", "-f", "-"], &manifest.replace('1', "2").replace("v2", "v1"));
    has(&output.stdout, "+  x: \"2\"").map_err(|e| format!("{e} {}", output.stderr))?;
    has(&k.ok_with(&["apply", "-f", "-"], &manifest.replace("x: \"1\"", "y: \"1\""))?, "configured")?;
    k.shows(&["get", "cm", "three", "-o", "jsonpath=[{.data.x}{.data.y}]"], &["[1]"])?;
    has(&k.ok_with(&["delete", "-f", "-"], manifest)?, "deleted")
}

fn bad_input(k: &Kubectl, _: &Cluster) -> Outcome {
    let pod = |name: &str, container: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  containers:\n  - {container}\n"
        )
    };
    k.fails_with(
        &["apply", "-f", "-"],
        &pod("UPPER", "{name: c, image: i}"),
        "metadata.name: Invalid value: \"UPPER\"",
    )?;
    k.fails_with(&["apply", "-f", "-"], &pod("p", "{name: c}"), "spec.containers[0].image: Required value")?;
    k.fails_with(&["apply", "-f", "-"], &pod("p", "{name: c, image: i, nonsense: 1}"), "unknown field")?;
    k.fails_with(&["apply", "-f", "-"], &pod("p", "{name: 1, image: i}"), "")?;
    k.fails_with(
        &["apply", "-f", "-"],
        "apiVersion: v9\nkind: Pod\nmetadata: {name: p}\n",
        "no matches for kind",
    )?;
    k.fails_with(&["apply", "-f", "-"], "{", "")?;
    k.fails(&["get", "nonsense"], "the server doesn't have a resource type \"nonsense\"")?;
    k.fails(&["get", "pods", "none"], "pods \"none\" not found")?;
    k.fails(&["create", "configmap", "x", "--from-literal=a=b", "-n", "no-such-namespace"], "not found")
}

fn web(k: &Kubectl, cluster: &Cluster) -> String {
    let image = cluster.image();
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

fn apply(k: &Kubectl, cluster: &Cluster) -> Outcome {
    has(&k.ok_with(&["apply", "-f", "-"], &web(k, cluster))?, "deployment.apps/web created")?;
    has(&k.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?, "successfully rolled out")?;
    has(&k.ok_with(&["apply", "-f", "-"], &web(k, cluster))?, "unchanged")?;
    k.shows(&["get", "deploy", "web"], &["READY", "UP-TO-DATE", "AVAILABLE", "2/2"])?;
    k.shows(&["get", "deploy", "web", "-o", "wide"], &["CONTAINERS", "IMAGES", "SELECTOR", "app=web"])?;
    k.shows(&["get", "rs"], &["DESIRED", "CURRENT", "READY"])
}

fn get_pods(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(&["get", "pods"], &["NAME", "READY", "STATUS", "RESTARTS", "AGE", "1/1", "Running"])?;
    k.shows(&["get", "pods", "-o", "wide"], &["IP", "NODE", "NOMINATED NODE", "READINESS GATES", "127."])?;
    k.shows(&["get", "pods", "-A"], &["NAMESPACE", &k.namespace])?;
    k.shows(&["get", "pods", "--field-selector", "status.phase=Running", "-o", "name"], &["pod/web-"])?;
    k.shows(&["get", "events"], &["Scheduled", "Started"])
}

fn pod(k: &Kubectl) -> Result<String, String> {
    let names =
        k.ok(&["get", "pods", "-l", "app=web", "--field-selector=status.phase=Running", "-o", "name"])?;
    names.lines().next().map(str::to_owned).ok_or_else(|| "no pod runs".to_owned())
}

fn watch(k: &Kubectl, _: &Cluster) -> Outcome {
    let mut child = k
        .command(&["get", "cm", "-w", "--output-watch-events"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let lines = BufReader::new(child.stdout.take().ok_or("piped")?);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    std::thread::sleep(Duration::from_secs(1));
    k.ok(&["create", "cm", "watched", "--from-literal=a=1"])?;
    k.ok(&["label", "cm", "watched", "x=y"])?;
    k.ok(&["delete", "cm", "watched"])?;
    let (start, mut seen) = (Instant::now(), String::new());
    while !seen.contains("DELETED") && start.elapsed() < Duration::from_secs(20) {
        if let Ok(line) = told.recv_timeout(Duration::from_millis(200)) {
            seen.push_str(line.split_whitespace().next().filter(|_| line.contains("watched")).unwrap_or(""));
            seen.push(' ');
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    let seen: Vec<&str> = seen.split_whitespace().collect();
    has(&seen.join(" "), "ADDED MODIFIED DELETED")
}

fn describe(k: &Kubectl, _: &Cluster) -> Outcome {
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

fn logs(k: &Kubectl, _: &Cluster) -> Outcome {
    let pod = pod(k)?;
    k.shows(&["logs", &pod], &["started on web-"])?;
    k.shows(&["logs", "deployment/web", "--tail=1"], &["started on"])?;
    k.shows(&["logs", "-l", "app=web", "--prefix", "--timestamps"], &["[pod/web-", "T"])?;
    k.fails(&["logs", &pod, "-p"], "previous terminated container")?;
    k.fails(&["logs", &pod, "-c", "none"], "container none is not valid")?;
    let mut follow =
        k.command(&["logs", "-f", &pod]).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    let mut lines = BufReader::new(follow.stdout.take().ok_or("piped")?).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    let _ = follow.kill();
    let _ = follow.wait();
    has(&first, "started on")
}

fn exec(k: &Kubectl, _: &Cluster) -> Outcome {
    let pod = pod(k)?;
    k.shows(&["exec", &pod, "--", "sh", "-c", "echo out; echo $POD"], &["out", "web-"])?;
    let sum = k.ok_with(&["exec", "-i", &pod, "--", "wc", "-c"], "hello")?;
    if sum.trim() != "5" {
        return Err(format!("exec -i gave {sum}"));
    }
    let code = k.run(&["exec", &pod, "--", "sh", "-c", "echo bad >&2; exit 7"]);
    has(&code.stderr, "bad")?;
    has(&code.stderr, "exit code 7")?;
    k.fails(&["exec", &pod, "--", "no-such-program"], "")?;
    // A terminal: `script` gives kubectl one.
    if which("script") {
        let mut inner = k.command(&["exec", "-it", &pod]);
        inner.args(["--", "sh", "-c", "test -t 0 && echo terminal"]);
        let line: Vec<String> = std::iter::once(inner.get_program())
            .chain(inner.get_args())
            .map(|a| format!("'{}'", a.to_string_lossy()))
            .collect();
        let output = std::process::Command::new("script")
            .args(["-qec", &line.join(" "), "/dev/null"])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())?;
        has(&String::from_utf8_lossy(&output.stdout), "terminal")?;
    }
    Ok(())
}

fn which(program: &str) -> bool {
    std::process::Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|o| o.status.success())
}

fn cp(k: &Kubectl, cluster: &Cluster) -> Outcome {
    let pod = pod(k)?.trim_start_matches("pod/").to_owned();
    let (from, back) = (cluster.scratch("sent"), cluster.scratch(&format!("back-{}", k.namespace)));
    std::fs::write(&from, "carried over").map_err(|e| e.to_string())?;
    let remote = format!("{pod}:/tmp/carried");
    k.ok(&["cp", &from.display().to_string(), &remote])?;
    k.shows(&["exec", &pod, "--", "cat", "/tmp/carried"], &["carried over"])?;
    k.ok(&["cp", &remote, &back.display().to_string()])?;
    has(&std::fs::read_to_string(back).unwrap_or_default(), "carried over")
}

fn port_forward(k: &Kubectl, _: &Cluster) -> Outcome {
    let mut child = k
        .command(&["port-forward", "deployment/web", ":8080"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().ok_or("piped")?);
    let _ = reader.read_line(&mut line);
    let port = line.split("127.0.0.1:").nth(1).and_then(|r| r.split(' ').next()).map(str::to_owned);
    let mut seen = String::new();
    if let Some(port) = port {
        for _ in 0..2 {
            if let Ok(mut stream) = std::net::TcpStream::connect(format!("127.0.0.1:{port}")) {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
                let _ = stream.read_to_string(&mut seen);
            }
        }
    }
    let _ = child.kill();
    let mut err = String::new();
    let _ = child.stderr.take().map(|mut e| e.read_to_string(&mut err));
    let _ = child.wait();
    if seen.matches("web-").count() == 2 { Ok(()) } else { Err(format!("{line} {seen} {err}")) }
}

fn expose(k: &Kubectl, _: &Cluster) -> Outcome {
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

fn scale(k: &Kubectl, _: &Cluster) -> Outcome {
    has(&k.ok(&["scale", "deployment/web", "--replicas=3"])?, "scaled")?;
    k.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    k.shows(&["get", "deploy", "web"], &["3/3"])?;
    k.fails(
        &["scale", "deployment/web", "--replicas=9", "--current-replicas=1"],
        "Expected replicas to be 1",
    )?;
    k.ok(&["scale", "deployment/web", "--replicas=1"])?;
    k.until(&["get", "deploy", "web"], "1/1")
}

fn rollout(k: &Kubectl, _: &Cluster) -> Outcome {
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

fn set_image(k: &Kubectl, cluster: &Cluster) -> Outcome {
    k.ok(&["set", "image", "deployment/web", "web=example.invalid/none:1"])?;
    k.until(&["get", "pods"], "Pull")?;
    k.shows(&["get", "deploy", "web"], &["1/1"])?;
    k.ok(&["set", "image", "deployment/web", &format!("web={}", cluster.image())])?;
    k.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]).map(drop)
}

fn wait(k: &Kubectl, _: &Cluster) -> Outcome {
    has(&k.ok(&["wait", "--for=condition=Available", "deployment/web", "--timeout=30s"])?, "condition met")?;
    has(
        &k.ok(&["wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=30s"])?,
        "condition met",
    )?;
    k.fails(&["wait", "--for=condition=Nonsense", "deployment/web", "--timeout=1s"], "timed out")
}

fn auth(k: &Kubectl, _: &Cluster) -> Outcome {
    has(&k.ok(&["auth", "can-i", "create", "pods"])?, "yes")?;
    let nobody = k.run(&["auth", "can-i", "create", "pods", "--as", "nobody"]);
    has(&nobody.stdout, "no")?;
    k.shows(&["auth", "can-i", "--list"], &["Resources", "*.*"])?;
    k.shows(&["auth", "whoami"], &["Username"])?;
    k.fails(
        &["get", "pods", "--as", "nobody"],
        "pods is forbidden: User \"nobody\" cannot list resource \"pods\" in API group \"\" in the namespace",
    )?;
    k.ok(&["create", "rolebinding", "looks", "--clusterrole=view", "--user=looker"])?;
    k.until(&["get", "pods", "--as", "looker"], "web-")?;
    k.fails(&["delete", "cm", "one", "--as", "looker"], "forbidden")
}

fn tokens(k: &Kubectl, _: &Cluster) -> Outcome {
    k.ok(&["create", "serviceaccount", "robot"])?;
    let token = k.ok(&["create", "token", "robot", "--duration=1h"])?;
    if token.trim().split('.').count() != 3 {
        return Err(format!("no JWT: {token}"));
    }
    k.shows(&["get", "sa"], &["robot"])
}

fn raw(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(&["get", "--raw", "/healthz"], &["ok"])?;
    k.shows(&["get", "--raw", "/readyz?verbose"], &["readyz check passed"])?;
    k.shows(&["get", "--raw", "/version"], &["\"minor\""])?;
    k.shows(&["get", "--raw", "/api/v1/namespaces/default"], &["\"kind\":\"Namespace\""])
}

fn top(k: &Kubectl, _: &Cluster) -> Outcome {
    k.fails(&["top", "pods"], "Metrics API not available")
}

fn nodes(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(&["get", "nodes"], &["STATUS", "ROLES", "AGE", "VERSION", "Ready", "v1.36"])?;
    let name = k.ok(&["get", &pod(k)?, "-o", "jsonpath={.spec.nodeName}"])?;
    k.ok(&["cordon", &name])?;
    k.shows(&["get", "nodes"], &["Ready,SchedulingDisabled"])?;
    k.ok(&["taint", "nodes", &name, "k=v:NoSchedule"])?;
    k.ok(&["taint", "nodes", &name, "k-"])?;
    let drained =
        k.ok(&["drain", &name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"])?;
    has(&drained, "drained")?;
    k.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let moved = k.ok(&["get", &pod(k)?, "-o", "jsonpath={.spec.nodeName}"])?;
    k.ok(&["uncordon", &name])?;
    if moved == name { Err(format!("the pod is still on {name}")) } else { Ok(()) }
}

fn cascade(k: &Kubectl, cluster: &Cluster) -> Outcome {
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

fn clean_up(k: &Kubectl, _: &Cluster) -> Outcome {
    has(&k.ok(&["delete", "cm", "one", "two"])?, "deleted")?;
    k.fails(&["delete", "cm", "one"], "not found")?;
    k.ok(&["delete", "cm", "one", "--ignore-not-found"])?;
    k.ok(&["delete", "cm", "--all"])?;
    has(&k.ok(&["delete", "namespace", &k.namespace, "--timeout=60s"])?, "deleted")?;
    k.fails(&["get", "ns", &k.namespace], "not found")
}
