//! Discovery, and objects without pods: create, read in every form, change, compare.

use crate::cluster::Cluster;
use crate::kubectl::{Kubectl, Outcome, Output, has};

pub(super) fn discovery(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(&["version"], &["Server Version:", "v1.36."])?;
    k.shows(
        &["api-versions"],
        &["apps/v1", "v1", "rbac.authorization.k8s.io/v1", "apiextensions.k8s.io/v1"],
    )?;
    k.shows(&["api-resources"], &["deployments", "deploy", "apps/v1", "pods", "po", "endpointslices"])?;
    k.shows(&["api-resources", "--namespaced=false", "-o", "name"], &["nodes", "namespaces"])?;
    k.shows(&["cluster-info"], &["control plane", "is running at"])
}

pub(super) fn explain(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(&["explain", "pods"], &["KIND:", "Pod", "spec", "status"])?;
    k.shows(&["explain", "deployment.spec.strategy"], &["rollingUpdate"])?;
    k.shows(&["explain", "pods", "--recursive"], &["terminationGracePeriodSeconds", "livenessProbe"])?;
    k.fails(&["explain", "pods.spec.nonsense"], "does not exist")
}

pub(super) fn namespace(k: &Kubectl, _: &Cluster) -> Outcome {
    has(&k.ok(&["create", "namespace", &k.namespace])?, "created")?;
    k.fails(&["create", "namespace", &k.namespace], "already exists")?;
    k.until(&["get", "serviceaccounts"], "default")?;
    k.shows(&["get", "ns"], &["NAME", "STATUS", "AGE", &k.namespace, "Active"])
}

pub(super) fn config_maps(k: &Kubectl, _: &Cluster) -> Outcome {
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

pub(super) fn output_formats(k: &Kubectl, _: &Cluster) -> Outcome {
    k.shows(&["get", "cm", "one", "-o", "json"], &["\"kind\": \"ConfigMap\"", "\"b\": \"2\""])?;
    k.shows(&["get", "cm", "one", "-o", "name"], &["configmap/one"])?;
    k.shows(&["get", "cm", "-o", "custom-columns=N:.metadata.name,B:.data.b"], &["N", "one", "2"])?;
    k.shows(&["get", "cm", "one", "-o", "go-template={{.data.b}}"], &["2"])?;
    k.shows(&["get", "cm", "--show-labels"], &["LABELS"])?;
    k.shows(&["get", "cm", "-A"], &["NAMESPACE", "kube-system"])?;
    k.shows(&["get", "all,cm"], &["configmap/one"])
}

pub(super) fn selectors(k: &Kubectl, _: &Cluster) -> Outcome {
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

pub(super) fn patches(k: &Kubectl, _: &Cluster) -> Outcome {
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

pub(super) fn edit(k: &Kubectl, _: &Cluster) -> Outcome {
    let mut command = k.command(&["edit", "cm", "one"]);
    let output =
        command.env("EDITOR", "sed -i s/\\\"2\\\"/\\\"edited\\\"/").output().map_err(|e| e.to_string())?;
    has(&String::from_utf8_lossy(&output.stdout), "edited")
        .map_err(|e| format!("{e} {}", String::from_utf8_lossy(&output.stderr)))?;
    k.shows(&["get", "cm", "one", "-o", "jsonpath={.data.b}"], &["edited"])
}

/// Apply on the server's side: fields have owners, and whoever wants another's has to say so.
pub(super) fn server_side_apply(k: &Kubectl, _: &Cluster) -> Outcome {
    let manifest =
        |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: applied}}\ndata: {data}\n");
    let apply = |manager: &str, data: &str, more: &[&str]| {
        let manager = format!("--field-manager={manager}");
        k.run_with(&[&["apply", "--server-side", &manager, "-f", "-"], more].concat(), &manifest(data))
    };
    let done = |output: Output| if output.ok { Ok(output.stdout) } else { Err(output.stderr) };
    has(&done(apply("one", "{a: b, b: c}", &[]))?, "configmap/applied serverside-applied")?;
    let refused = apply("two", "{a: other}", &[]);
    has(&refused.stderr, "Apply failed with 1 conflict: conflict with \"one\": .data.a")?;
    k.shows(&["get", "cm", "applied", "-o", "jsonpath={.data.a}"], &["b"])?;
    done(apply("two", "{a: other, d: e}", &["--force-conflicts"]))?;
    // What its only owner no longer applies goes; what another owns stays.
    done(apply("one", "{b: c}", &[]))?;
    done(apply("two", "{a: other}", &[]))?;
    k.shows(&["get", "cm", "applied", "-o", "jsonpath={.data}"], &[r#"{"a":"other","b":"c"}"#])?;
    k.shows(
        &["get", "cm", "applied", "-o", "yaml", "--show-managed-fields"],
        &["manager: one", "manager: two"],
    )?;
    k.ok(&["delete", "cm", "applied"]).map(drop)
}

pub(super) fn diff(k: &Kubectl, _: &Cluster) -> Outcome {
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: three\ndata:\n  x: \"1\"\n";
    has(&k.ok_with(&["apply", "-f", "-"], manifest)?, "configmap/three created")?;
    has(&k.ok_with(&["apply", "-f", "-"], manifest)?, "unchanged")?;
    let output = k.run_with(&["diff", "-f", "-"], &manifest.replace('1', "2").replace("v2", "v1"));
    has(&output.stdout, "+  x: \"2\"").map_err(|e| format!("{e} {}", output.stderr))?;
    has(&k.ok_with(&["apply", "-f", "-"], &manifest.replace("x: \"1\"", "z: \"1\""))?, "configured")?;
    k.shows(&["get", "cm", "three", "-o", "jsonpath=[{.data.x}{.data.z}]"], &["[1]"])?;
    has(&k.ok_with(&["delete", "-f", "-"], manifest)?, "deleted")
}
