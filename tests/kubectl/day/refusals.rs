//! Wrong input: every refusal is clear, and nothing is half done.

use crate::cluster::Cluster;
use crate::kubectl::{Kubectl, Outcome, has};

fn config_map(name: &str, rest: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n{rest}\n")
}

fn pod(name: &str, container: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  containers:\n  - {container}\n")
}

/// Manifests that nobody takes.
pub(super) fn manifests(k: &Kubectl, _: &Cluster) -> Outcome {
    let strict = "unknown field \"dataa\"";
    let cases: &[(String, &str)] = &[
        (pod("UPPER", "{name: c, image: i}"), "metadata.name: Invalid value: \"UPPER\""),
        (pod("p", "{name: c}"), "spec.containers[0].image: Required value"),
        (pod("p", "{name: c, image: i, nonsense: 1}"), "unknown field \"spec.containers[0].nonsense\""),
        (pod("p", "{name: 1, image: i}"), "cannot unmarshal number into Go struct field"),
        (config_map("c", "dataa: {a: b}"), strict),
        (config_map("c", "data: [1]"), "json: cannot unmarshal array into Go struct field ConfigMap.data"),
        (config_map("c", "  labels: {\"a b\": c}"), "metadata.labels: Invalid value: \"a b\""),
        (config_map("c", "metadata: {a: b"), "error converting YAML to JSON"),
        ("apiVersion: v9\nkind: Pod\nmetadata: {name: p}\n".to_owned(), "no matches for kind"),
        ("foo: bar\n".to_owned(), "apiVersion not set"),
        (String::new(), "no objects passed to apply"),
        ("{".to_owned(), "error"),
    ];
    for (manifest, words) in cases {
        k.fails_with(&["apply", "-f", "-"], manifest, words)?;
    }
    let odd = config_map("odd", "dataa: {a: b}");
    k.fails_with(&["create", "--validate=strict", "-f", "-"], &odd, strict)?;
    let warned = k.run_with(&["create", "--validate=warn", "-f", "-"], &odd);
    has(&warned.stdout, "configmap/odd created")?;
    has(&warned.stderr, "Warning: unknown field \"dataa\"")?;
    k.ok_with(&["replace", "--validate=ignore", "-f", "-"], &odd)?;
    k.fails_with(&["create", "-f", "-"], &config_map("odd", ""), "configmaps \"odd\" already exists")?;
    k.fails(&["apply", "-f", "/nonexistent.yaml"], "does not exist")?;
    // One bad object does not keep the good one beside it from being applied, and says so.
    let both = format!("{}---\n{}", config_map("good", ""), pod("BAD", "{name: c, image: i}"));
    k.fails_with(&["apply", "-f", "-"], &both, "Pod \"BAD\" is invalid")?;
    k.ok(&["delete", "configmap", "good", "odd"]).map(drop)
}

/// Objects and requests beyond their bounds.
pub(super) fn oversize(k: &Kubectl, cluster: &Cluster) -> Outcome {
    for (bytes, words) in [
        (1_500_000, "is invalid: []: Too long: may not be more than 1048576 bytes"),
        (4_000_000, "Request entity too large: limit is 3145728"),
    ] {
        let file = cluster.scratch(&format!("large-{}-{bytes}", k.namespace));
        std::fs::write(&file, "a".repeat(bytes)).map_err(|e| e.to_string())?;
        k.fails(&["create", "configmap", "large", &format!("--from-file=f={}", file.display())], words)?;
    }
    let large = config_map("large", &format!("data: {{a: '{}'}}", "b".repeat(300_000)));
    k.fails_with(&["apply", "-f", "-"], &large, "metadata.annotations: Too long")?;
    k.fails(&["get", "configmap", "large"], "not found")
}

/// Names that are not there, flags and patches that make no sense. ConfigMap `one` is there and stays as it is.
pub(super) fn commands(k: &Kubectl, _: &Cluster) -> Outcome {
    let before = k.ok(&["get", "cm", "one", "-o", "yaml"])?;
    let cases: &[(&[&str], &str)] = &[
        (&["get", "nonsense"], "the server doesn't have a resource type \"nonsense\""),
        (&["get", "pods", "none"], "pods \"none\" not found"),
        (&["get", "pods", "-l", "a b"], "unable to parse requirement: found 'b'"),
        (&["get", "pods", "--field-selector=bogus=x"], "field label not supported: bogus"),
        (&["get", "--raw", "/nothing"], "could not find the requested resource"),
        (&["create", "configmap", "x", "--from-literal=a=b", "-n", "no-such-namespace"], "not found"),
        (
            &["create", "configmap", "x_y", "--from-literal=a=b"],
            "a lowercase RFC 1123 subdomain must consist",
        ),
        (&["create", "deployment", "x", "--image=i", "--replicas=-1"], "spec.replicas: Invalid value: -1"),
        (&["create", "token", "nobody"], "serviceaccounts \"nobody\" not found"),
        (&["create", "token", "default", "--duration=1s"], "may not specify a duration less than 10 minutes"),
        (&["create", "service", "nodeport", "x", "--tcp=80", "--node-port=1"], "not in the valid range"),
        (&["scale", "configmap/one", "--replicas=1"], "could not find the requested resource"),
        (&["expose", "deployment", "none", "--port=80"], "deployments.apps \"none\" not found"),
        (&["label", "cm", "one", "a b=c"], "metadata.labels: Invalid value: \"a b\""),
        (&["annotate", "cm", "one", "a b=c"], "metadata.annotations: Invalid value: \"a b\""),
        (&["patch", "cm", "one", "-p", "text"], "json: cannot unmarshal string into Go value of type map"),
        (&["patch", "cm", "one", "-p", r#"{"data":1}"#], "cannot unmarshal number into Go struct field"),
        (&["patch", "cm", "one", "--type=merge", "-p", "[]"], "json: cannot unmarshal array into Go value"),
        (
            &["patch", "cm", "one", "--type=json", "-p", r#"{"a":1}"#],
            "json: cannot unmarshal object into Go value of type jsonpatch.Patch",
        ),
        (
            &["patch", "cm", "one", "--type=json", "-p", r#"[{"op":"replace","path":"/no/a","value":1}]"#],
            "The request is invalid: patch: ",
        ),
        (
            &["patch", "cm", "one", "--type=merge", "-p", r#"{"metadata":{"resourceVersion":"1"}}"#],
            "the object has been modified",
        ),
        (&["rollout", "status", "deployment/none"], "deployments.apps \"none\" not found"),
        (&["logs", "none"], "pods \"none\" not found"),
        (&["exec", "none", "--", "ls"], "pods \"none\" not found"),
        (&["port-forward", "none", ":1"], "pods \"none\" not found"),
        (&["edit", "cm", "none"], "configmaps \"none\" not found"),
        (&["cordon", "none"], "nodes \"none\" not found"),
        (&["drain", "none"], "nodes \"none\" not found"),
        (&["delete", "cm", "none"], "configmaps \"none\" not found"),
        (&["delete", "namespace", "kube-system"], "this namespace may not be deleted"),
        (&["wait", "--for=condition=Ready", "pod/none", "--timeout=1s"], "pods \"none\" not found"),
        (&["create", "quota", "x", "--hard=pods=-1"], "spec.hard[pods]: Invalid value: \"-1\""),
        (&["certificate", "approve", "none"], "\"none\" not found"),
        (&["autoscale", "deployment", "none", "--max=3"], "not found"),
    ];
    for (args, words) in cases {
        k.fails(args, words)?;
    }
    // Newer ones name what is not there.
    let scale = ["scale", "deployment", "none", "--replicas=1"];
    k.fails(&scale, "no objects passed to scale")
        .or_else(|_| k.fails(&scale, "deployments.apps \"none\" not found"))?;
    let after = k.ok(&["get", "cm", "one", "-o", "yaml"])?;
    if after == before { Ok(()) } else { Err(format!("refused changes changed something: {after}")) }
}
