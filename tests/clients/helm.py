"""A stock Helm on the server: a chart's life from its installation to its end, with hooks, definitions, conflicts and failures.

    helm.py HELM KUBECTL SCRATCH [--only WORDS...]

The cluster is that of $KUBECONFIG; its nodes have the image localhost/busybox:1.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import checks
from checks import Failure, contains, expect, until

WAIT = ["--wait", "--timeout", "90s"]


class Helm:
    """One Helm in a namespace of its own."""

    def __init__(self, program, kubectl, scratch):
        self.program, self.kubectl_program = program, kubectl
        self.version = subprocess.check_output([program, "version", "--template", "{{.Version}}"], text=True).strip().lstrip("v")
        self.major = int(self.version.split(".")[0])
        self.id = "helm-" + self.version.replace(".", "-")
        self.scratch = Path(scratch) / self.id
        self.group = f"{self.id}.example.com"
        self.home = self.scratch / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.chart = self.scratch / "shop"
        self.write_chart()

    def write_chart(self):
        """Definitions belong to the whole cluster, so each Helm has a group of its own; Helm itself fills nothing into them."""
        shutil.rmtree(self.chart, ignore_errors=True)
        shutil.copytree(Path(__file__).parent / "chart", self.chart)
        for path in self.chart.rglob("*.yaml"):
            path.write_text(path.read_text().replace("@GROUP@", self.group))

    def run(self, *args, driver=None, namespace=None):
        environment = dict(os.environ, HOME=str(self.home))
        if driver:
            environment["HELM_DRIVER"] = driver
        command = [self.program, *args, "--namespace", namespace or self.id]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
        return done.returncode, done.stdout, done.stderr

    def ok(self, *args, **options):
        code, out, err = self.run(*args, **options)
        if code != 0:
            raise Failure(f"`helm {' '.join(args)}` failed: {err.strip()} {out.strip()}")
        return out

    def fails(self, words, *args, **options):
        code, out, err = self.run(*args, **options)
        if code == 0:
            raise Failure(f"`helm {' '.join(args)}` succeeded: {out.strip()}")
        contains(f"`helm {' '.join(args)}`", err + out, *words)

    def kubectl(self, *args, stdin=None):
        command = [self.kubectl_program, "-n", self.id, *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=90, env=dict(os.environ, HOME=str(self.home)))
        if done.returncode != 0:
            raise Failure(f"`kubectl {' '.join(args)}` failed: {done.stderr.strip()}")
        return done.stdout

    def get(self, *args):
        return json.loads(self.kubectl("get", *args, "-o", "json"))

    def there(self, *args):
        """The names of what is there."""
        return self.kubectl("get", *args, "-o", "name", "--ignore-not-found").split()

    def uninstall(self, release, *args):
        """Helm 4 is not asked to wait: where it hears of one object's end before it has looked at the others it reports those as left over."""
        return self.ok("uninstall", release, *args, *(WAIT if self.major == 3 else []))

    def history(self, release, **options):
        return json.loads(self.ok("history", release, "-o", "json", **options))

    def states(self, release, **options):
        return [h["status"] for h in self.history(release, **options)]

    def color(self, release="shop"):
        return self.get("configmap", release)["data"]["color"]


def renders(helm):
    local = helm.ok("template", "shop", str(helm.chart))
    contains("a rendering without a server", local, "kind: Deployment", "kind: Widget")
    if "namespaces:" in local:
        raise Failure("lookup found something without a server")
    contains("lint", helm.ok("lint", str(helm.chart)), "0 chart(s) failed")
    # The definition is not there yet, nor the namespace.
    helm.fails(["no matches for kind", "Widget"], "template", "shop", str(helm.chart), "--validate")
    helm.fails(["not found"], "status", "shop")


def asks_the_server(helm):
    checked = helm.ok("template", "tried", str(helm.chart), "--validate")
    # Helm 3 looks nothing up for it.
    contains("a rendering on the server", checked, 'disruption: "true"', *(["namespaces:"] if helm.major > 3 else []))
    out = helm.ok("install", "tried", str(helm.chart), "--dry-run=server")
    contains("a dry run", out, "pending-install", "kind: Widget", "namespaces:")
    expect("what a dry run leaves", helm.there("deployment,configmap,secret", "-l", "app.kubernetes.io/instance=tried"), [])
    helm.fails(["namespaces", "not found"], "install", "tried", str(helm.chart), "--no-hooks", namespace=f"{helm.id}-none")
    out = helm.ok("upgrade", "shop", str(helm.chart), "--dry-run=server", "--set", "color=gold")
    contains("a dry run", out, "pending-upgrade", "color: gold")
    expect("the color", helm.color(), "red")


def installs(helm):
    out = helm.ok("install", "shop", str(helm.chart), "--create-namespace", *WAIT)
    contains("notes", out, f"shop is revision 1 in {helm.id} on Kubernetes 1.36", "STATUS: deployed")
    expect("ready pods", helm.get("deployment", "shop")["status"]["readyReplicas"], 1)
    widget = helm.get(f"widgets.{helm.group}", "shop")["spec"]
    expect("the widget", widget, {"color": "red", "size": 3, "parts": [{"name": "wheel", "count": 4}]})
    labels = helm.get("configmap", "shop")["metadata"]
    expect("the owner", labels["annotations"]["meta.helm.sh/release-name"], "shop")
    expect("the keeper", labels["labels"]["app.kubernetes.io/managed-by"], "Helm")
    # The hooks: one was deleted when it had succeeded, the others stay.
    expect("hooks", helm.there("configmap", "shop-first", "shop-after"), ["configmap/shop-after"])
    expect("the hook's pod", helm.get("pod", "shop-before")["status"]["phase"], "Succeeded")
    contains("its log", helm.kubectl("logs", "shop-before"), "before revision 1")
    secrets = helm.get("secret", "-l", "owner=helm")["items"]
    expect("the record", [(s["metadata"]["name"], s["type"]) for s in secrets], [("sh.helm.release.v1.shop.v1", "helm.sh/release.v1")])
    helm.fails(["still in use"], "install", "shop", str(helm.chart))


def tells(helm):
    expect("values", json.loads(helm.ok("get", "values", "shop", "-a", "-o", "json"))["color"], "red")
    contains("manifest", helm.ok("get", "manifest", "shop"), "kind: ClusterRoleBinding", "kind: Widget", "color: red")
    contains("hooks", helm.ok("get", "hooks", "shop"), "helm.sh/hook: pre-delete")
    contains("notes", helm.ok("get", "notes", "shop"), "shop is revision 1")
    metadata = json.loads(helm.ok("get", "metadata", "shop", "-o", "json"))
    expect("metadata", (metadata["name"], metadata["version"], metadata["revision"], metadata["status"]), ("shop", "1.2.3", 1, "deployed"))
    status = json.loads(helm.ok("status", "shop", "-o", "json"))
    expect("status", status["info"]["status"], "deployed")
    if helm.major == 3:
        contains("resources", helm.ok("status", "shop", "--show-resources"), "v1/Deployment", "v1/Service", "Running")
    releases = json.loads(helm.ok("list", "-A", "-o", "json", "--filter", "^shop$"))
    if (helm.id, "shop") not in [(r["namespace"], r["name"]) for r in releases]:
        raise Failure(f"the release is not in the list of all: {releases}")
    expect("a selector", json.loads(helm.ok("list", "-o", "json", "-l", "owner=nobody")), [])


def tests_the_release(helm):
    out = helm.ok("test", "shop", "--logs", "--timeout", "90s")
    contains("the test", out, "Phase:          Succeeded", "hello")


def upgrades_and_merges(helm):
    """What others added stays, what others changed of the chart's comes back."""
    password = helm.get("secret", "shop")["data"]["password"]
    helm.kubectl("label", "deployment", "shop", "added=by-hand")
    helm.kubectl("patch", "configmap", "shop", "--type=merge", "-p", '{"data":{"extra":"by hand"}}')
    helm.ok("upgrade", "shop", str(helm.chart), "--set", "color=blue,replicas=2", *WAIT)
    deployment = helm.get("deployment", "shop")
    expect("replicas", deployment["status"]["readyReplicas"], 2)
    expect("a label by hand", deployment["metadata"]["labels"].get("added"), "by-hand")
    data = helm.get("configmap", "shop")["data"]
    expect("data", (data["color"], data["extra"], data["revision"]), ("blue", "by hand", "2"))
    widget = helm.get(f"widgets.{helm.group}", "shop")["spec"]
    expect("the widget", (widget["color"], widget["parts"]), ("blue", [{"name": "wheel", "count": 8}]))
    expect("the looked up password", helm.get("secret", "shop")["data"]["password"], password)
    expect("a hook", helm.get("configmap", "shop-after")["data"]["revision"], "2")
    contains("a hook", helm.kubectl("logs", "shop-before"), "before revision 2")
    expect("history", helm.states("shop"), ["superseded", "deployed"])


def keeps_values(helm):
    helm.ok("upgrade", "shop", str(helm.chart), "--reuse-values", "--set", "greeting=salut", *WAIT)
    values = json.loads(helm.ok("get", "values", "shop", "-o", "json"))
    expect("values", values, {"color": "blue", "greeting": "salut", "replicas": 2})
    contains("the difference", helm.ok("get", "values", "shop", "--revision", "1"), "null")


def meets_a_conflict(helm):
    """Someone else applies a field of the chart's: an apply by the server tells of it, a merge by the client overwrites it."""
    other = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop"}, "data": {"color": "green"}})
    helm.kubectl("apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-", stdin=other)
    upgrade = ["upgrade", "shop", str(helm.chart), "--reuse-values", "--set", "color=yellow"]
    if helm.major == 3:
        helm.ok(*upgrade)
    else:
        helm.fails(["conflict", '"other"', ".data.color"], *upgrade)
        expect("the color meanwhile", helm.color(), "green")
        expect("the state", helm.states("shop")[-1], "failed")
        helm.ok(*upgrade, "--force-conflicts")
    expect("the color", helm.color(), "yellow")


def fails_and_rolls_back(helm):
    good = helm.history("shop")[-1]["revision"]
    bad = ["upgrade", "shop", str(helm.chart), "--reuse-values", "--set", "state=broken,color=black", "--wait", "--timeout", "10s", "--no-hooks"]
    helm.fails(["UPGRADE FAILED"], *bad)
    expect("states", helm.states("shop")[-2:], ["deployed", "failed"])
    contains("the list of failures", helm.ok("list", "--failed", "--short"), "shop")
    helm.ok("rollback", "shop", str(good), *WAIT)
    expect("the color", helm.color(), "yellow")
    last = helm.history("shop")[-1]
    expect("the last", (last["status"], last["description"]), ("deployed", f"Rollback to {good}"))
    expect("a hook", helm.get("configmap", "shop-after")["data"]["revision"], str(good))
    # And the same by itself.
    undo = "--atomic" if helm.major == 3 else "--rollback-on-failure"
    helm.fails(["UPGRADE FAILED"], *bad, undo)
    expect("states", helm.states("shop")[-2:], ["failed", "deployed"])
    expect("the color", helm.color(), "yellow")


def tells_refusals(helm):
    """A change that the server refuses leaves a failed revision; replacing gets over an immutable field where the object can be made anew."""
    before = len(helm.history("shop"))
    helm.fails(["field is immutable"], "upgrade", "shop", str(helm.chart), "--reuse-values", "--set", "app=other")
    expect("history", helm.states("shop")[before:], ["failed"])
    helm.ok("rollback", "shop", *WAIT)


def replaces(helm):
    uid = helm.get("configmap", "shop")["metadata"]["uid"]
    force = ["--force"] if helm.major == 3 else ["--force-replace", "--server-side=false"]
    helm.ok("upgrade", "shop", str(helm.chart), "--reuse-values", "--set", "color=white", *force)
    after = helm.get("configmap", "shop")
    expect("the color", after["data"]["color"], "white")
    expect("the object", after["metadata"]["uid"], uid)
    expect("what was added by hand", after["data"].get("extra"), None)


def undoes_a_failed_install(helm):
    undo = "--atomic" if helm.major == 3 else "--rollback-on-failure"
    bad = ["install", "bad", str(helm.chart), "--set", "state=broken", "--wait", "--timeout", "10s", "--no-hooks", undo]
    helm.fails(["INSTALLATION FAILED"], *bad)
    helm.fails(["not found"], "status", "bad")
    until("the end of it", lambda: helm.there("deployment,service,configmap,secret", "-l", "app.kubernetes.io/instance=bad") == [])


def minds_ownership(helm):
    helm.kubectl("create", "configmap", "owned", "--from-literal=color=old")
    helm.fails(["invalid ownership metadata"], "install", "owned", str(helm.chart), "--no-hooks")
    helm.ok("install", "owned", str(helm.chart), "--no-hooks", "--take-ownership", *([] if helm.major == 3 else ["--force-conflicts"]))
    expect("the color", helm.color("owned"), "red")
    helm.uninstall("owned", "--no-hooks")
    until("the end of the map", lambda: helm.there("configmap", "owned") == [])


def stores_in_config_maps(helm):
    helm.ok("install", "maps", str(helm.chart), "--no-hooks", "--set", "kept=true,replicas=0", driver="configmap")
    records = helm.get("configmap", "-l", "owner=helm")["items"]
    expect("the record", [r["metadata"]["labels"]["name"] for r in records], ["maps"])
    expect("the other driver's list", json.loads(helm.ok("list", "-o", "json", "--filter", "maps")), [])
    helm.ok("upgrade", "maps", str(helm.chart), "--no-hooks", "--set", "kept=true,replicas=0,color=pink", driver="configmap")
    helm.ok("rollback", "maps", "1", "--no-hooks", driver="configmap")
    expect("states", helm.states("maps", driver="configmap"), ["superseded", "superseded", "deployed"])
    expect("the color", helm.color("maps"), "red")
    out = helm.ok("uninstall", "maps", "--no-hooks", driver="configmap")
    contains("what stays", out, "[ConfigMap] maps-kept")
    expect("what stays", helm.there("configmap", "maps", "maps-kept"), ["configmap/maps-kept"])


def is_refused_what_it_may_not(helm):
    helm.fails(["forbidden", "secrets", "jane"], "list", "--kube-as-user", "jane", "--kube-as-group", "people")
    helm.kubectl("create", "serviceaccount", "robot")
    helm.kubectl("create", "rolebinding", "robot", "--clusterrole=edit", f"--serviceaccount={helm.id}:robot")
    token = helm.kubectl("create", "token", "robot").strip()
    # In a file of its own: a token beside the administrator's certificate would not count.
    plain = helm.scratch / "robot"
    config = json.loads(helm.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"][0]["user"] = {"token": token}
    plain.write_text(json.dumps(config))
    who = ["--kubeconfig", str(plain)]
    contains("its list", helm.ok("list", "--short", *who), "shop")
    helm.fails(["forbidden", f"system:serviceaccount:{helm.id}:robot"], "install", "robot", str(helm.chart), "--no-hooks", "--skip-crds", *who)


def uninstalls(helm):
    helm.uninstall("shop", "--keep-history")
    parts = "deployment,service,serviceaccount,role,rolebinding,poddisruptionbudget"
    until("the end of all parts", lambda: helm.there(parts, "-l", "app.kubernetes.io/instance=shop") == [])
    until("the end of the pods", lambda: helm.there("pod", "-l", "release=shop") == [])
    expect("the hooks", helm.there("pod", "shop-farewell"), [])
    expect("the hook afterwards", helm.there("configmap", "shop-gone"), ["configmap/shop-gone"])
    expect("the state", helm.states("shop")[-1], "uninstalled")
    contains("the list", helm.ok("list", "--uninstalled", "--short"), "shop")
    before = str(helm.history("shop")[-1]["revision"] - 1)
    color = json.loads(helm.ok("get", "values", "shop", "-a", "-o", "json", "--revision", before))["color"]
    helm.ok("rollback", "shop", *WAIT)
    expect("the color of the revision before", helm.color(), color)
    helm.uninstall("shop", "--no-hooks", "--cascade", "foreground")
    until("the end of the Deployment", lambda: helm.there("deployment", "-l", "app.kubernetes.io/instance=shop") == [])
    helm.fails(["not found"], "history", "shop")
    expect("records", helm.there("secret", "-l", "owner=helm"), [])
    # Definitions outlive their chart.
    expect("the definition", len(helm.there("crd", f"widgets.{helm.group}")), 1)
    helm.kubectl("delete", "crd", f"widgets.{helm.group}")
    helm.kubectl("delete", "namespace", helm.id, "--wait=false")


CHECKS = [
    renders,
    installs,
    asks_the_server,
    tells,
    tests_the_release,
    upgrades_and_merges,
    keeps_values,
    meets_a_conflict,
    fails_and_rolls_back,
    tells_refusals,
    replaces,
    undoes_a_failed_install,
    minds_ownership,
    stores_in_config_maps,
    is_refused_what_it_may_not,
    uninstalls,
]

if __name__ == "__main__":
    helm = Helm(*sys.argv[1:4])
    checks.run(f"helm {helm.version}", CHECKS, helm)
