"""The Python client of Kubernetes on the server: what its own end-to-end tests do, and its ways to watch, run programs and elect leaders.

    python.py NAMESPACE [--only WORDS...]

The cluster is that of $KUBECONFIG; its nodes have the image localhost/busybox:1.
"""

import asyncio
import base64
import datetime
import json
import logging
import os
import sys
import tempfile
import threading
import time

import yaml
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import portforward, stream

import checks
from checks import Failure, contains, expect, until

IMAGE = "localhost/busybox:1"
# The program elects leaders with log lines of its own.
logging.disable(logging.CRITICAL)


class Plane:
    """The server as this client sees it."""

    def __init__(self, namespace):
        config.load_kube_config()
        self.namespace = namespace
        self.api = client.ApiClient()
        self.core = client.CoreV1Api(self.api)
        self.apps = client.AppsV1Api(self.api)
        self.dynamic = dynamic.DynamicClient(self.api)
        self.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=namespace)))
        until("the service account", lambda: self.accounts(), 30)

    def accounts(self):
        return [a for a in self.core.list_namespaced_service_account(self.namespace).items if a.metadata.name == "default"]

    def config_map(self, name, labels=None, **data):
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)
        return self.core.create_namespaced_config_map(self.namespace, body)

    def pod(self, name, command):
        container = {"name": "main", "image": IMAGE, "command": ["sh", "-c", command]}
        spec = {"containers": [container], "terminationGracePeriodSeconds": 1, "restartPolicy": "Never"}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        self.core.create_namespaced_pod(self.namespace, body)
        phase = lambda: self.core.read_namespaced_pod_status(name, self.namespace).status.phase
        until(f"the pod {name}", lambda: phase() in ("Running", "Succeeded", "Failed"))


def refused(code, reason, call, *args, **options):
    """Calls what must be refused; gives the status that was told."""
    try:
        call(*args, **options)
    except ApiException as e:
        status = json.loads(e.body)
        if (e.status, status["kind"], status["reason"]) != (code, "Status", reason):
            raise Failure(f"wanted {code} {reason}, got {e.body}") from e
        return status
    raise Failure(f"{call.__name__} was not refused")


def tells_its_version(plane):
    version = client.VersionApi(plane.api).get_code()
    expect("the version", (version.major, version.minor), ("1", "36"))
    groups = {g.name for g in client.ApisApi(plane.api).get_api_versions().groups}
    wanted = {"apps", "batch", "rbac.authorization.k8s.io", "apiextensions.k8s.io", "coordination.k8s.io", "policy"}
    expect("groups", wanted - groups, set())
    kinds = {r.name: r for r in plane.core.get_api_resources().resources}
    expect("pods", (kinds["pods"].kind, kinds["pods"].namespaced, kinds["pods"].short_names), ("Pod", True, ["po"]))


def keeps_core_kinds(plane):
    namespace, core = plane.namespace, plane.core
    port = client.V1ServicePort(port=80, target_port="http", name="web")
    service = client.V1Service(metadata=client.V1ObjectMeta(name="web"), spec=client.V1ServiceSpec(ports=[port], selector={"app": "web"}))
    made = core.create_namespaced_service(namespace, service)
    expect("the service", (made.spec.type, made.spec.ports[0].protocol, bool(made.spec.cluster_ip)), ("ClusterIP", "TCP", True))
    made.spec.ports[0].port = 81
    expect("a replacement", core.replace_namespaced_service("web", namespace, made).spec.ports[0].port, 81)
    core.delete_namespaced_service("web", namespace)
    refused(404, "NotFound", core.read_namespaced_service, "web", namespace)

    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": IMAGE}]}}
    controller = {"metadata": {"name": "rc"}, "spec": {"replicas": 0, "selector": {"a": "b"}, "template": template}}
    expect("a controller", core.create_namespaced_replication_controller(namespace, controller).spec.replicas, 0)
    core.delete_namespaced_replication_controller("rc", namespace, propagation_policy="Background")

    made = plane.config_map("held", color="red")
    refused(409, "AlreadyExists", plane.config_map, "held")
    stale = core.read_namespaced_config_map("held", namespace)
    made.data["color"] = "blue"
    core.replace_namespaced_config_map("held", namespace, made)
    status = refused(409, "Conflict", core.replace_namespaced_config_map, "held", namespace, stale)
    contains("the conflict", status["message"], "the object has been modified")
    status = refused(422, "Invalid", plane.config_map, "Not_A_Name")
    expect("the cause", status["details"]["causes"][0]["field"], "metadata.name")
    wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="other"))
    refused(409, "Conflict", core.delete_namespaced_config_map, "held", namespace, body=wrong)

    secret = client.V1Secret(metadata=client.V1ObjectMeta(generate_name="secret-"), string_data={"key": "välue"})
    kept = core.create_namespaced_secret(namespace, secret)
    expect("a secret", (kept.type, base64.b64decode(kept.data["key"]).decode(), kept.string_data), ("Opaque", "välue", None))
    contains("its name", kept.metadata.name, "secret-")
    nodes = core.list_node().items
    expect("nodes", [c.status for c in nodes[0].status.conditions if c.type == "Ready"], ["True"])
    if not isinstance(nodes[0].metadata.creation_timestamp, datetime.datetime):
        raise Failure("a time was not understood")


def patches(plane):
    """A list of operations is a JSON patch, anything else strategic, unless a type is named."""
    namespace, core = plane.namespace, plane.core
    plane.config_map("patched", color="red", size="1")
    patch = lambda body, **options: core.patch_namespaced_config_map("patched", namespace, body, **options).data
    expect("a strategic patch", patch({"data": {"color": "blue"}}), {"color": "blue", "size": "1"})
    expect("a JSON patch", patch([{"op": "replace", "path": "/data/size", "value": "2"}]), {"color": "blue", "size": "2"})
    merge = {"_content_type": "application/merge-patch+json"}
    expect("a merge patch", patch({"data": {"size": None}}, **merge), {"color": "blue"})
    apply = {"_content_type": "application/apply-patch+yaml", "field_manager": "python"}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"color": "green"}}
    status = refused(409, "Conflict", core.patch_namespaced_config_map, "patched", namespace, body, **apply)
    expect("the cause", status["details"]["causes"][0]["field"], ".data.color")
    expect("an apply", patch(body, force=True, **apply), {"color": "green"})
    refused(422, "Invalid", core.patch_namespaced_config_map, "patched", namespace, [{"op": "test", "path": "/data/color", "value": "x"}])
    strict = {"field_validation": "Strict"}
    status = refused(400, "BadRequest", core.patch_namespaced_config_map, "patched", namespace, {"dta": {}}, **strict)
    contains("the refusal", status["message"], 'unknown field "dta"')
    expect("a dry run", patch({"data": {"color": "none"}}, dry_run="All"), {"color": "none"})
    expect("after it", core.read_namespaced_config_map("patched", namespace).data, {"color": "green"})

    container = {"name": "a", "image": "one", "ports": [{"containerPort": 1}]}
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": "p"}}}
    spec["template"] = {"metadata": {"labels": {"app": "p"}}, "spec": {"containers": [container]}}
    plane.apps.create_namespaced_deployment(namespace, {"metadata": {"name": "patched"}, "spec": spec})
    more = {"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "two"}, {"name": "a", "image": "three"}]}}}}
    merged = plane.apps.patch_namespaced_deployment("patched", namespace, more).spec.template.spec.containers
    expect("merged by name", {c.name: (c.image, len(c.ports or [])) for c in merged}, {"a": ("three", 1), "b": ("two", 0)})
    scale = plane.apps.read_namespaced_deployment_scale("patched", namespace)
    expect("the scale", (scale.spec.replicas, scale.status.selector), (0, "app=p"))
    scaled = plane.apps.patch_namespaced_deployment_scale("patched", namespace, {"spec": {"replicas": 0}})
    expect("the scale", scaled.spec.replicas, 0)
    plane.apps.delete_namespaced_deployment("patched", namespace)


def lists_in_pages(plane):
    namespace, core = plane.namespace, plane.core
    for i in range(7):
        plane.config_map(f"page-{i}", {"set": "pages", "odd": str(i % 2)}, n=str(i))
    names, token, pages = [], None, 0
    while True:
        page = core.list_namespaced_config_map(namespace, label_selector="set=pages", limit=3, _continue=token)
        names += [item.metadata.name for item in page.items]
        token, pages = page.metadata._continue, pages + 1
        if not token:
            break
    expect("all pages", (pages, names), (3, [f"page-{i}" for i in range(7)]))
    odd = core.list_namespaced_config_map(namespace, label_selector="set in (pages, other),odd!=0,!none").items
    expect("a selector", [item.metadata.name for item in odd], ["page-1", "page-3", "page-5"])
    one = core.list_config_map_for_all_namespaces(field_selector=f"metadata.name=page-2,metadata.namespace={namespace}").items
    expect("by field", [item.data["n"] for item in one], ["2"])
    refused(400, "BadRequest", core.list_namespaced_config_map, namespace, field_selector="data.n=2")
    refused(400, "BadRequest", core.list_namespaced_config_map, namespace, limit=3, _continue="nonsense")
    gone = core.delete_collection_namespaced_config_map(namespace, label_selector="set=pages,odd=1")
    left = core.list_namespaced_config_map(namespace, label_selector="set=pages").items
    expect("after the collection went", [item.metadata.name for item in left], ["page-0", "page-2", "page-4", "page-6"])


def accepts_tables(plane):
    path = f"/api/v1/namespaces/{plane.namespace}/configmaps"
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    table = json.loads(ask(plane, path, headers))
    expect("the table", (table["kind"], [c["name"] for c in table["columnDefinitions"]]), ("Table", ["Name", "Data", "Age"]))
    headers = {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}
    partial = json.loads(ask(plane, path, headers))
    expect("metadata alone", (partial["kind"], sorted(partial["items"][0])), ("PartialObjectMetadataList", ["apiVersion", "kind", "metadata"]))
    text = ask(plane, path, {"Accept": "application/yaml"})
    expect("YAML", yaml.safe_load(text)["kind"], "ConfigMapList")


def ask(plane, path, headers):
    """A request as the generated methods send it, with other headers."""
    call = plane.api.param_serialize("GET", path, header_params=headers, auth_settings=["BearerToken"])
    response = plane.api.call_api(*call)
    response.read()
    expect(path, response.status, 200)
    return response.data


def watches(plane):
    namespace, core = plane.namespace, plane.core
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    first = plane.config_map("watched", {"set": "watch"}, n="1")
    core.patch_namespaced_config_map("watched", namespace, {"data": {"n": "2"}})
    core.delete_namespaced_config_map("watched", namespace)
    seen, watcher = [], watch.Watch()
    options = {"resource_version": start, "label_selector": "set=watch", "timeout_seconds": 20}
    for event in watcher.stream(core.list_namespaced_config_map, namespace, **options):
        seen.append((event["type"], event["object"].data["n"]))
        if event["type"] == "DELETED":
            watcher.stop()
    expect("events", seen, [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")])
    # From a point between them.
    options["resource_version"], watcher = first.metadata.resource_version, watch.Watch()
    seen = []
    for event in watcher.stream(core.list_namespaced_config_map, namespace, **options):
        seen.append(event["type"])
        if event["type"] == "DELETED":
            watcher.stop()
    expect("later events", seen, ["MODIFIED", "DELETED"])
    # Until the time is over, by the server's own end of the stream.
    options = {"label_selector": "set=nothing", "timeout_seconds": 1}
    begin = time.monotonic()
    expect("a quiet watch", list(watch.Watch().stream(core.list_namespaced_config_map, namespace, **options)), [])
    if time.monotonic() - begin < 0.9:
        raise Failure("the watch ended before its time")
    # All that is there, then a mark.
    plane.config_map("there", {"set": "initial"})
    seen, watcher, resources = [], watch.Watch(), plane.dynamic.resources.get(api_version="v1", kind="ConfigMap")
    options = {"label_selector": "set=initial", "allow_watch_bookmarks": True, "send_initial_events": True}
    options["resource_version_match"] = "NotOlderThan"
    for event in resources.watch(namespace=namespace, watcher=watcher, timeout=20, **options):
        seen.append(event["type"])
        if event["type"] == "BOOKMARK":
            marks = event["raw_object"]["metadata"]["annotations"]
            expect("the mark", marks, {"k8s.io/initial-events-end": "true"})
            watcher.stop()
    expect("initial events", seen, ["ADDED", "BOOKMARK"])


def minds_versions(plane):
    """What is no version, or asks for a match without one, is refused."""
    core, exact = plane.core, {"resource_version_match": "Exact"}
    refused(400, "BadRequest", core.list_namespaced_config_map, plane.namespace, resource_version="x", **exact)
    refused(422, "Invalid", core.list_namespaced_config_map, plane.namespace, **exact)
    now = core.list_namespaced_config_map(plane.namespace, resource_version="0").metadata.resource_version
    plane.config_map("newer")
    names = lambda **options: [m.metadata.name for m in core.list_namespaced_config_map(plane.namespace, **options).items]
    expect("a list as of then", "newer" in names(resource_version=now, **exact), False)
    expect("one not older", "newer" in names(resource_version=now, resource_version_match="NotOlderThan"), True)


def informs(plane):
    """The client's own informer: a list, then a watch that feeds a cache."""
    from kubernetes.informer import ADDED, DELETED, MODIFIED, SharedInformer

    seen = {ADDED: [], MODIFIED: [], DELETED: []}
    plane.config_map("informed-0", {"set": "inform"}, n="0")
    informer = SharedInformer(plane.core.list_namespaced_config_map, namespace=plane.namespace, label_selector="set=inform")
    for kind, names in seen.items():
        informer.add_event_handler(kind, lambda o, names=names: names.append(o.metadata.name))
    informer.start()
    try:
        until("the first", lambda: seen[ADDED] == ["informed-0"], 30)
        plane.config_map("informed-1", {"set": "inform"}, n="1")
        until("an addition", lambda: "informed-1" in seen[ADDED], 30)
        plane.core.patch_namespaced_config_map("informed-1", plane.namespace, {"data": {"n": "2"}})
        until("a change", lambda: "informed-1" in seen[MODIFIED], 30)
        plane.core.delete_namespaced_config_map("informed-0", plane.namespace)
        until("a deletion", lambda: seen[DELETED] == ["informed-0"], 30)
        expect("the cache", [o.metadata.name for o in informer.cache.list()], ["informed-1"])
    finally:
        informer.stop()


def runs_programs(plane):
    namespace, core = plane.namespace, plane.core
    plane.pod("shell", "echo first line; echo second line; sleep 3600")
    call = lambda command, **options: stream(core.connect_get_namespaced_pod_exec, "shell", namespace, command=command, stderr=True, stdout=True,
                                             stdin=options.pop("stdin", False), tty=options.pop("tty", False), **options)
    expect("one call", call(["sh", "-c", "echo out; echo err >&2"]).split(), ["out", "err"])
    quiet = stream(core.connect_get_namespaced_pod_exec, "shell", namespace, command=["sh", "-c", "echo out; echo err >&2"], stderr=False, stdout=True)
    expect("what was not asked for", quiet, "out\n")
    session = call(["sh"], stdin=True, _preload_content=False)
    session.write_stdin("echo to out\n")
    expect("a line", session.readline_stdout(timeout=30), "to out")
    session.write_stdin("echo to err >&2\n")
    expect("an error", session.readline_stderr(timeout=30), "to err")
    session.write_stdin("exit 3\n")
    session.run_forever(timeout=30)
    expect("the code", session.returncode, 3)
    session = call(["true"], _preload_content=False)
    session.run_forever(timeout=30)
    expect("the code", session.returncode, 0)
    session = call(["cat"], stdin=True, _preload_content=False, binary=True)
    session.write_stdin(bytes(range(256)) * 64)
    got = b""
    while len(got) < 256 * 64:
        session.update(timeout=30)
        more = session.read_stdout(timeout=5)
        if not more:
            break
        got += more
    session.close()
    expect("bytes", got == bytes(range(256)) * 64, True)
    terminal = call(["sh", "-c", "test -t 0 && echo a terminal"], tty=True, stdin=True)
    contains("a terminal", terminal, "a terminal")
    try:
        call(["none"], _preload_content=True)
        raise Failure("an unknown program ran")
    except ApiException:
        pass
    except Failure:
        # The websocket opens all the same; the client reads the failure from its last channel.
        session = call(["none"], _preload_content=False)
        session.run_forever(timeout=30)
        if session.returncode == 0:
            raise


def follows_logs(plane):
    namespace, core = plane.namespace, plane.core
    log = core.read_namespaced_pod_log("shell", namespace)
    expect("the log", log.split("\n")[:2], ["first line", "second line"])
    expect("its tail", core.read_namespaced_pod_log("shell", namespace, tail_lines=1).strip(), "second line")
    stamped = core.read_namespaced_pod_log("shell", namespace, timestamps=True, tail_lines=1)
    datetime.datetime.fromisoformat(stamped.split(" ")[0][:19])
    expect("some bytes", core.read_namespaced_pod_log("shell", namespace, limit_bytes=5), "first")
    refused(400, "BadRequest", core.read_namespaced_pod_log, "shell", namespace, container="none")
    refused(400, "BadRequest", core.read_namespaced_pod_log, "shell", namespace, previous=True)
    plane.pod("counter", "for i in 1 2 3 4; do echo line $i; sleep 0.3; done")
    lines = list(watch.Watch().stream(core.read_namespaced_pod_log, name="counter", namespace=namespace, follow=True))
    expect("what was followed", lines, ["line 1", "line 2", "line 3", "line 4"])
    until("its end", lambda: core.read_namespaced_pod("counter", namespace).status.phase == "Succeeded")


def forwards_ports(plane):
    namespace = plane.namespace
    plane.pod("web", "mkdir /tmp/w; echo served > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w")
    def fetch():
        forward = portforward(plane.core.connect_get_namespaced_pod_portforward, "web", namespace, ports="8080")
        socket = forward.socket(8080)
        socket.settimeout(10)
        try:
            socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
            got = b""
            while chunk := socket.recv(1024):
                got += chunk
            return got.endswith(b"served\n") and got
        except OSError:
            return None
        finally:
            socket.close()
    contains("the page", until("a page", fetch).decode(), "200 OK")
    forward = portforward(plane.core.connect_get_namespaced_pod_portforward, "web", namespace, ports="8099")
    socket = forward.socket(8099)
    socket.settimeout(20)
    try:
        socket.sendall(b"x")
        expect("a closed port", socket.recv(10), b"")
    except OSError:
        pass
    until("the error", lambda: forward.error(8099), 20)
    contains("the error", forward.error(8099), "8099")


def works_without_types(plane):
    namespace = plane.namespace
    maps = plane.dynamic.resources.get(api_version="v1", kind="ConfigMap")
    made = maps.create(namespace=namespace, body={"metadata": {"name": "dynamic"}, "data": {"a": "1"}})
    expect("a field", made.data.a, "1")
    expect("a patch", maps.patch(namespace=namespace, name="dynamic", body={"data": {"b": "2"}}).data.to_dict(), {"a": "1", "b": "2"})
    merge = "application/merge-patch+json"
    expect("a merge patch", maps.patch(namespace=namespace, name="dynamic", body={"data": {"a": None}}, content_type=merge).data.to_dict(), {"b": "2"})
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"x": "1"}}
    applied = maps.server_side_apply(namespace=namespace, body=body, field_manager="one")
    expect("the manager", [(m.manager, m.operation) for m in applied.metadata.managedFields], [("one", "Apply")])
    body["data"] = {"x": "2"}
    try:
        maps.server_side_apply(namespace=namespace, body=body, field_manager="two")
        raise Failure("there was no conflict")
    except dynamic.exceptions.ConflictError as e:
        contains("the conflict", e.summary(), 'conflict with "one"', ".data.x")
    expect("by force", maps.server_side_apply(namespace=namespace, body=body, field_manager="two", force_conflicts=True).data.x, "2")
    listed = maps.get(namespace=namespace, field_selector="metadata.name=applied")
    expect("a list", [i.metadata.name for i in listed.items], ["applied"])
    maps.delete(namespace=namespace, name="applied", body={})
    deployments = plane.dynamic.resources.get(group="apps", kind="Deployment")
    expect("a subresource", sorted(deployments.subresources), ["scale", "status"])
    short = plane.dynamic.resources.get(api_version="v1", kind="Service", short_names=["svc"])
    expect("by short name", short.name, "services")
    expect("what can be deleted together", "deletecollection" in maps.verbs, True)


def definition(group):
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1, "default": 2}}},
                                               "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}, "scale": scale}}
    names = {"kind": "Gadget", "plural": "gadgets", "singular": "gadget", "shortNames": ["gd"]}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"gadgets.{group}"}, "spec": spec}


def takes_custom_kinds(plane):
    namespace, group = plane.namespace, f"{plane.namespace}.example.com"
    definitions = client.ApiextensionsV1Api(plane.api)
    definitions.create_custom_resource_definition(definition(group))
    conditions = lambda: {c.type: c.status for c in definitions.read_custom_resource_definition(f"gadgets.{group}").status.conditions or []}
    until("it is served", lambda: conditions().get("Established") == "True", 30)
    custom = client.CustomObjectsApi(plane.api)
    where = (group, "v1", namespace, "gadgets")
    body = {"apiVersion": f"{group}/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {"other": 1}}
    made = until("the path", lambda: attempt_create(custom, where, body), 30)
    expect("defaults and pruning", made["spec"], {"size": 2})
    status = refused(422, "Invalid", custom.patch_namespaced_custom_object, *where, "g", {"spec": {"size": 0}})
    expect("the cause", status["details"]["causes"][0]["field"], "spec.size")
    expect("a merge", custom.patch_namespaced_custom_object(*where, "g", {"spec": {"size": 3}})["spec"]["size"], 3)
    operations, kind = [{"op": "replace", "path": "/spec/size", "value": 4}], "application/json-patch+json"
    expect("operations", custom.patch_namespaced_custom_object(*where, "g", operations, _content_type=kind)["spec"]["size"], 4)
    strategic = {"_content_type": "application/strategic-merge-patch+json"}
    refused(415, "UnsupportedMediaType", custom.patch_namespaced_custom_object, *where, "g", {}, **strategic)
    custom.patch_namespaced_custom_object_status(*where, "g", {"status": {"replicas": 1}, "spec": {"size": 9}})
    kept = custom.get_namespaced_custom_object(*where, "g")
    expect("the status", (kept["spec"]["size"], kept["status"]), (4, {"replicas": 1}))
    scale = custom.get_namespaced_custom_object_scale(*where, "g")
    expect("the scale", (scale["kind"], scale["spec"], scale["status"]["replicas"]), ("Scale", {"replicas": 4}, 1))
    custom.patch_namespaced_custom_object_scale(*where, "g", {"spec": {"replicas": 5}})
    expect("scaled", custom.list_namespaced_custom_object(*where)["items"][0]["spec"]["size"], 5)
    everywhere = custom.list_cluster_custom_object(group, "v1", "gadgets")
    expect("all", (everywhere["kind"], len(everywhere["items"])), ("GadgetList", 1))
    seen, watcher = [], watch.Watch()
    for event in watcher.stream(custom.list_namespaced_custom_object, *where, timeout_seconds=20):
        seen.append((event["type"], event["object"]["spec"]["size"]))
        watcher.stop()
    expect("a watch", seen, [("ADDED", 5)])
    plane.dynamic.resources.invalidate_cache()
    gadgets = plane.dynamic.resources.get(api_version=f"{group}/v1", kind="Gadget")
    expect("found by discovery", gadgets.get(name="g", namespace=namespace).spec.size, 5)
    custom.delete_namespaced_custom_object(*where, "g")
    definitions.delete_custom_resource_definition(f"gadgets.{group}")
    until("its end", lambda: missing(custom.list_cluster_custom_object, group, "v1", "gadgets"), 30)


def attempt_create(custom, where, body):
    try:
        return custom.create_namespaced_custom_object(*where, body)
    except ApiException as e:
        if e.status != 404:
            raise
        return None


def missing(call, *args):
    try:
        call(*args)
    except ApiException as e:
        return e.status == 404
    return False


MANIFESTS = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: from-list}, data: {a: "1"}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: from-yaml}
spec:
  replicas: 0
  selector: {matchLabels: {app: from-yaml}}
  template:
    metadata: {labels: {app: from-yaml}}
    spec: {containers: [{name: c, image: i}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: from-yaml}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: from-yaml}
spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: from-yaml}}
"""


def creates_from_yaml(plane):
    objects = [yaml_object for yaml_object in yaml.safe_load_all(MANIFESTS)]
    made = utils.create_from_yaml(plane.api, yaml_objects=objects, namespace=plane.namespace)
    expect("what was made", [type(m).__name__ for group in made for m in group],
           ["V1ConfigMap", "V1Deployment", "V1Role", "V2HorizontalPodAutoscaler"])
    try:
        utils.create_from_yaml(plane.api, yaml_objects=objects[1:3], namespace=plane.namespace)
        raise Failure("they were made twice")
    except utils.FailToCreateError as e:
        expect("the errors", [x.status for x in e.api_exceptions], [409, 409])
    utils.create_from_yaml(plane.api, yaml_objects=objects[1:3], namespace=plane.namespace, apply=True)
    managers = plane.apps.read_namespaced_deployment("from-yaml", plane.namespace).metadata.managed_fields
    contains("the managers", str([m.operation for m in managers]), "Apply")


def leads_in_turns(plane):
    """One holds the lock; the next takes over when it is no longer renewed."""
    for kind in (LeaseLock, ConfigMapLock):
        name, led = f"lock-{kind.__name__.lower()}", []
        lock = kind(name, plane.namespace, "first")
        record = leaderelection.LeaderElectionRecord("first", "2", str(datetime.datetime.now()), str(datetime.datetime.now()))
        expect("the lock", lock.create(name, plane.namespace, record), True)
        second = kind(name, plane.namespace, "second")
        lead = threading.Event()
        settings = electionconfig.Config(second, lease_duration=4, renew_deadline=3, retry_period=1, onstarted_leading=lead.set, onstopped_leading=lambda: None)
        threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()
        if not lead.wait(60):
            raise Failure("nobody took over")
        held, record = second.get(name, plane.namespace)
        expect("the holder", (held, record.holder_identity), (True, "second"))
    lease = client.CoordinationV1Api(plane.api).read_namespaced_lease("lock-leaselock", plane.namespace)
    expect("the lease", (lease.spec.holder_identity, type(lease.spec.renew_time).__name__), ("second", "datetime"))


def authenticates(plane):
    namespace, core = plane.namespace, plane.core
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "robot"}})
    rbac = client.RbacAuthorizationV1Api(plane.api)
    subject = {"kind": "ServiceAccount", "name": "robot", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    rbac.create_namespaced_role_binding(namespace, {"metadata": {"name": "robot"}, "roleRef": role, "subjects": [subject]})
    ask = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600))
    token = core.create_namespaced_service_account_token("robot", namespace, ask).status.token
    with open(os.environ["KUBECONFIG"]) as file:
        known = yaml.safe_load(file)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "token")
        with open(path, "w") as file:
            file.write("wrong")
        # A token out of a file, as pods have it, is read when the configuration is loaded.
        known["users"][0]["user"] = {"tokenFile": path}
        with open(path, "w") as file:
            file.write(token)
        robot = client.CoreV1Api(config.new_client_from_config_dict(known))
        until("the role counts", lambda: not isinstance(outcome(robot.list_namespaced_config_map, namespace), int), 20)
        status = refused(403, "Forbidden", robot.list_namespaced_secret, namespace)
        contains("the refusal", status["message"], f'User "system:serviceaccount:{namespace}:robot" cannot list resource "secrets"')
        # A token that must be refreshed: the client asks its hook before each call.
        settings = client.Configuration.get_default_copy()
        settings.cert_file = settings.key_file = None
        settings.api_key = {"authorization": "Bearer stale"}
        refused(401, "Unauthorized", client.CoreV1Api(client.ApiClient(settings)).list_node)
        def renew(settings):
            settings.api_key["authorization"] = f"Bearer {token}"
        settings.refresh_api_key_hook = renew
        who = client.AuthenticationV1Api(client.ApiClient(settings)).create_self_subject_review(client.V1SelfSubjectReview())
        expect("who it is", who.status.user_info.username, f"system:serviceaccount:{namespace}:robot")
        # A program that brings the token.
        script = os.path.join(folder, "plugin")
        credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}
        with open(script, "w") as file:
            file.write(f"#!/bin/sh\ncat <<'E'\n{json.dumps(credential)}\nE\n")
        os.chmod(script, 0o700)
        known["users"][0]["user"] = {"exec": {"apiVersion": credential["apiVersion"], "command": script, "interactiveMode": "Never"}}
        plugged = config.new_client_from_config_dict(known)
        expect("by a program", len(client.CoreV1Api(plugged).list_namespaced_config_map(namespace, limit=1).items), 1)
    impersonating = client.ApiClient()
    impersonating.set_default_header("Impersonate-User", "jane")
    refused(403, "Forbidden", client.CoreV1Api(impersonating).list_node)
    review = {"spec": {"resourceAttributes": {"verb": "delete", "resource": "nodes"}}}
    allowed = client.AuthorizationV1Api(plane.api).create_self_subject_access_review(review).status.allowed
    expect("what the administrator may", allowed, True)


def outcome(call, *args):
    try:
        return call(*args)
    except ApiException as e:
        return e.status


def works_asynchronously(plane):
    """The client on asyncio, of a project of its own."""
    from kubernetes_asyncio import client as aclient, config as aconfig, watch as awatch
    from kubernetes_asyncio.stream import WsApiClient

    async def flow():
        await aconfig.load_kube_config()
        async with aclient.ApiClient() as api:
            core = aclient.CoreV1Api(api)
            body = {"metadata": {"name": "async", "labels": {"set": "async"}}, "data": {"a": "1"}}
            made = await core.create_namespaced_config_map(plane.namespace, body)
            patched = await core.patch_namespaced_config_map("async", plane.namespace, {"data": {"b": "2"}})
            expect("a patch", patched.data, {"a": "1", "b": "2"})
            seen, watcher = [], awatch.Watch()
            options = {"label_selector": "set=async", "resource_version": made.metadata.resource_version, "timeout_seconds": 20}
            async with watcher.stream(core.list_namespaced_config_map, plane.namespace, **options) as events:
                await core.delete_namespaced_config_map("async", plane.namespace)
                async for event in events:
                    seen.append(event["type"])
                    if event["type"] == "DELETED":
                        watcher.stop()
            expect("events", seen, ["MODIFIED", "DELETED"])
        async with WsApiClient() as api:
            call = aclient.CoreV1Api(api).connect_get_namespaced_pod_exec
            command = ["sh", "-c", "echo async"]
            out = await call("shell", plane.namespace, command=command, stderr=True, stdin=False, stdout=True, tty=False)
            expect("a program", out.strip(), "async")

    asyncio.run(asyncio.wait_for(flow(), 60))


def evicts_and_deletes(plane):
    namespace, core = plane.namespace, plane.core
    policy = client.PolicyV1Api(plane.api)
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"guarded": "yes"}}}
    policy.create_namespaced_pod_disruption_budget(namespace, {"metadata": {"name": "guard"}, "spec": spec})
    core.patch_namespaced_pod("web", namespace, {"metadata": {"labels": {"guarded": "yes"}}})
    until("the budget", lambda: policy.read_namespaced_pod_disruption_budget("guard", namespace).status.expected_pods == 1, 30)
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="web"))
    status = refused(429, "TooManyRequests", core.create_namespaced_pod_eviction, "web", namespace, eviction)
    contains("the refusal", status["message"], "disruption budget")
    policy.delete_namespaced_pod_disruption_budget("guard", namespace)
    until("the eviction", lambda: outcome(core.create_namespaced_pod_eviction, "web", namespace, eviction) != 429, 30)
    until("it is gone", lambda: missing(core.read_namespaced_pod, "web", namespace))
    deleted = core.delete_namespaced_pod("shell", namespace, grace_period_seconds=0)
    expect("what deletion gives", deleted.metadata.name, "shell")
    core.delete_namespace(namespace)
    until("the namespace ends", lambda: missing(core.read_namespace, namespace))


CHECKS = [
    tells_its_version,
    keeps_core_kinds,
    patches,
    lists_in_pages,
    accepts_tables,
    watches,
    minds_versions,
    informs,
    runs_programs,
    follows_logs,
    forwards_ports,
    works_without_types,
    takes_custom_kinds,
    creates_from_yaml,
    leads_in_turns,
    authenticates,
    works_asynchronously,
    evicts_and_deletes,
]

if __name__ == "__main__":
    plane = Plane(sys.argv[1])
    checks.run("python", CHECKS, plane)
