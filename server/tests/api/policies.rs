//! Admission policies: what they refuse, change, warn of and note, with bindings and parameters.

use crate::common::Plane;
use crate::rules::cluster;
use kubewright_core::{
    ApiError, ApiRequest, ContentType, GroupVersionResource, Notes, Options, Reason, UserInfo, Verb,
};
use kubewright_server::auth::{Attributes, Authorizer, Decision};
use serde_json::{Value, json};
use std::sync::Arc;

const GROUP: &str = "admissionregistration.k8s.io";

fn settings(plural: &str) -> GroupVersionResource {
    GroupVersionResource::new(GROUP, "v1", plural)
}

async fn write(plane: &Plane, plural: &str, object: Value) -> Result<Value, ApiError> {
    let request = ApiRequest::resource(Verb::Create, settings(plural), None, None);
    plane.value(request.body(ContentType::Json, object)).await
}

/// A policy about ConfigMaps and Deployments, and its binding.
async fn validating(plane: &Plane, spec: Value, binding: Value) {
    policy(plane, "validating", spec, binding).await;
}

async fn policy(plane: &Plane, sort: &str, spec: Value, binding: Value) {
    let mut object = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [
        {"operations": ["CREATE", "UPDATE", "DELETE"], "apiGroups": ["", "apps"], "apiVersions": ["v1"], "resources": ["configmaps", "deployments"]}]}}});
    for (name, value) in spec.as_object().unwrap() {
        object["spec"][name] = value.clone();
    }
    write(plane, &format!("{sort}admissionpolicies"), object).await.unwrap();
    let mut object = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p"}});
    if sort == "validating" {
        object["spec"]["validationActions"] = json!(["Deny"]);
    }
    for (name, value) in binding.as_object().unwrap() {
        object["spec"][name] = value.clone();
    }
    write(plane, &format!("{sort}admissionpolicybindings"), object).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
}

fn maps() -> GroupVersionResource {
    GroupVersionResource::new("", "v1", "configmaps")
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "data": data})
}

fn creation(object: Value) -> ApiRequest {
    ApiRequest::resource(Verb::Create, maps(), Some("default"), None).body(ContentType::Json, object)
}

async fn create(plane: &Plane, object: Value) -> Result<Value, ApiError> {
    plane.value(creation(object)).await
}

async fn noted(plane: &Plane, object: Value) -> (Result<Value, ApiError>, Notes) {
    let request = creation(object);
    let notes = request.notes.clone();
    (plane.value(request).await, notes)
}

#[tokio::test]
async fn a_policy_refuses_what_breaks_it() {
    let plane = cluster().await;
    let spec = json!({
        "variables": [{"name": "n", "expression": "has(object.data) ? object.data.size() : 0"}],
        "validations": [
            {"expression": "variables.n < 2", "messageExpression": "'has ' + string(variables.n) + ' keys'", "reason": "Forbidden"},
            {"expression": "object.metadata.name != 'bad'", "message": "the name is bad"},
            {"expression": "request.operation == 'CREATE' && namespaceObject.metadata.name == 'default'"}]});
    validating(&plane, spec, json!({})).await;
    let object = create(&plane, map("good", json!({"a": "b"}))).await.unwrap();
    assert_eq!(object["data"]["a"], "b");
    let error = create(&plane, map("big", json!({"a": "b", "c": "d"}))).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Forbidden);
    let words = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: has 2 keys";
    assert_eq!(error.message(), format!("configmaps \"big\" is forbidden: {words}"));
    let causes = error.status().details.as_ref().unwrap().causes.as_ref().unwrap();
    assert_eq!(causes[0].message.as_deref(), Some(words));
    let error = create(&plane, map("bad", json!({}))).await.unwrap_err();
    assert_eq!((error.reason(), error.code()), (Reason::Invalid, 422));
    assert!(error.message().ends_with("denied request: the name is bad"), "{error}");
    let request = ApiRequest::resource(Verb::Patch, maps(), Some("default"), Some("good"));
    let request = request.body(ContentType::MergePatch, json!({"data": {"a": "c"}}));
    let error = plane.value(request).await.unwrap_err();
    assert!(error.message().contains("failed expression: request.operation == 'CREATE' &&"), "{error}");
    // Other resources are none of its business.
    let secrets = GroupVersionResource::new("", "v1", "secrets");
    let request = ApiRequest::resource(Verb::Create, secrets, Some("default"), None);
    plane.send(request.body(ContentType::Json, json!({"metadata": {"name": "bad"}}))).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_told_follows_the_failure_policy() {
    for (failure, refused) in [("Fail", true), ("Ignore", false)] {
        let plane = cluster().await;
        let spec =
            json!({"failurePolicy": failure, "validations": [{"expression": "object.data.nope == 'x'"}]});
        validating(&plane, spec, json!({})).await;
        let made = create(&plane, map("a", json!({"k": "v"}))).await;
        assert_eq!(made.is_err(), refused);
        if let Err(error) = made {
            let words =
                "denied request: expression 'object.data.nope == 'x'' resulted in error: no such key: nope";
            assert!(error.message().ends_with(words), "{error}");
        }
    }
}

#[tokio::test]
async fn conditions_and_selectors_narrow_a_policy() {
    let plane = cluster().await;
    let spec = json!({
        "matchConditions": [{"name": "not-mine", "expression": "request.userInfo.username != 'me'"}],
        "validations": [{"expression": "false", "message": "never"}]});
    let binding = json!({"matchResources": {
        "objectSelector": {"matchLabels": {"app": "a"}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        "excludeResourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["deployments"]}]}});
    validating(&plane, spec, binding).await;
    create(&plane, map("b", json!({}))).await.unwrap();
    create(&plane, map("a", json!({}))).await.unwrap_err();
    let mut request = creation(map("a", json!({})));
    request.user = Arc::new(UserInfo { username: Some("me".to_owned()), ..UserInfo::default() });
    plane.send(request).await.unwrap();
    let elsewhere = ApiRequest::resource(Verb::Create, maps(), Some("kube-system"), None);
    plane.send(elsewhere.body(ContentType::Json, map("a", json!({})))).await.unwrap();
    let deployments = GroupVersionResource::new("apps", "v1", "deployments");
    let deployment = json!({"metadata": {"name": "a", "labels": {"app": "a"}}, "spec": {"selector": {"matchLabels": {"x": "y"}},
        "template": {"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let request = ApiRequest::resource(Verb::Create, deployments, Some("default"), None);
    plane.send(request.body(ContentType::Json, deployment)).await.unwrap();
}

#[tokio::test]
async fn actions_decide_what_follows() {
    let plane = cluster().await;
    let spec = json!({
        "validations": [{"expression": "object.metadata.name != 'odd'", "message": "odd one"}],
        "auditAnnotations": [{"key": "size", "valueExpression": "object.metadata.name == 'odd' ? dyn('none') : null"}]});
    validating(&plane, spec, json!({"validationActions": ["Warn", "Audit"]})).await;
    let (made, notes) = noted(&plane, map("odd", json!({}))).await;
    made.unwrap();
    let warning = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': odd one";
    assert_eq!(notes.warnings(), [warning]);
    let annotations = notes.annotations();
    assert_eq!(annotations["p/size"], "none");
    let failure: Value =
        serde_json::from_str(&annotations["validation.policy.admission.k8s.io/validation_failure"]).unwrap();
    let wanted = json!([{"message": "odd one", "policy": "p", "binding": "b", "expressionIndex": 0, "validationActions": ["Warn", "Audit"]}]);
    assert_eq!(failure, wanted);
    let (made, notes) = noted(&plane, map("even", json!({}))).await;
    made.unwrap();
    assert!(notes.warnings().is_empty() && notes.annotations().is_empty());
}

#[tokio::test]
async fn parameters_come_from_objects() {
    let plane = cluster().await;
    let limits = |name: &str, max: &str| json!({"metadata": {"name": name, "labels": {"role": "limit"}}, "data": {"max": max}});
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "no-limits", "expression": "!has(object.metadata.labels) || !('role' in object.metadata.labels)"}],
        "validations": [{"expression": "object.data.size() <= int(params.data.max)",
            "messageExpression": "'at most ' + params.data.max"}]});
    create(&plane, limits("one", "1")).await.unwrap();
    create(&plane, limits("two", "2")).await.unwrap();
    let reference = json!({"paramRef": {"name": "two", "parameterNotFoundAction": "Deny"}});
    validating(&plane, spec, reference).await;
    create(&plane, map("a", json!({"a": "", "b": ""}))).await.unwrap();
    let error = create(&plane, map("b", json!({"a": "", "b": "", "c": ""}))).await.unwrap_err();
    assert!(error.message().ends_with("denied request: at most 2"), "{error}");
    let rebind = async |reference: Value| {
        let request =
            ApiRequest::resource(Verb::Patch, settings("validatingadmissionpolicybindings"), None, Some("b"));
        let patch = json!([{"op": "replace", "path": "/spec/paramRef", "value": reference}]);
        plane.value(request.body(ContentType::JsonPatch, patch)).await.unwrap();
        plane.0.reader().consistent().await.unwrap();
    };
    // All that a selector finds have to be kept.
    rebind(json!({"selector": {"matchLabels": {"role": "limit"}}, "parameterNotFoundAction": "Deny"})).await;
    let error = create(&plane, map("c", json!({"a": "", "b": ""}))).await.unwrap_err();
    assert!(error.message().ends_with("denied request: at most 1"), "{error}");
    rebind(json!({"name": "gone", "parameterNotFoundAction": "Deny"})).await;
    let error = create(&plane, map("d", json!({}))).await.unwrap_err();
    let words =
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(error.message().ends_with(words), "{error}");
    rebind(json!({"name": "gone", "parameterNotFoundAction": "Allow"})).await;
    create(&plane, map("e", json!({"a": "", "b": "", "c": ""}))).await.unwrap();
}

struct OnlyLeader;

impl Authorizer for OnlyLeader {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> futures::future::BoxFuture<'a, Decision> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let leads = attributes.user.username.as_deref() == Some("leader");
            if leads && attributes.verb == "bless" && attributes.resource == "configmaps" {
                Decision::Allow
            } else {
                Decision::NoOpinion("not blessed".to_owned())
            }
        })
    }
}

#[tokio::test]
async fn expressions_ask_the_authorizer() {
    let plane = cluster().await;
    plane.0.set_authorizer(Arc::new(OnlyLeader));
    let spec = json!({"validations": [{"expression": "authorizer.requestResource.check('bless').allowed()", "message": "bless it first"},
        {"expression": "!authorizer.serviceAccount('default', 'leader').group('').resource('configmaps').check('bless').allowed()"}]});
    validating(&plane, spec, json!({})).await;
    let mut request = creation(map("a", json!({})));
    request.user = Arc::new(UserInfo { username: Some("leader".to_owned()), ..UserInfo::default() });
    plane.send(request).await.unwrap();
    let error = create(&plane, map("b", json!({}))).await.unwrap_err();
    assert!(error.message().ends_with("bless it first"), "{error}");
}

#[tokio::test]
async fn policies_without_bindings_or_after_them_do_nothing() {
    let plane = cluster().await;
    validating(&plane, json!({"validations": [{"expression": "false"}]}), json!({})).await;
    create(&plane, map("a", json!({}))).await.unwrap_err();
    let binding = settings("validatingadmissionpolicybindings");
    plane.send(ApiRequest::resource(Verb::Delete, binding, None, Some("b"))).await.unwrap();
    plane.0.reader().consistent().await.unwrap();
    create(&plane, map("a", json!({}))).await.unwrap();
}

#[tokio::test]
async fn deletions_are_judged_by_what_goes() {
    let plane = cluster().await;
    let spec = json!({"validations": [{"expression": "request.operation != 'DELETE' || (object == null && oldObject.metadata.name != 'kept')", "message": "stays"}]});
    validating(&plane, spec, json!({})).await;
    for (name, gone) in [("kept", false), ("other", true)] {
        create(&plane, map(name, json!({}))).await.unwrap();
        let request = ApiRequest::resource(Verb::Delete, maps(), Some("default"), Some(name));
        assert_eq!(plane.send(request).await.is_ok(), gone, "{name}");
    }
}

#[tokio::test]
async fn policies_with_wrong_expressions_are_refused() {
    let plane = cluster().await;
    let spec = json!({"matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]},
        "validations": [{"expression": "object.spec.x +"}, {"expression": "request.nope"}]});
    let object = json!({"metadata": {"name": "p"}, "spec": spec});
    let error = write(&plane, "validatingadmissionpolicies", object).await.unwrap_err();
    assert!(error.message().contains("spec.validations[0].expression: Invalid value: \"object.spec.x +\": compilation failed: ERROR: <input>:1:16: Syntax error"), "{error}");
    assert!(error.message().contains("undefined field 'nope'"), "{error}");
}

#[tokio::test]
async fn types_are_checked_when_a_policy_is_written() {
    let plane = cluster().await;
    let check = async |expression: &str, wanted: Value| {
        let object = json!({"metadata": {"generateName": "p-"}, "spec": {"validations": [{"expression": expression}], "matchConstraints": {
            "resourceRules": [{"operations": ["*"], "apiGroups": ["apps", ""], "apiVersions": ["v1"], "resources": ["deployments", "pods"]}]}}});
        let made = write(&plane, "validatingadmissionpolicies", object).await.unwrap();
        assert_eq!(made["status"]["observedGeneration"], 1);
        assert_eq!(made["status"]["typeChecking"], wanted, "{expression}");
    };
    let fine = "object.metadata.namespace != '' && object.metadata.labels.size() > 0 && object.spec != null && (object.metadata.creationTimestamp > timestamp('2020-01-01T00:00:00Z'))";
    check(fine, json!({})).await;
    let warning = "v1, Kind=Pod: ERROR: <input>:1:12: undefined field 'replicas'\n | object.spec.replicas > 1\n | ...........^\n";
    check(
        "object.spec.replicas > 1",
        json!({"expressionWarnings": [{"fieldRef": "spec.validations[0].expression", "warning": warning}]}),
    )
    .await;
}

#[tokio::test]
async fn a_policy_changes_what_is_written() {
    let plane = cluster().await;
    let spec = json!({"reinvocationPolicy": "Never", "matchConditions": [{"name": "named", "expression": "object.metadata.name != 'left'"}],
        "variables": [{"name": "owner", "expression": "request.userInfo.username"}],
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{metadata: Object.metadata{labels: {'owner': variables.owner}}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'test', path: '/metadata/labels/owner', value: variables.owner}, JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a.io/n'), value: string(size(object.data))}]"}}]});
    policy(&plane, "mutating", spec, json!({})).await;
    let mut request = creation(map("a", json!({"k": "v"})));
    request.user = Arc::new(UserInfo { username: Some("jane".to_owned()), ..UserInfo::default() });
    let made = plane.value(request).await.unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"app": "a", "owner": "jane", "a.io/n": "1"}));
    assert_eq!(made["data"], json!({"k": "v"}));
    let made = create(&plane, map("left", json!({"k": "v"}))).await.unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"app": "left"}));
    let request = creation(json!({"metadata": {"name": "no-data"}}));
    let error = plane.value(request).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Invalid);
    assert!(error.message().contains("is forbidden: policy 'p' with binding 'b' denied request:"), "{error}");
}

#[tokio::test]
async fn configurations_merge_as_an_apply_does() {
    let plane = cluster().await;
    let spec = json!({"reinvocationPolicy": "IfNeeded", "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
        "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: object.spec.template.spec.containers.map(c, Object.spec.template.spec.containers.item{name: c.name, env: [Object.spec.template.spec.containers.env{name: 'WHO', value: c.name}]})}}}}"}}]});
    policy(&plane, "mutating", spec, json!({})).await;
    let deployments = GroupVersionResource::new("apps", "v1", "deployments");
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"x": "y"}},
        "template": {"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}]}]}}}});
    let request = ApiRequest::resource(Verb::Create, deployments, Some("default"), None);
    let made = plane.value(request.body(ContentType::Json, deployment)).await.unwrap();
    let container = &made["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "i");
    assert_eq!(container["env"], json!([{"name": "A", "value": "1"}, {"name": "WHO", "value": "c"}]));
}

#[tokio::test]
async fn dry_runs_are_judged_too() {
    let plane = cluster().await;
    validating(&plane, json!({"validations": [{"expression": "!request.dryRun"}]}), json!({})).await;
    let mut request = creation(map("a", json!({})));
    request.options = Options { dry_run: true, ..Options::default() };
    plane.send(request).await.unwrap_err();
    create(&plane, map("a", json!({}))).await.unwrap();
}
