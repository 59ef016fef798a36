//! Objects made by `create` and `run`, and custom kinds.

use crate::cluster::Cluster;
use crate::kubectl::{Kubectl, Outcome, has};

/// Every `create` for a kind that is served. Typed clients of 1.32 and later send these in protobuf.
pub(super) fn create(k: &Kubectl, cluster: &Cluster) -> Outcome {
    let ns = &k.namespace;
    let (image, account) = (format!("--image={}", cluster.image()), format!("--serviceaccount={ns}:default"));
    let (role, bound) = (format!("--clusterrole={ns}-nodes"), format!("{ns}-bound"));
    let (nodes, high) = (format!("{ns}-nodes"), format!("{ns}-high"));
    let cases: &[(&[&str], &str)] = &[
        (&["deployment", "idle", &image, "--port=80", "--", "sleep", "1000"], "deployment.apps/idle"),
        (&["secret", "generic", "text", "--from-literal=a=1"], "secret/text"),
        (
            &[
                "secret",
                "docker-registry",
                "login",
                "--docker-server=r.example",
                "--docker-username=u",
                "--docker-password=p",
            ],
            "secret/login",
        ),
        (&["serviceaccount", "helper"], "serviceaccount/helper"),
        (&["service", "clusterip", "inside", "--tcp=80:8080"], "service/inside"),
        (&["service", "clusterip", "headless", "--clusterip=None"], "service/headless"),
        (&["service", "nodeport", "outside", "--tcp=80:8080"], "service/outside"),
        (&["service", "loadbalancer", "balanced", "--tcp=80:8080"], "service/balanced"),
        (&["service", "externalname", "elsewhere", "--external-name=example.com"], "service/elsewhere"),
        (
            &["role", "reader", "--verb=get,list", "--resource=pods,deployments.apps"],
            "role.rbac.authorization.k8s.io/reader",
        ),
        (&["rolebinding", "reads", "--role=reader", &account], "rolebinding.rbac.authorization.k8s.io/reads"),
        (
            &["clusterrole", &nodes, "--verb=get", "--resource=nodes"],
            "clusterrole.rbac.authorization.k8s.io/",
        ),
        (&["clusterrolebinding", &bound, &role, "--user=u"], "clusterrolebinding.rbac.authorization.k8s.io/"),
        (
            &["poddisruptionbudget", "budget", "--selector=app=idle", "--min-available=1"],
            "poddisruptionbudget.policy/budget",
        ),
        (&["job", "once", &image, "--", "true"], "job.batch/once"),
        (&["cronjob", "nightly", &image, "--schedule=0 0 * * *", "--", "true"], "cronjob.batch/nightly"),
        (&["ingress", "front", "--rule=example.com/=inside:80"], "ingress.networking.k8s.io/front"),
        (&["quota", "few", "--hard=pods=1000"], "resourcequota/few"),
        (&["priorityclass", &high, "--value=100", "--description=high"], "priorityclass.scheduling.k8s.io/"),
    ];
    for (args, name) in cases {
        let printed = k.ok(&[&["create"], *args].concat())?;
        has(&printed, name)?;
        has(&printed, "created")?;
    }
    k.until(&["get", "deployment", "idle"], "1/1")?;
    k.shows(
        &["get", "deployment", "idle", "-o", "jsonpath={.spec.template.spec.containers[0].command}"],
        &[r#"["sleep","1000"]"#],
    )?;
    k.shows(
        &["get", "services"],
        &["NodePort", "LoadBalancer", "<pending>", "ExternalName", "example.com", "None"],
    )?;
    k.shows(&["get", "priorityclasses"], &["system-node-critical", "2000001000", &high])?;
    has(
        &k.ok(&["auth", "can-i", "list", "pods", "--as", &format!("system:serviceaccount:{ns}:default")])?,
        "yes",
    )?;
    k.ok(&[
        "delete",
        &format!("clusterrole/{nodes}"),
        &format!("clusterrolebinding/{bound}"),
        &format!("priorityclass/{high}"),
    ])?;
    k.ok(&["delete", "job/once", "cronjob/nightly", "ingress/front", "quota/few"])?;
    k.ok(&["delete", "service", "inside", "headless", "outside", "balanced", "elsewhere"])?;
    k.ok(&["delete", "deployment/idle", "secret/text", "secret/login", "serviceaccount/helper"]).map(drop)
}

/// `run` with every kind of end.
pub(super) fn run(k: &Kubectl, cluster: &Cluster) -> Outcome {
    let image = format!("--image={}", cluster.image());
    k.ok(&["run", "once", &image, "--restart=Never", "--", "sh", "-c", "echo hi; exit 3"])?;
    k.fails(&["run", "once", &image], "pods \"once\" already exists")?;
    k.until(&["get", "pod", "once", "-o", "jsonpath={.status.phase}"], "Failed")?;
    k.shows(&["get", "pod", "once"], &["0/1", "Error"])?;
    k.shows(
        &["get", "pod", "once", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}"],
        &["3"],
    )?;
    k.shows(&["describe", "pod", "once"], &["Reason:       Error", "Exit Code:    3"])?;
    k.fails(&["exec", "once", "--", "ls"], "completed pod")?;
    has(
        &k.ok_with(&["run", "through", &image, "--restart=Never", "--rm", "-i", "--", "cat"], "carried")?,
        "carried",
    )?;
    k.fails(&["get", "pod", "through"], "not found")?;
    k.ok(&["run", "crash", &image, "--env=A=b", "--command", "--", "sh", "-c", "echo run $A; exit 1"])?;
    k.until(&["get", "pod", "crash"], "CrashLoopBackOff")?;
    k.shows(&["logs", "crash", "-p"], &["run b"])?;
    k.until(&["get", "events", "--field-selector", "involvedObject.name=crash"], "BackOff")?;
    k.shows(&["run", "dry", &image, "--dry-run=client", "-o", "yaml"], &["run: dry"])?;
    k.ok(&["delete", "pod", "crash", "--now"])?;
    k.ok(&["delete", "pod", "once", "--force", "--grace-period=0"])?;
    k.ok(&["wait", "--for=delete", "pod/crash", "--timeout=10s"]).map(drop)
}

const TOYS: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: toys.NAMESPACE.example}
spec:
  group: NAMESPACE.example
  names: {plural: toys, singular: toy, kind: Toy, shortNames: [ty]}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, required: [size], properties: {size: {type: integer, minimum: 1, description: How big.}}}
          status: {type: object, properties: {size: {type: integer}}}
";

/// A custom kind from its definition to its end.
pub(super) fn custom_kind(k: &Kubectl, _: &Cluster) -> Outcome {
    let group = format!("{}.example", k.namespace);
    let (crd, toys) = (format!("crd/toys.{group}"), format!("toys.{group}"));
    let toy = |name: &str, spec: &str| {
        format!("apiVersion: {group}/v1\nkind: Toy\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    has(&k.ok_with(&["apply", "-f", "-"], &TOYS.replace("NAMESPACE", &k.namespace))?, "created")?;
    has(&k.ok(&["wait", "--for=condition=Established", &crd, "--timeout=20s"])?, "condition met")?;
    k.shows(&["describe", &crd], &["Toy"])?;
    k.shows(&["api-resources", "--api-group", &group], &["toys", "ty", "Toy"])?;
    has(&k.ok_with(&["apply", "-f", "-"], &toy("small", "{size: 2}"))?, "small created")?;
    has(&k.ok_with(&["apply", "-f", "-"], &toy("small", "{size: 3}"))?, "small configured")?;
    k.shows(&["get", &toys], &["NAME", "SIZE", "small", "3"])?;
    k.shows(&["explain", &format!("{toys}.spec")], &["size", "How big."])?;
    k.fails_with(&["apply", "-f", "-"], &toy("none", "{size: 0}"), "should be greater than or equal to 1")?;
    k.fails_with(&["apply", "-f", "-"], &toy("none", "{}"), "spec.size: Required value")?;
    k.fails_with(&["apply", "-f", "-"], &toy("none", "{size: 1, x: 1}"), "unknown field \"spec.x\"")?;
    k.ok(&["scale", &toys, "small", "--replicas=5"])?;
    k.shows(&["get", &toys, "small", "--subresource=scale"], &["DESIRED", "5"])?;
    k.ok(&["patch", &toys, "small", "--type=merge", "-p", r#"{"spec":{"size":7}}"#])?;
    k.fails(&["patch", &toys, "small", "-p", "{}"], "strategic-merge-patch+json is not supported")?;
    k.shows(&["get", &toys, "small", "-o", "jsonpath={.spec.size} {.metadata.generation}"], &["7 4"])?;
    k.ok(&["delete", &crd])?;
    k.fails(&["get", &toys], "the server")
}
