//! What schemas prune, default, check and publish.

use super::*;
use serde_json::json;

fn texts(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn pod() -> Arc<Schema> {
    Schema::of::<k8s_openapi::api::core::v1::Pod>()
}

#[test]
fn every_definition_compiles_and_every_reference_leads_somewhere() {
    let mut kinds = 0;
    for name in Schema::definition_names() {
        let schema = Schema::definition(&name).unwrap();
        assert_eq!(schema.root().json_type(), "object", "{name}");
        kinds += usize::from(schema.published().schema.get("x-kubernetes-group-version-kind").is_some());
    }
    assert!(kinds > 150, "{kinds}");
    // A reference that led nowhere would have become a type that keeps everything.
    for line in include_str!("../../data/kubernetes-1.36.facts").lines().filter(|l| l.contains('@')) {
        let name = line.split(['@', ']', '}', ' ']).nth(2).unwrap_or("");
        let name = if name.is_empty() { line.rsplit('@').next().unwrap_or("") } else { name };
        let name = name.split([']', '}', ' ']).next().unwrap_or("");
        assert!(line.starts_with('#') || facts::by_name(name).is_some(), "{line}");
    }
}

#[test]
fn facts_about_lists_are_there() {
    let schema = pod();
    let containers = schema.root().at("spec.containers").unwrap();
    assert_eq!((containers.patch_merge_key(), containers.patch_merges()), (Some("name"), true));
    assert_eq!(containers.list_type(), ListType::Map);
    let ports = schema.root().at("spec.containers.[].ports").unwrap();
    assert_eq!(ports.map_keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
    assert_eq!(schema.root().at("metadata.finalizers").unwrap().list_type(), ListType::Set);
    assert!(schema.root().at("spec.nodeSelector").unwrap().is_atomic_map());
    assert!(schema.root().at("spec.volumes").unwrap().retains_keys());
    assert!(schema.root().at("spec.containers.[].resources.limits.cpu").unwrap().is_quantity());
    assert!(schema.root().at("spec.nothing").is_none());
}

#[test]
fn definitions_are_shared_between_kinds() {
    let deployment = Schema::builtin("apps", "v1", "Deployment").unwrap();
    let (a, b) = (pod(), deployment);
    let (a, b) = (a.root().at("spec").unwrap(), b.root().at("spec.template.spec").unwrap());
    assert!(std::ptr::eq(a.target(), b.target()));
    assert!(Schema::builtin("apps", "v1", "Pod").is_none());
}

#[test]
fn unknown_fields_go_and_are_told() {
    let mut object = json!({"apiVersion": "v1", "kind": "Pod", "foo": 1, "metadata": {"name": "a", "labels": {"x.y": "z"}, "bar": 2},
        "spec": {"containers": [{"name": "c", "image": "i", "imagee": 3, "ports": [{"x": 1}]}], "nodeSelector": {"any": "key"}}});
    let unknown = pod().prune(&mut object);
    assert_eq!(
        unknown,
        ["foo", "metadata.bar", "spec.containers[0].imagee", "spec.containers[0].ports[0].x"]
    );
    assert_eq!(object["spec"]["containers"], json!([{"name": "c", "image": "i", "ports": [{}]}]));
    assert_eq!(pod().prune(&mut object), Vec::<String>::new());
}

#[test]
fn wrong_types_are_told_in_gos_words() {
    let check = |object: Value, want: &str| {
        assert_eq!(pod().check_types(&object).map_err(|e| e.to_string()), Err(want.to_owned()));
    };
    let head = "json: cannot unmarshal";
    check(
        json!({"spec": {"containers": "x"}}),
        &format!("{head} string into Go struct field PodSpec.spec.containers of type []v1.Container"),
    );
    check(
        json!({"spec": {"containers": [{"name": 3}]}}),
        &format!("{head} number into Go struct field Container.spec.containers.name of type string"),
    );
    check(
        json!({"spec": {"priority": 3000000000_u64}}),
        &format!("{head} number 3000000000 into Go struct field PodSpec.spec.priority of type int32"),
    );
    check(
        json!({"spec": {"priority": 1.5}}),
        &format!("{head} number 1.5 into Go struct field PodSpec.spec.priority of type int32"),
    );
    check(
        json!({"metadata": {"labels": {"a": true}}}),
        &format!("{head} bool into Go struct field ObjectMeta.metadata.labels of type string"),
    );
    check(
        json!({"metadata": []}),
        &format!("{head} array into Go struct field Pod.metadata of type v1.ObjectMeta"),
    );
    check(json!("x"), &format!("{head} string into Go value of type v1.Pod"));
    check(
        json!({"metadata": {"creationTimestamp": "now"}}),
        "parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"now\" as \"2006\"",
    );
    check(
        json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}}),
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    check(
        json!({"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": true}}}]}}),
        &format!("{head} bool into Go value of type int32"),
    );
}

#[test]
fn what_upstream_reads_is_read() {
    let object = json!({"metadata": {"creationTimestamp": null}, "spec": {"containers": [{"resources": {"limits": {"cpu": 0.5, "memory": 1024, "x": "1Gi"}},
        "livenessProbe": {"httpGet": {"port": "http"}}, "readinessProbe": {"httpGet": {"port": 80}}}], "nodeSelector": null}});
    assert_eq!(pod().check_types(&object), Ok(()));
    let secret = Schema::of::<k8s_openapi::api::core::v1::Secret>();
    assert_eq!(secret.check_types(&json!({"data": {"a": "aGVsbG8="}})), Ok(()));
    let e = secret.check_types(&json!({"data": {"a": "a$"}})).unwrap_err();
    assert_eq!(e.message(), "illegal base64 data at input byte 1");
}

fn crd(spec: Value) -> Result<Schema, ErrorList> {
    Schema::from_openapi(&json!({"type": "object", "properties": {"spec": spec}}))
}

#[test]
fn defaults_are_filled_in_everywhere() {
    let schema = crd(json!({"type": "object", "default": {}, "properties": {
        "a": {"type": "integer", "default": 3},
        "n": {"type": "string", "nullable": true, "default": "x"},
        "l": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
        "m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"q": {"type": "boolean", "default": true}}}},
        "z": {"type": "string"},
    }}))
    .unwrap();
    let check = |object: Value, want: Value| {
        let mut object = object;
        schema.apply_defaults(&mut object);
        assert_eq!(object, want);
        schema.apply_defaults(&mut object);
        assert_eq!(object, want);
    };
    check(json!({}), json!({"spec": {"a": 3, "n": "x"}}));
    check(json!({"spec": {"a": null, "n": null, "z": null}}), json!({"spec": {"a": 3, "n": null}}));
    check(
        json!({"spec": {"a": 1, "n": "y", "l": [{}, {"p": "UDP"}], "m": {"k": {}}}}),
        json!({"spec": {"a": 1, "n": "y", "l": [{"p": "TCP"}, {"p": "UDP"}], "m": {"k": {"q": true}}}}),
    );
}

#[test]
fn custom_objects_are_validated_in_upstreams_words() {
    let schema = crd(json!({"type": "object", "required": ["x"], "properties": {
        "x": {"type": "integer", "minimum": 1, "maximum": 10, "exclusiveMaximum": true},
        "e": {"type": "string", "enum": ["a", "b"]},
        "p": {"type": "string", "pattern": "^a+$", "minLength": 2, "maxLength": 3},
        "l": {"type": "array", "maxItems": 2, "minItems": 1, "items": {"type": "string"}},
        "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
              "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}},
        "i": {"x-kubernetes-int-or-string": true},
        "o": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
              "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]}},
        "d": {"type": "string", "format": "date-time"},
        "f": {"type": "number", "multipleOf": 0.5},
    }}))
    .unwrap();
    let check = |spec: Value, want: &[&str]| {
        assert_eq!(texts(&schema.validate(&json!({"spec": spec}))), want);
    };
    check(
        json!({"x": 1, "e": "a", "p": "aa", "l": ["q"], "s": ["1", "2"], "m": [{"k": "1"}, {"k": "2"}], "i": "50%", "o": {"a": "1"},
        "d": "2024-01-01T00:00:00Z", "f": 2.5}),
        &[],
    );
    check(json!({}), &["spec.x: Required value"]);
    check(
        json!({"x": "s"}),
        &["spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\""],
    );
    check(
        json!({"x": 0}),
        &["spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1"],
    );
    check(json!({"x": 10}), &["spec.x: Invalid value: 10: spec.x in body should be less than 10"]);
    check(json!({"x": 1, "e": "c"}), &["spec.e: Unsupported value: \"c\": supported values: \"a\", \"b\""]);
    check(json!({"x": 1, "p": "bb"}), &["spec.p: Invalid value: \"bb\": spec.p in body should match '^a+$'"]);
    check(
        json!({"x": 1, "p": "a"}),
        &["spec.p: Invalid value: \"a\": spec.p in body should be at least 2 chars long"],
    );
    check(json!({"x": 1, "p": "aaaa"}), &["spec.p: Too long: may not be more than 3 bytes"]);
    check(json!({"x": 1, "l": ["1", "2", "3"]}), &["spec.l: Too many: 3: must have at most 2 items"]);
    check(
        json!({"x": 1, "l": []}),
        &["spec.l: Invalid value: []: spec.l in body should have at least 1 items"],
    );
    check(json!({"x": 1, "s": ["a", "b", "a"]}), &["spec.s[2]: Duplicate value: \"a\""]);
    check(json!({"x": 1, "m": [{"k": "a"}, {"k": "a"}]}), &["spec.m[1]: Duplicate value: {\"k\":\"a\"}"]);
    check(
        json!({"x": 1, "i": true}),
        &["spec.i: Invalid value: \"boolean\": spec.i in body must be of type integer,string: \"boolean\""],
    );
    check(
        json!({"x": 1, "f": 0.3}),
        &["spec.f: Invalid value: 0.3: spec.f in body should be a multiple of 0.5"],
    );
    check(
        json!({"x": 1, "d": "x"}),
        &["spec.d: Invalid value: \"x\": spec.d in body must be of type date-time: \"x\""],
    );
    check(
        json!({"x": 1, "o": {"a": "1", "b": "2"}}),
        &[
            "spec.o: Invalid value: {\"a\":\"1\",\"b\":\"2\"}: spec.o in body must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ],
    );
}

#[test]
fn schemas_that_are_not_structural_are_refused() {
    let check = |spec: Value, want: &str| {
        let errors = crd(spec).err().map(|e| texts(&e)).unwrap_or_default();
        assert_eq!(errors, [want]);
    };
    check(json!({}), "properties[spec].type: Required value: must not be empty for specified object fields");
    check(
        json!({"type": "text"}),
        "properties[spec].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
    );
    check(json!({"type": "array"}), "properties[spec].items: Required value: must be specified");
    check(
        json!({"type": "string", "pattern": "("}),
        "properties[spec].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error: unclosed group",
    );
    check(
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
        "properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
    );
    check(
        json!({"type": "string", "anyOf": [{"default": "x"}]}),
        "properties[spec].anyOf[0].default: Forbidden: must be undefined to be structural",
    );
    check(
        json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
        "properties[spec].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
    );
    check(
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
        "properties[spec].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
    );
    check(json!(3), "properties[spec]: Invalid value: 3: must be a schema");
    let mut deep = json!({"type": "string"});
    for _ in 0..200 {
        deep = json!({"type": "array", "items": deep});
    }
    assert!(crd(deep).is_err());
    assert!(Schema::from_openapi(&json!({"type": "string"})).is_err());
    assert!(Schema::from_openapi(&json!([])).is_err());
}

#[test]
fn custom_objects_are_pruned_but_keep_their_metadata() {
    let schema = crd(json!({"type": "object", "properties": {
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "object"}}},
        "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
    }}))
    .unwrap();
    let mut object = json!({"apiVersion": "e/v1", "kind": "W", "metadata": {"name": "a", "wrong": 1}, "status": {},
        "spec": {"x": 1, "open": {"any": {"b": 1}, "a": {"gone": 1}}, "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}, "spec": {}, "y": 1}}});
    assert_eq!(
        schema.prune(&mut object),
        ["metadata.wrong", "spec.open.a.gone", "spec.pod.y", "spec.x", "status"]
    );
    assert_eq!(object["spec"]["open"], json!({"any": {"b": 1}, "a": {}}));
    assert!(schema.check_types(&json!({"metadata": {"name": 3}})).is_err());
}

#[test]
fn published_schemas_have_prose_and_facts() {
    let published = pod().published();
    assert_eq!(published.name, "io.k8s.api.core.v1.Pod");
    let containers = &published.definitions["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert!(containers["description"].as_str().is_some_and(|d| d.starts_with("List of containers")));
    assert_eq!(
        published.schema["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    // Every reference is answered.
    let text = serde_json::to_string(&published.definitions).unwrap();
    for name in text.split("#/components/schemas/").skip(1).filter_map(|t| t.split('"').next()) {
        assert!(published.definitions.contains_key(name), "{name}");
    }
    let custom = crd(json!({"type": "object"})).unwrap().published();
    assert!(custom.schema["properties"]["metadata"]["allOf"][0]["$ref"].is_string());
    assert!(custom.definitions.contains_key("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));
}
