// The JavaScript client of Kubernetes on the server: objects, watches, informers, programs in pods, applies, metrics that are not there.
//
//     node javascript.mjs NAMESPACE SCRATCH [--only WORDS...]
//
// The cluster is that of $KUBECONFIG; its nodes have the image localhost/busybox:1.

import * as k8s from '@kubernetes/client-node';
import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer, connect } from 'node:net';
import { PassThrough } from 'node:stream';
import { join } from 'node:path';

const [namespace, scratch] = process.argv.slice(2);
const IMAGE = 'localhost/busybox:1';
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Looks again and again; what is true in the end is given back. */
async function until(what, look, seconds = 60) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert(Date.now() < end, `${what}: not within ${seconds} s`);
    await sleep(50);
  }
}

/** Fails where a promise does not end in time. */
function within(what, promise, seconds = 60) {
  const late = sleep(seconds * 1000).then(() => Promise.reject(new Error(`${what}: not within ${seconds} s`)));
  return Promise.race([promise, late]);
}

/** What must be refused; gives the status that was told. */
async function refused(code, reason, promise) {
  try {
    await promise;
  } catch (error) {
    const status = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
    assert.deepEqual([error.code, status?.reason], [code, reason], JSON.stringify(status ?? error.message));
    return status;
  }
  throw new Error(`not refused with ${code}`);
}

const configMap = (name, data, labels) =>
  core.createNamespacedConfigMap({ namespace, body: { metadata: { name, labels }, data } });
const patched = (type) => k8s.setHeaderOptions('Content-Type', type);

async function pod(name, script, more = {}) {
  const container = { name: 'main', image: IMAGE, command: ['sh', '-c', script], ...more };
  const spec = { containers: [container], terminationGracePeriodSeconds: 1, restartPolicy: 'Never' };
  await core.createNamespacedPod({ namespace, body: { metadata: { name, labels: { app: name } }, spec } });
  await until(`the pod ${name}`, async () => (await core.readNamespacedPod({ name, namespace })).status.phase !== 'Pending');
}

/** A stream that keeps what is written. */
function kept() {
  const stream = new PassThrough();
  let text = '';
  stream.on('data', (chunk) => (text += chunk));
  return [stream, () => text];
}

async function versionAndDiscovery() {
  const { major, minor } = await config.makeApiClient(k8s.VersionApi).getCode();
  assert.deepEqual([major, minor], ['1', '36']);
  const { groups } = await config.makeApiClient(k8s.ApisApi).getAPIVersions();
  assert(groups.some((g) => g.name === 'apps' && g.preferredVersion.version === 'v1'));
  const { resources } = await core.getAPIResources();
  assert.deepEqual(resources.find((r) => r.name === 'pods').shortNames, ['po']);
}

async function makesReadsReplacesDeletes() {
  const made = await configMap('first', { a: '1' });
  assert(made.metadata.creationTimestamp instanceof Date);
  await refused(409, 'AlreadyExists', configMap('first', {}));
  const stale = await core.readNamespacedConfigMap({ name: 'first', namespace });
  await core.replaceNamespacedConfigMap({ name: 'first', namespace, body: { ...made, data: { a: '2' } } });
  await refused(409, 'Conflict', core.replaceNamespacedConfigMap({ name: 'first', namespace, body: stale }));
  const status = await refused(422, 'Invalid', configMap('Not_A_Name', {}));
  assert.equal(status.details.causes[0].field, 'metadata.name');
  await core.deleteNamespacedConfigMap({ name: 'first', namespace });
  await refused(404, 'NotFound', core.readNamespacedConfigMap({ name: 'first', namespace }));
  for (const i of [0, 1, 2, 3, 4]) await configMap(`page-${i}`, {}, { set: 'pages' });
  const names = [];
  let _continue;
  do {
    const page = await core.listNamespacedConfigMap({ namespace, labelSelector: 'set=pages', limit: 2, _continue });
    names.push(...page.items.map((m) => m.metadata.name));
    _continue = page.metadata._continue;
  } while (_continue);
  assert.deepEqual(names, ['page-0', 'page-1', 'page-2', 'page-3', 'page-4']);
  await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'set=pages' });
  assert.deepEqual((await core.listNamespacedConfigMap({ namespace, labelSelector: 'set=pages' })).items, []);
}

async function patches() {
  await configMap('patched', { a: '1', b: '1' });
  const patch = async (type, body, more = {}) =>
    (await core.patchNamespacedConfigMap({ name: 'patched', namespace, body, ...more }, patched(type))).data;
  const { JsonPatch, MergePatch, StrategicMergePatch, ServerSideApply } = k8s.PatchStrategy;
  assert.deepEqual(await patch(JsonPatch, [{ op: 'replace', path: '/data/a', value: '2' }]), { a: '2', b: '1' });
  assert.deepEqual(await patch(MergePatch, { data: { b: null } }), { a: '2' });
  assert.deepEqual(await patch(StrategicMergePatch, { data: { c: '3' } }), { a: '2', c: '3' });
  await refused(422, 'Invalid', patch(JsonPatch, [{ op: 'test', path: '/data/a', value: 'x' }]));
  const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'patched' }, data: { a: '9' } };
  const status = await refused(409, 'Conflict', patch(ServerSideApply, body, { fieldManager: 'js' }));
  assert.equal(status.details.causes[0].field, '.data.a');
  assert.deepEqual(await patch(ServerSideApply, body, { fieldManager: 'js', force: true }), { a: '9', c: '3' });
  assert.deepEqual(await patch(MergePatch, { data: { a: '0' } }, { dryRun: 'All' }), { a: '0', c: '3' });
  assert.equal((await core.readNamespacedConfigMap({ name: 'patched', namespace })).data.a, '9');
}

async function objectsOfAnyKind() {
  const text = `apiVersion: apps/v1
kind: Deployment
metadata: {name: any, namespace: ${namespace}}
spec:
  replicas: 0
  selector: {matchLabels: {app: any}}
  template: {metadata: {labels: {app: any}}, spec: {containers: [{name: c, image: i}]}}
---
apiVersion: v1
kind: Service
metadata: {name: any, namespace: ${namespace}}
spec: {ports: [{port: 80}]}
`;
  const [deployment, service] = k8s.loadAllYaml(text);
  const made = await objects.create(deployment);
  assert.equal(made.spec.strategy.type, 'RollingUpdate');
  assert((await objects.create(service)).spec.clusterIP);
  assert.equal((await objects.read(deployment)).metadata.uid, made.metadata.uid);
  const patch = { ...deployment, spec: { template: { spec: { containers: [{ name: 'd', image: 'j' }] } } } };
  const merged = await objects.patch(patch);
  assert.deepEqual(merged.spec.template.spec.containers.map((c) => c.name).sort(), ['c', 'd']);
  const apply = { ...deployment, spec: { ...deployment.spec, minReadySeconds: 7 } };
  const applied = await objects.patch(apply, undefined, undefined, 'any', true, k8s.PatchStrategy.ServerSideApply);
  assert.equal(applied.spec.minReadySeconds, 7);
  assert(applied.metadata.managedFields.some((m) => m.manager === 'any' && m.operation === 'Apply'));
  const list = await objects.list('apps/v1', 'Deployment', namespace, undefined, undefined, undefined, 'metadata.name=any');
  assert.deepEqual(list.items.map((d) => d.metadata.name), ['any']);
  const scale = await apps.readNamespacedDeploymentScale({ name: 'any', namespace });
  assert.equal(scale.status.selector, 'app=any');
  await objects.delete(service);
  await objects.delete(deployment);
  await refused(404, 'NotFound', objects.read(deployment));
}

async function customKinds() {
  const group = `${namespace}.example.com`;
  const schema = { type: 'object', properties: { spec: { type: 'object', properties: { n: { type: 'integer', _default: 1 } } } } };
  const version = { name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: schema }, subresources: { status: {} } };
  const names = { kind: 'Gizmo', plural: 'gizmos' };
  const definition = { metadata: { name: `gizmos.${group}` }, spec: { group, scope: 'Namespaced', names, versions: [version] } };
  const definitions = config.makeApiClient(k8s.ApiextensionsV1Api);
  await definitions.createCustomResourceDefinition({ body: definition });
  const custom = config.makeApiClient(k8s.CustomObjectsApi);
  const where = { group, version: 'v1', namespace, plural: 'gizmos' };
  await until('the kind', () => custom.listNamespacedCustomObject(where).catch((e) => e.code !== 404 && Promise.reject(e)));
  const body = { apiVersion: `${group}/v1`, kind: 'Gizmo', metadata: { name: 'g' }, spec: { other: 1 } };
  assert.deepEqual((await custom.createNamespacedCustomObject({ ...where, body })).spec, { n: 1 });
  const options = patched(k8s.PatchStrategy.MergePatch);
  const merged = await custom.patchNamespacedCustomObject({ ...where, name: 'g', body: { spec: { n: 2 } } }, options);
  assert.equal(merged.spec.n, 2);
  await refused(422, 'Invalid', custom.patchNamespacedCustomObject({ ...where, name: 'g', body: { spec: { n: 'x' } } }, options));
  assert.equal((await objects.read({ apiVersion: `${group}/v1`, kind: 'Gizmo', metadata: { name: 'g', namespace } })).spec.n, 2);
  await definitions.deleteCustomResourceDefinition({ name: `gizmos.${group}` });
}

async function watches() {
  const { metadata } = await core.listNamespacedConfigMap({ namespace });
  const seen = [];
  const ended = new Promise((resolve, reject) => {
    const query = { resourceVersion: metadata.resourceVersion, labelSelector: 'set=watch', timeoutSeconds: 2 };
    const watch = new k8s.Watch(config);
    const see = (phase, object) => seen.push(`${phase} ${object.metadata.name}`);
    watch.watch(`/api/v1/namespaces/${namespace}/configmaps`, query, see, (error) => resolve(error)).catch(reject);
  });
  await configMap('watched', {}, { set: 'watch' });
  await core.patchNamespacedConfigMap(
    { name: 'watched', namespace, body: { data: { a: '1' } } },
    patched(k8s.PatchStrategy.MergePatch),
  );
  await core.deleteNamespacedConfigMap({ name: 'watched', namespace });
  const error = await within('the end of the watch', ended);
  assert(!error || error === k8s.Watch.SERVER_SIDE_CLOSE, String(error));
  assert.deepEqual(seen, ['ADDED watched', 'MODIFIED watched', 'DELETED watched']);
  const told = new Promise((resolve) =>
    new k8s.Watch(config).watch('/api/v1/nothing', {}, () => {}, resolve).catch(resolve),
  );
  assert(String(await within('the refusal', told)).includes('Not Found'));
}

async function informs() {
  const seen = [];
  await configMap('informed-0', { n: '0' }, { set: 'inform' });
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'set=inform' });
  const informer = k8s.makeInformer(config, path, list, 'set=inform');
  let connections = 0;
  for (const verb of ['add', 'update', 'delete']) informer.on(verb, (o) => seen.push(`${verb} ${o.metadata.name}`));
  informer.on('connect', () => (connections += 1));
  await informer.start();
  await until('the first', () => seen.includes('add informed-0'));
  await configMap('informed-1', { n: '1' }, { set: 'inform' });
  await until('an addition', () => seen.includes('add informed-1'));
  await core.deleteNamespacedConfigMap({ name: 'informed-0', namespace });
  await until('a deletion', () => seen.includes('delete informed-0'));
  assert.deepEqual(informer.list(namespace).map((o) => o.metadata.name), ['informed-1']);
  await informer.stop();
  // What happens meanwhile is learnt when it is started again.
  await configMap('informed-2', {}, { set: 'inform' });
  await informer.start();
  await until('what was missed', () => seen.includes('add informed-2'));
  assert.equal(informer.get('informed-1', namespace).data.n, '1');
  assert(connections >= 2);
  await informer.stop();
}

async function runsPrograms() {
  const serve = 'mkdir /tmp/w; echo page > /tmp/w/index.html; httpd -p 8080 -h /tmp/w; while read line; do echo got $line; done';
  await pod('shell', `${serve}; sleep 3600`, { stdin: true });
  const exec = new k8s.Exec(config);
  const run = async (command, stdin = null, tty = false) => {
    const [[out, outText], [err, errText]] = [kept(), kept()];
    const status = await within(
      command.join(' '),
      new Promise((resolve, reject) =>
        exec.exec(namespace, 'shell', 'main', command, out, tty ? null : err, stdin, tty, resolve).catch(reject),
      ),
    );
    await sleep(0);
    return { status, out: outText(), err: errText() };
  };
  const plain = await run(['sh', '-c', 'echo out; echo err >&2']);
  assert.deepEqual([plain.status.status, plain.out, plain.err], ['Success', 'out\n', 'err\n']);
  const failed = await run(['sh', '-c', 'exit 5']);
  assert.deepEqual([failed.status.status, failed.status.details.causes[0].message], ['Failure', '5']);
  const input = new PassThrough();
  input.write('echo by stdin\nexit 0\n');
  assert.equal((await run(['sh'], input)).out, 'by stdin\n');
  const terminal = new PassThrough();
  terminal.write('exit 3\n');
  const { status } = await run(['sh'], terminal, true);
  assert.equal(status.details.causes[0].message, '3');
  const none = new Promise((resolve, reject) =>
    exec.exec(namespace, 'none', 'main', ['true'], null, null, null, false).then(resolve, reject),
  );
  await assert.rejects(within('a pod that is not there', none));
}

async function attachesAndLogs() {
  const input = new PassThrough();
  const [out, text] = kept();
  const socket = await new k8s.Attach(config).attach(namespace, 'shell', 'main', out, null, input, false);
  input.write('a line\n');
  await until('an answer', () => text().includes('got a line'));
  socket.close();
  const log = new k8s.Log(config);
  const [stream, logged] = kept();
  const ended = new Promise((resolve) => stream.on('end', resolve));
  await pod('counter', 'for i in 1 2 3; do echo line $i; sleep 0.3; done');
  await log.log(namespace, 'counter', 'main', stream, { follow: true });
  await within('the end of the log', ended);
  assert.equal(logged(), 'line 1\nline 2\nline 3\n');
  assert.equal(await core.readNamespacedPodLog({ name: 'shell', namespace, tailLines: 1 }), 'got a line\n');
  await refused(400, 'BadRequest', core.readNamespacedPodLog({ name: 'shell', namespace, container: 'none' }));
}

async function copiesFiles() {
  const [from, to] = [join(scratch, 'from'), join(scratch, 'to')];
  await mkdir(from, { recursive: true });
  await mkdir(to, { recursive: true });
  const content = 'x'.repeat(200_000);
  await writeFile(join(from, 'file'), content);
  const copy = new k8s.Cp(config);
  await copy.cpToPod(namespace, 'shell', 'main', from, '/tmp');
  const sizes = async () => {
    const [out, text] = kept();
    await new Promise((resolve, reject) => {
      const command = ['sh', '-c', 'wc -c /tmp/file 2>/dev/null | cut -d" " -f1'];
      new k8s.Exec(config).exec(namespace, 'shell', 'main', command, out, null, null, false, resolve).catch(reject);
    });
    return text().trim() === '200000';
  };
  await until('the copy in the pod', sizes);
  await copy.cpFromPod(namespace, 'shell', 'main', 'file', to, '/tmp');
  await until('the copy back', async () => (await readFile(join(to, 'file'), 'utf8').catch(() => '')) === content);
}

async function forwardsPorts() {
  const forward = new k8s.PortForward(config);
  const server = createServer((socket) => {
    socket.on('error', () => {});
    forward.portForward(namespace, 'shell', [8080], socket, null, socket).catch((error) => socket.destroy(error));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const page = await within(
    'a page',
    new Promise((resolve, reject) => {
      const socket = connect(server.address().port, '127.0.0.1');
      let text = '';
      socket.on('data', (chunk) => {
        text += chunk;
        if (text.includes('page\n')) resolve(text);
      });
      socket.on('error', reject);
      socket.write('GET / HTTP/1.0\r\n\r\n');
    }),
  );
  assert(page.includes('200 OK'));
  server.close();
}

async function holdsLeases() {
  const coordination = config.makeApiClient(k8s.CoordinationV1Api);
  const spec = (holder) => ({ holderIdentity: holder, leaseDurationSeconds: 5, renewTime: new k8s.V1MicroTime() });
  const body = { metadata: { name: 'lead' }, spec: spec('one') };
  const made = await coordination.createNamespacedLease({ namespace, body });
  const taken = await coordination.replaceNamespacedLease({ name: 'lead', namespace, body: { ...made, spec: spec('two') } });
  assert.equal(taken.spec.holderIdentity, 'two');
  // The first, which still has what it read, is too late.
  await refused(409, 'Conflict', coordination.replaceNamespacedLease({ name: 'lead', namespace, body: { ...made, spec: spec('one') } }));
}

async function lacksMetrics() {
  const metrics = new k8s.Metrics(config);
  await assert.rejects(metrics.getNodeMetrics(), (error) => error.code === 404 || String(error).includes('404'));
  const nodes = (await core.listNode()).items;
  assert((await new k8s.Health(config).readyz()) === true);
  assert(nodes[0].status.conditions.some((c) => c.type === 'Ready' && c.status === 'True'));
}

async function isRefusedWhatItMayNot() {
  const body = { metadata: { name: 'robot' } };
  await core.createNamespacedServiceAccount({ namespace, body });
  const ask = { spec: { audiences: [], expirationSeconds: 600 } };
  const { status } = await core.createNamespacedServiceAccountToken({ name: 'robot', namespace, body: ask });
  const robot = new k8s.KubeConfig();
  const user = { name: 'robot', token: status.token };
  const { server, caData, caFile, name } = config.getCurrentCluster();
  robot.loadFromClusterAndUser({ server, caData, caFile, name }, user);
  const told = await refused(403, 'Forbidden', robot.makeApiClient(k8s.CoreV1Api).listNode());
  assert(told.message.includes(`User "system:serviceaccount:${namespace}:robot" cannot list resource "nodes"`));
  robot.loadFromClusterAndUser({ server, caData, caFile, name }, { name: 'forged', token: 'forged' });
  // The client keeps no body of this one.
  await assert.rejects(robot.makeApiClient(k8s.CoreV1Api).listNode(), (error) => error.code === 401);
}

async function endsTheNamespace() {
  await core.deleteNamespacedPod({ name: 'shell', namespace, gracePeriodSeconds: 0 });
  await core.deleteNamespace({ name: namespace });
  await until('its end', () => core.readNamespace({ name: namespace }).then(() => false, (error) => error.code === 404));
}

const checks = [
  versionAndDiscovery, makesReadsReplacesDeletes, patches, objectsOfAnyKind, customKinds, watches, informs, runsPrograms,
  attachesAndLogs, copiesFiles, forwardsPorts, holdsLeases, lacksMetrics, isRefusedWhatItMayNot, endsTheNamespace,
];

await core.createNamespace({ body: { metadata: { name: namespace } } });
await until('the service account', () => core.readNamespacedServiceAccount({ name: 'default', namespace }).catch(() => false), 30);
const at = process.argv.indexOf('--only');
const only = at < 0 ? null : process.argv.slice(at + 1);
let failed = 0;
for (const check of checks) {
  const name = check.name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  if (only && !only.some((word) => name.includes(word))) continue;
  const start = Date.now();
  try {
    await check();
    console.log(`javascript ${name}: ok (${((Date.now() - start) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed += 1;
    console.log(`javascript ${name}: FAILED: ${error.stack}`);
  }
}
// Sockets that the client keeps open must not hold the program.
process.exit(failed ? 1 : 0);
