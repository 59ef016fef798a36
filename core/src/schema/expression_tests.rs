//! Rules that are expressions: on objects, and in definitions.

use super::*;
use serde_json::json;

fn schema(properties: Value) -> Schema {
    let document =
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}});
    Schema::from_openapi(&document).unwrap()
}

fn texts(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn ruled(rule: &str) -> Value {
    json!([{ "rule": rule }])
}

#[test]
fn rules_run_on_objects() {
    let schema = schema(json!({
        "n": {"type": "integer", "x-kubernetes-validations": [
            {"rule": "self >= 0", "message": "must not be negative"},
            {"rule": "self == oldSelf", "messageExpression": "'was ' + string(oldSelf) + ', is ' + string(self)"}]},
        "list": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
                "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "reason": "FieldValueForbidden", "fieldPath": ".v"}]}},
        "map": {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "string",
            "x-kubernetes-validations": ruled("self.startsWith('a')")}},
        "maybe": {"type": "string", "x-kubernetes-validations": [
            {"rule": "!oldSelf.hasValue() || oldSelf.value() == self", "optionalOldSelf": true, "message": "is immutable"}]},
        "port": {"x-kubernetes-int-or-string": true, "x-kubernetes-validations": ruled("type(self) == int ? self < 9 : self == '9'")},
        "bad": {"type": "object", "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": ruled("self.a / 0 == 1")},
        "dyn": {"x-kubernetes-int-or-string": true, "x-kubernetes-validations": ruled("self + 1 > 0")}}));
    assert_eq!(texts(&schema.check_definition()), [""; 0]);
    let check = |spec: Value, old: Option<Value>, wanted: &[&str]| {
        let (object, old) = (json!({ "spec": spec }), old.map(|old| json!({ "spec": old })));
        let found = schema.validate_change(&object, old.as_ref());
        assert_eq!(texts(&found.errors), wanted, "{object}");
    };
    check(json!({"n": 1, "map": {"x": "ab"}, "port": 8, "dyn": 1}), None, &[]);
    check(json!({"n": -1}), None, &["spec.n: Invalid value: \"integer\": must not be negative"]);
    check(json!({"n": 2}), Some(json!({"n": 1})), &["spec.n: Invalid value: \"integer\": was 1, is 2"]);
    check(
        json!({"map": {"x": "b"}}),
        None,
        &["spec.map[x]: Invalid value: \"string\": failed rule: self.startsWith('a')"],
    );
    let items = |a: i64, b: i64| json!({"list": [{"k": "b", "v": b}, {"k": "a", "v": a}]});
    let before = json!({"list": [{"k": "a", "v": 5}]});
    check(items(5, 1), Some(before.clone()), &[]);
    check(items(4, 1), Some(before), &["spec.list[1].v: Forbidden: failed rule: self.v >= oldSelf.v"]);
    check(json!({"maybe": "a"}), Some(json!({})), &[]);
    check(
        json!({"maybe": "a"}),
        Some(json!({"maybe": "b"})),
        &["spec.maybe: Invalid value: \"string\": is immutable"],
    );
    check(
        json!({"port": "8"}),
        None,
        &["spec.port: Invalid value: \"\": failed rule: type(self) == int ? self < 9 : self == '9'"],
    );
    check(
        json!({"bad": {"a": 1}}),
        None,
        &["spec.bad: Invalid value: \"object\": division by zero evaluating rule: self.a / 0 == 1"],
    );
    check(
        json!({"dyn": "x"}),
        None,
        &[
            "spec.dyn: Invalid value: \"\": 'no such overload': call arguments did not match a supported operator, function or macro signature for rule: self + 1 > 0",
        ],
    );
    check(
        json!({"n": "x", "map": {"x": "b"}}),
        None,
        &[
            "spec.n: Invalid value: \"string\": spec.n in body must be of type integer: \"string\"",
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ],
    );
}

#[test]
fn what_did_not_change_is_tolerated() {
    let schema = schema(json!({
        "size": {"type": "string", "enum": ["small"]},
        "n": {"type": "integer", "minimum": 5, "x-kubernetes-validations": ruled("self > 6")},
        "other": {"type": "integer"},
        "list": {"type": "array", "items": {"type": "string", "maxLength": 2}}}));
    let object = |n: i64, other: i64, list: &[&str]| json!({"spec": {"size": "huge", "n": n, "other": other, "list": list}});
    let check = |new: Value, wanted: &[&str], warned: usize| {
        let found = schema.validate_change(&new, Some(&object(6, 1, &["long", "ok"])));
        assert_eq!(texts(&found.errors), wanted);
        assert_eq!(found.warnings.len(), warned);
    };
    check(object(6, 2, &["long", "ok"]), &[], 1);
    check(
        object(4, 2, &["long", "ok"]),
        &[
            "spec.n: Invalid value: 4: spec.n in body should be greater than or equal to 5",
            "spec.n: Invalid value: \"integer\": failed rule: self > 6",
        ],
        0,
    );
    // Items of a plain list are not told apart, so a changed list is judged as a whole.
    check(
        object(6, 1, &["long", "new"]),
        &[
            "spec.list[0]: Too long: may not be more than 2 bytes",
            "spec.list[1]: Too long: may not be more than 2 bytes",
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ],
        0,
    );
}

#[test]
fn definitions_are_refused_for_their_rules() {
    let check = |properties: Value, wanted: &[&str]| {
        let found = texts(&schema(properties).check_definition());
        assert_eq!(found.len(), wanted.len(), "{found:#?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.contains(wanted), "{found}");
        }
    };
    let string =
        |rules: Value| json!({"a": {"type": "string", "maxLength": 10, "x-kubernetes-validations": rules}});
    let path = "properties[spec].properties[a].x-kubernetes-validations[0]";
    check(string(ruled("self.nope()")), &["undeclared reference to 'nope'"]);
    check(string(ruled("self.size()")), &["cel expression must evaluate to a bool"]);
    check(string(json!([{"rule": " "}])), &[&format!("{path}.rule: Required value: rule is not specified")]);
    check(
        string(json!([{"rule": "true", "message": "a\nb"}])),
        &[&format!("{path}.message: Invalid value: \"a\\nb\": message must not contain line breaks")],
    );
    check(
        string(json!([{"rule": "true", "reason": "Odd"}])),
        &[&format!("{path}.reason: Unsupported value: \"Odd\": supported values: \"FieldValueDuplicate\"")],
    );
    check(
        string(json!([{"rule": "true", "messageExpression": "1"}])),
        &["messageExpression must evaluate to a string"],
    );
    check(
        string(json!([{"rule": "true", "optionalOldSelf": true}])),
        &["optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"],
    );
    check(
        json!({"a": {"type": "object", "properties": {"b": {"type": "object", "additionalProperties": {"type": "string"}}},
            "x-kubernetes-validations": [{"rule": "true", "fieldPath": ".b['x']"}, {"rule": "true", "fieldPath": ".c"}, {"rule": "true", "fieldPath": "b"}]}}),
        &[
            "[1].fieldPath: Invalid value: \".c\": fieldPath must be a valid path: does not refer",
            "[2].fieldPath: Invalid value: \"b\": fieldPath must be a valid path: expected [ or . but got: b",
        ],
    );
    check(
        json!({"a": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 3, "x-kubernetes-validations": ruled("self == oldSelf")}}}),
        &[
            "oldSelf cannot be used on the uncorrelatable portion of the schema within properties[spec].properties[a]",
        ],
    );
    check(
        json!({"a": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": ruled("self.contains('gpu')")}}}),
        &[
            "estimated rule cost exceeds budget by factor of more than 100x",
            "contributed to estimated rule",
            "cost total for entire OpenAPIv3 schema exceeds budget",
        ],
    );
    check(
        json!({"a": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 100, "x-kubernetes-validations": ruled("self.contains('gpu')")}}}),
        &[],
    );
}

#[test]
fn definitions_are_refused_for_their_defaults() {
    let check = |property: Value, wanted: &[&str]| {
        let found = texts(&schema(json!({ "a": property })).check_definition());
        assert_eq!(found, wanted);
    };
    let at = "properties[spec].properties[a].default";
    let object = |default: Value| json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 1}}, "default": default});
    check(object(json!({"n": 1})), &[]);
    check(
        object(json!({"n": 1, "x": 2})),
        &[&format!("{at}: Invalid value: {{\"n\":1,\"x\":2}}: must not have unknown fields")],
    );
    check(
        object(json!({"n": 0})),
        &[&format!("{at}.n: Invalid value: 0: n in body should be greater than or equal to 1")],
    );
    check(object(json!({})), &[&format!("{at}.n: Required value")]);
    check(
        json!({"type": "string", "default": "b", "x-kubernetes-validations": ruled("self == 'a'")}),
        &[&format!("{at}: Invalid value: \"string\": failed rule: self == 'a'")],
    );
}

#[test]
fn an_object_pays_for_all_its_rules() {
    let rule = "self.all(x, self.all(y, self.all(z, x + y + z >= 0)))";
    let numbers = |n: usize| json!({"spec": {"a": vec![1; n], "b": vec![1; 20]}});
    let list = |max: u64| json!({"type": "array", "maxItems": max, "items": {"type": "integer"}});
    let with = |mut list: Value, times: usize| {
        list["x-kubernetes-validations"] = vec![json!({ "rule": rule }); times].into();
        list
    };
    let one = schema(json!({"a": with(list(60), 1), "b": list(20)}));
    assert_eq!(texts(&one.validate_change(&numbers(20), None).errors), [""; 0]);
    let over = "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule";
    let found = texts(&one.validate_change(&numbers(60), None).errors);
    assert!(matches!(found.as_slice(), [e] if e.contains(over)), "{found:?}");
    let many = schema(json!({"a": with(list(20), 200)}));
    let found = texts(&many.validate_change(&numbers(20), None).errors);
    assert!(
        matches!(found.as_slice(), [e] if e.contains("validation failed due to running out of cost budget")),
        "{found:?}"
    );
}

/// The largest estimate of a rule at a node, which is all that decides whether a definition is taken.
fn estimate(mut node: Value, rule: &str) -> u64 {
    node["x-kubernetes-validations"] = ruled(rule);
    let document = json!({"type": "object", "properties": {"spec": node}});
    let schema = Schema::from_openapi(&document).unwrap();
    let set = schema.root().at("spec").unwrap().rule_set(false).unwrap();
    assert_eq!(set.rules[0].problem, None);
    set.rules[0].program.as_ref().unwrap().cost().max
}

fn price(node: Value, rule: &str, wanted: u64) {
    assert_eq!(estimate(node.clone(), rule), wanted, "{rule} on {node}");
}

fn of(ty: &str) -> Value {
    match ty {
        "duration" | "date" | "date-time" => json!({"type": "string", "format": ty}),
        "int-or-string" => json!({"x-kubernetes-int-or-string": true}),
        ty => json!({ "type": ty }),
    }
}

fn bounded(mut node: Value, field: &str, max: Option<u64>) -> Value {
    if let Some(max) = max {
        node[field] = max.into();
    }
    node
}

fn list(item: Value, max: Option<u64>) -> Value {
    bounded(json!({"type": "array", "items": item}), "maxItems", max)
}

fn map(value: Value, max: Option<u64>) -> Value {
    bounded(json!({"type": "object", "additionalProperties": value}), "maxProperties", max)
}

fn text(max: Option<u64>) -> Value {
    bounded(of("string"), "maxLength", max)
}

#[test]
fn loops_are_priced_as_upstream() {
    let item = json!({"type": "object", "required": ["required"],
        "properties": {"required": {"type": "string"}, "optional": {"type": "string"}}});
    let all = "self.all(x, true)";
    for (ty, in_list, in_map) in [
        ("number", 4_718_591, 1_348_169),
        ("string", 3_145_727, 1_179_647),
        ("boolean", 1_887_437, 943_718),
        ("int-or-string", 4_718_591, 1_348_169),
        ("duration", 2_359_295, 1_048_577),
        ("date", 725_936, 524_288),
        ("date-time", 428_963, 349_526),
    ] {
        price(list(of(ty), None), all, in_list);
        price(list(of(ty), Some(10)), all, 32);
        price(map(of(ty), None), all, in_map);
    }
    price(list(item.clone(), None), all, 555_128);
    price(map(item.clone(), None), all, 428_963);
    price(list(of("number"), Some(10)), "self.all(x, self.all(y, self.all(z, true)))", 3_552);
    price(list(of("number"), Some(6_291_456)), "self.all(x, x == 0.0)", 25_165_826);
    price(list(of("number"), None), "self[1] == 0.0", 2);
    price(list(of("string"), None), "self[1] == self[1]", 314_577);
    price(list(item.clone(), None), "self[0] == null", 2);
    price(list(of("int-or-string"), None), "self[0] == 5", 3);
    price(list(map(item, None), None), "self.all(x, x[\"y\"].required == \"z\")", 7_340_027);
    price(list(map(of("number"), None), Some(12)), "self.all(x, x.y == 25.2)", 74);
    price(list(of("duration"), None), "self[0].getHours() == 2", 4);
    price(map(of("string"), None), "self.all(x, x.contains(self[x]))", 2_752_507);
    price(map(of("date-time"), None), "self[\"a\"] == self[\"b\"]", 8);
    price(map(of("integer"), None), "oldSelf.size() == self.size()", 5);
}

#[test]
fn text_is_priced_as_upstream() {
    price(text(None), "self.contains('test')", 314_574);
    price(text(Some(10)), "self.contains('test')", 5);
    price(text(Some(15)), "self.startsWith('test')", 2);
    price(text(None), "size(self + \"hello\") > size(\"hello\")", 314_578);
    price(text(None), "self.matches(\"x\")", 314_574);
    price(text(Some(50)), "self.matches(\"x\")", 22);
    price(text(None), "\"\".matches(\"(((((((((())))))))))[0-9]\")", 7);
    price(text(None), "self.matches(\"\")", 1);
    price(text(Some(0)), "self == \"x\"", 1);
    price(text(None), "self.find('[0-9]+') == ''", 629_147);
    price(text(None), "self.lowerAscii() == 'lower!'", 314_575);
    price(list(text(Some(10)), Some(10)), "self.join(' ') == 'aa bb'", 43);
    price(list(text(None), None), "self.join(' ') == 'aa bb'", 329_853_068_905);
    price(list(text(Some(10)), Some(10)), "self.isSorted() == true", 52);
    price(list(text(None), None), "self.isSorted() == true", 329_854_432_052);
    let parts = |max: Option<u64>| json!({"type": "object", "properties": {"s": text(max), "by": text(max), "before": text(Some(2)), "after": text(Some(4))}});
    let replace = "self.s.replace(self.before, self.after) == 'does not matter'";
    price(parts(None), replace, 629_154);
    price(parts(Some(4)), replace, 12);
    price(parts(None), "self.s.split(self.by) == []", 629_160);
    price(parts(Some(10)), "self.s.split(self.by) == []", 22);
    let choice = json!({"type": "string", "enum": ["A", "B", "LongValue"]});
    price(choice.clone(), "self.contains('A')", 2);
    price(bounded(choice, "maxLength", Some(1_000)), "self.contains('A')", 401);
}
