//! Tables of expressions: what they give, why they are refused, what they cost.

use super::*;
use serde_json::{Value, json};

fn object(name: &str, fields: Vec<(&str, Decl)>) -> Decl {
    let fields = fields.into_iter().map(|(property, decl)| {
        let name = escape(property).unwrap();
        (name.into(), Field { property: property.into(), decl: decl.into() })
    });
    let object = Object { name: name.to_owned(), fields: fields.collect() };
    Decl { max: 0, ..Decl::of(Type::Object(object.into())) }
}

fn bounded(ty: Type, max: u64) -> Decl {
    Decl { max, ..Decl::of(ty) }
}

fn env() -> Env {
    let set = Decl { list: Listing::Set, ..Decl::of(Type::list(Type::Text)) };
    let by_key = |fields| Decl {
        list: Listing::Map(vec!["k".into()]),
        ..Decl::of(Type::List(object("item", fields).into()))
    };
    let own = object(
        "self",
        vec![
            ("n", bounded(Type::Int, 0)),
            ("name", bounded(Type::Text, 40)),
            ("foo-bar", Decl::of(Type::Text)),
            ("in", Decl::of(Type::Int)),
            ("ratio", Decl::of(Type::Double)),
            ("at", Decl::of(Type::Timestamp)),
            ("span", Decl::of(Type::Duration)),
            ("set", set),
            ("items", by_key(vec![("k", Decl::of(Type::Text)), ("v", Decl::of(Type::Int))])),
            ("labels", bounded(Type::map(Type::Text, Type::Text), 10)),
            ("port", Decl::of(Type::Dyn)),
        ],
    );
    Env::new().with("self", own).with("any", Decl::of(Type::Dyn)).with_messages()
}

fn data() -> (Value, Value) {
    let own = json!({"n": 3, "name": "kube", "foo-bar": "dash", "in": 7, "ratio": 1, "at": "2024-05-06T07:08:09Z", "span": "1h30m",
        "set": ["a", "b"], "items": [{"k": "x", "v": 1}, {"k": "y", "v": 2}], "labels": {"app": "web", "tier": "front"}, "port": "http"});
    (own, json!({"list": [1, 2.5, "three"], "deep": {"a": {"b": [10]}}, "nothing": null}))
}

/// What an expression gives, as JSON, or the text of its error.
fn run(text: &str) -> Result<Value, String> {
    let env = env();
    let program = env.compile(text).map_err(|e| e.to_string())?;
    let (own, any) = data();
    let mut run = Evaluation::new(PER_CALL_LIMIT);
    run.set(0, Val::from_json(&own, &env.variables[0].1));
    run.set(1, Val::dynamic(&any));
    let value = run.run(&program).map_err(|e| e.to_string())?;
    Ok(match value {
        Val::Type(name) => name.as_str().into(),
        Val::Optional(None) => "none".into(),
        Val::Optional(Some(inner)) => json!({ "some": inner.to_json() }),
        other => other.to_json().ok_or("a value without JSON")?,
    })
}

fn gives(text: &str, wanted: impl Into<Value>) {
    assert_eq!(run(text), Ok(wanted.into()), "{text}");
}

fn fails(text: &str, wanted: &str) {
    match run(text) {
        Err(found) => assert!(found.contains(wanted), "{text}: {found}"),
        Ok(found) => panic!("{text} gives {found}"),
    }
}

#[test]
fn the_language_is_spoken() {
    gives("1 + 2 * 3 - 4 / 2 % 3", 5);
    gives("-(1) - -2", 1);
    gives("--1", 1);
    gives("-9223372036854775808", i64::MIN);
    gives("0x1F + 1", 32);
    gives("7u / 2u", 3);
    gives("1.5e2 + .5", 150.5);
    gives("true ? 'a' : 'b'", "a");
    gives("1 < 2 && 2u >= 2 && 1.5 < 2", true);
    gives("!true || !!true", true);
    gives("'a' + \"b\" + r'\\n' + '''c'''", "ab\\nc");
    gives(r"'\x41\u00e9\101\n'", "AéA\n");
    gives(r"b'\xff\101'", "/0E=");
    gives("size('héllo') + 'abc'.size()", 8);
    gives("[1, 2, 3][1]", 2);
    gives("{'a': 1, 'b': 2}['b']", 2);
    gives("{'a': 1}.a", 1);
    gives("2 in [1, 2] && 'x' in {'x': 1} && !(3 in [1])", true);
    gives("[1, 2] + [3]", json!([1, 2, 3]));
    gives("1 // a comment\n + 1", 2);
    gives("type(1) == int && type('') == string && type([]) == list && type(type(1)) == type", true);
    gives("type(timestamp('2024-01-01T00:00:00Z')) == google.protobuf.Timestamp", true);
    gives("dyn(1) == dyn(1.0) && dyn(1u) == 1 && dyn('a') != dyn(1)", true);
    gives("[1, 2] == [1, 2] && {'a': [1]} == {'a': [1]} && [1] != [2]", true);
    gives("cel.bind(x, 2, x * x)", 4);
    gives("cel.bind(x, 1 / 0, true)", true);
    gives("'a' < 'b' && b'a' < b'b' && false < true", true);
}

#[test]
fn errors_are_absorbed_only_where_a_side_decides() {
    gives("true || 1 / 0 == 1", true);
    gives("1 / 0 == 1 || true", true);
    gives("1 / 0 == 1 && false", false);
    fails("1 / 0 == 1 && true", "division by zero");
    gives("[1, 0].exists(x, 1 / x == 1)", true);
    fails("[2, 0].exists(x, 1 / x == 1)", "division by zero");
    gives("[0, 2].all(x, 2 / x == 3)", false);
    fails("9223372036854775807 + 1", "integer overflow");
    fails("0u - 1u", "unsigned integer overflow");
    fails("-9223372036854775807 - 2", "integer overflow");
    fails("5 % 0", "modulus by zero");
    fails("[1][1]", "index out of bounds: 1");
    fails("{'a': 1}['b']", "no such key: b");
    fails("any.list.map(x, x + 1)", "no such overload");
}

#[test]
fn comprehensions_run() {
    gives("[1, 2, 3].all(x, x > 0)", true);
    gives("[1, 2, 3].exists(x, x == 2)", true);
    gives("[1, 2, 2].exists_one(x, x == 1) && ![2, 2].existsOne(x, x == 2)", true);
    gives("[1, 2, 3].map(x, x * 2)", json!([2, 4, 6]));
    gives("[1, 2, 3].map(x, x > 1, x * 2)", json!([4, 6]));
    gives("[1, 2, 3].filter(x, x != 2)", json!([1, 3]));
    gives("{'a': 1, 'b': 2}.all(k, k != '')", true);
    gives("self.labels.map(k, k + '=' + self.labels[k])", json!(["app=web", "tier=front"]));
    gives("[[1, 2], [3]].all(l, l.all(x, x > 0))", true);
    gives("[1, 2].all(i, v, i < v)", true);
    gives("{'a': 1}.exists(k, v, k == 'a' && v == 1)", true);
    gives("[5, 6].transformList(i, v, i + v)", json!([5, 7]));
    gives("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10)", json!({"b": 20}));
    gives("['x', 'y'].transformMapEntry(i, v, {v: i})", json!({"x": 0, "y": 1}));
    fails("['x', 'x'].transformMapEntry(i, v, {v: i})", "key x already exists");
    gives("[1, 2].map(x, [3, 4].map(y, x * y))", json!([[3, 4], [6, 8]]));
}

#[test]
fn values_come_from_json_as_declared() {
    gives("self.n + 1", 4);
    gives("self.ratio / 2.0", 0.5);
    gives("self.foo__dash__bar", "dash");
    gives("self.__in__", 7);
    gives("self.at.getFullYear() == 2024 && self.at.getMonth() == 4 && self.at.getDate() == 6", true);
    gives("self.at.getHours('+02:00') == 9 && self.at.getDayOfWeek() == 1", true);
    gives("self.span > duration('1h') && self.span.getMinutes() == 90", true);
    gives("self.at + self.span > self.at && self.at - self.at == duration('0s')", true);
    gives("string(self.span)", "5400s");
    gives("self.set == ['b', 'a']", true);
    gives("self.set + ['b', 'c']", json!(["a", "b", "c"]));
    gives("self.items == self.items && self.items[0].v == 1", true);
    gives("self.items.filter(i, i.v > 1).size()", 1);
    gives("has(self.name) && !has(self.labels.nope) && has(self.labels.app)", true);
    gives("self.port == 'http' && type(self.port) == string", true);
    gives("any.deep.a.b[0] + 1", 11);
    gives("any.nothing == null && has(any.deep.a) && !has(any.deep.x)", true);
    gives("any.list[1]", 2.5);
    fails("any.deep.x", "no such key: x");
    fails("any.list.a", "no such overload");
}

#[test]
fn optionals_hold_or_do_not() {
    gives("self.?name", json!({"some": "kube"}));
    gives("self.labels[?'nope']", "none");
    gives("self.labels[?'nope'].orValue('x')", "x");
    gives("any.?deep.a.b.hasValue() && !any.?deep.x.y.hasValue()", true);
    gives("any.?deep.?a.b[0].value()", 10);
    gives("optional.of(2).optMap(x, x + 1)", json!({"some": 3}));
    gives("optional.none().optMap(x, x + 1)", "none");
    gives("optional.of(2).optFlatMap(x, optional.none())", "none");
    gives("optional.none().or(optional.of(1)).value()", 1);
    gives("[?optional.of(1), ?optional.none(), 2]", json!([1, 2]));
    gives("{?'a': optional.none(), 'b': 1}", json!({"b": 1}));
    gives("optional.ofNonZeroValue('')", "none");
    gives("optional.unwrap([optional.of(1), optional.none()])", json!([1]));
    fails("optional.none().value()", "optional.none() dereference");
}

#[test]
fn strings_are_worked_on() {
    gives("'hello'.startsWith('he') && 'hello'.endsWith('lo') && 'hello'.contains('ell')", true);
    gives("'hello'.matches('^h.*o$') && !matches('x', 'y')", true);
    gives("'tacocat'.charAt(3) + 'x'.charAt(1)", "o");
    gives("'hello mellow'.indexOf('ello', 2) == 7 && 'hello mellow'.lastIndexOf('ello') == 7", true);
    gives("'hello mellow'.indexOf('jello') == -1 && 'abc'.indexOf('') == 0", true);
    gives("'hello mellow'.lastIndexOf('ello', 6)", 1);
    gives("'TacoCat'.lowerAscii() + 'tac'.upperAscii()", "tacocatTAC");
    gives("'hello hello'.replace('he', 'we') + 'aa'.replace('a', 'b', 1)", "wello welloba");
    gives("'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']", true);
    gives("'ab'.split('') == ['a', 'b'] && 'a'.split(',', 0) == []", true);
    gives("'tacocat'.substring(4) + 'tacocat'.substring(0, 4)", "cattaco");
    gives("'  trim\\n '.trim()", "trim");
    gives("['a', 'b'].join('-') + ['x'].join()", "a-bx");
    gives("strings.quote('a\"b\\n')", "\"a\\\"b\\n\"");
    gives("'%s is %d, %.2f %x %b %%'.format(['x', 5, 1.5, 255, 5])", "x is 5, 1.50 ff 101 %");
    gives("'%s %s'.format([[dyn(1), dyn('a')], {'k': true}])", "[1, a] {k: true}");
    gives("'%e'.format([1500.0])", "1.500000e+03");
    gives("'abc 123 45'.find('[0-9]+') + 'x'.find('y')", "123");
    gives("'1 22 333'.findAll('[0-9]+', 2)", json!(["1", "22"]));
    fails("'abc'.charAt(9)", "index out of range: 9");
    fails("'abc'.substring(2, 1)", "invalid substring range. start: 2, end: 1");
    fails("'%d'.format(['x'])", "no formatting function");
}

#[test]
fn conversions_follow_the_language() {
    gives("int('42') + int(3.9) + int(2u) + int(timestamp('1970-01-01T00:00:05Z'))", 52);
    gives("uint(3) + uint('4')", 7);
    gives("double('1.5') + double(1)", 2.5);
    gives("string(1) + string(true) + string(b'x') + string(1u)", "1truex1");
    gives("bool('true') && !bool('F')", true);
    gives("bytes('é').size()", 2);
    gives("string(timestamp('2024-01-01T00:00:00.500Z'))", "2024-01-01T00:00:00.5Z");
    gives("duration('1.5s').getMilliseconds() == 500 && duration('-1m') < duration('0s')", true);
    fails("int('x')", "type conversion error");
    fails("int(1e30)", "integer overflow");
    fails("uint(-1)", "unsigned integer overflow");
    fails("timestamp('yesterday')", "invalid timestamp argument");
    fails("duration('1 hour')", "invalid duration argument");
    fails("'x'.matches('(')", "invalid matches argument");
}

#[test]
fn the_libraries_of_kubernetes_are_there() {
    gives("[1, 2, 2].isSorted() && ![2, 1].isSorted() && ['a', 'b'].isSorted()", true);
    gives("[1, 2, 3].sum() + [3, 1].min() + [3, 1].max()", 10);
    gives("[duration('1m'), duration('1s')].sum() == duration('61s')", true);
    gives("['a', 'b', 'a'].indexOf('a') == 0 && ['a', 'b', 'a'].lastIndexOf('a') == 2", true);
    fails("[].min()", "min called on empty list");
    gives(
        "sets.contains([1, 2, 3], [3, 1]) && sets.equivalent([1, 1, 2], [2, 1]) && !sets.intersects([1], [2])",
        true,
    );
    gives("quantity('1.5Gi').isGreaterThan(quantity('1G')) && quantity('50k').asInteger() == 50000", true);
    gives(
        "quantity('50k').add(quantity('20')) == quantity('50020') && quantity('1').sub(2).sign() == -1",
        true,
    );
    gives("isQuantity('1.3Gi') && !isQuantity('1,3') && !quantity('100m').isInteger()", true);
    gives("quantity('200M').compareTo(quantity('0.2G'))", 0);
    gives("url('https://a.io:8080/p%20q?k=v&k=w').getPort() + url('/x').getScheme()", "8080");
    gives("url('https://[::1]:80/x?k=v&k=w').getHostname() + url('https://a/p').getEscapedPath()", "::1/p");
    fails("url('http://a/b c').getHost()", "URL parse error");
    gives("url('https://a/b?k=v&k=w').getQuery()", json!({"k": ["v", "w"]}));
    gives("isURL('https://a') && !isURL('../x') && !isURL('a b')", true);
    gives("ip('fd00::1').family() == 6 && ip('127.0.0.1').isLoopback() && !isIP('1.2.3')", true);
    gives("ip.isCanonical('::1') && !ip.isCanonical('0:0:0:0:0:0:0:1') && !isIP('::ffff:1.2.3.4')", true);
    gives(
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))",
        true,
    );
    gives(
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !cidr('10.1.0.0/16').containsCIDR(cidr('10.0.0.0/8'))",
        true,
    );
    gives("string(cidr('10.1.2.3/8').masked()) + string(cidr('::/0').prefixLength())", "10.0.0.0/80");
    gives("semver('1.2.3').isLessThan(semver('1.2.10')) && semver('v1.0', true).major() == 1", true);
    gives(
        "semver('1.0.0-alpha.1').compareTo(semver('1.0.0')) == -1 && !isSemver('1.0') && isSemver('01.2', true)",
        true,
    );
    gives(
        "!format.dns1123Label().validate('ok').hasValue() && format.dns1123Label().validate('No').hasValue()",
        true,
    );
    gives("format.named('uuid').value().validate('x').value()", json!(["invalid uuid"]));
    gives("jsonpatch.escapeKey('a/b~c')", "a~1b~0c");
    gives("JSONPatch{op: 'add', path: '/a', value: 1}", json!({"op": "add", "path": "/a", "value": 1}));
    gives("Object{spec: Object.spec{replicas: 2}}", json!({"spec": {"replicas": 2}}));
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    fails("self.nope", "ERROR: <input>:1:5: undefined field 'nope'\n | self.nope\n | ....^");
    fails("nope", "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')");
    fails("1 + 'a'", "found no matching overload for '_+_' applied to '(int, string)'");
    fails("'a'.startsWith(1)", "found no matching overload for 'startsWith' applied to 'string.(int)'");
    fails("nope(1)", "undeclared reference to 'nope' (in container '')");
    fails("1 == 1.0", "found no matching overload for '_==_' applied to '(int, double)'");
    fails("[1, 'a']", "expected type 'int' but found 'string'");
    fails("self.n.all(x, true)", "expression of type 'int' cannot be range of a comprehension");
    fails("self.n.x", "type 'int' does not support field selection");
    fails("has(self)", "invalid argument to has() macro");
    fails("[1].all(x, x)", "found no matching overload for '_&&_'");
    fails("[1].all(1, true)", "argument must be a simple name");
    fails("true ? 1 : 'a'", "found no matching overload for '_?_:_'");
    fails("self.items.sum()", "found no matching overload for 'sum'");
    fails("1 +", "Syntax error");
    fails("a b", "Syntax error: extraneous input 'b'");
    fails("(1", "Syntax error");
    fails("'abc", "Syntax error: token recognition error");
    fails("if", "reserved identifier: if");
    fails("1 = 2", "Syntax error");
    fails("9223372036854775808", "invalid int literal");
    fails("", "Syntax error");
    fails("self.n ==\n  self.name", "ERROR: <input>:1:8:");
}

#[test]
fn nothing_runs_long_or_deep() {
    let budget = "operation cancelled: actual cost limit exceeded";
    let numbers = format!("[{}]", vec!["1"; 200].join(","));
    fails(&format!("{numbers}.all(a, {numbers}.all(b, {numbers}.all(c, a + b + c > 0)))"), budget);
    let mut doubled = "[1, 2, 3, 4]".to_owned();
    for i in 0..40 {
        doubled = format!("cel.bind(v{i}, {doubled}, v{i} + v{i})");
    }
    fails(&doubled, budget);
    let mut text = "'aaaaaaaaaaaaaaaa'".to_owned();
    for i in 0..40 {
        text = format!("cel.bind(v{i}, {text}, v{i} + v{i})");
    }
    fails(&text, budget);
    let mut nested = "[1]".to_owned();
    for i in 0..30 {
        nested = format!("cel.bind(v{i}, {nested}, [dyn(v{i}), dyn(v{i})])");
    }
    fails(&format!("cel.bind(a, {nested}, a == a)"), budget);
    fails(&"(".repeat(5_000), "recursion limit");
    fails(&format!("{}1{}", "[".repeat(3_000), "]".repeat(3_000)), "recursion limit");
    fails(&format!("{}true", "!(".repeat(3_000)), "recursion limit");
    fails(&format!("1{}", " + 1".repeat(3_000)), "recursion limit");
    fails(&format!("self{}", ".a".repeat(3_000)), "recursion limit");
    fails(&"x ".repeat(60_000), "expression code point size exceeds limit");
    fails("'a'.matches('((a{1000}){1000}){1000}')", "invalid matches argument");
    gives(&vec!["true"; 5_000].join(" && "), true);
    assert!(run(&format!("{}true{}", "(".repeat(40), ")".repeat(40))).is_ok());
}

#[test]
fn costs_are_upstreams() {
    let check = |text: &str, wanted: u64, estimated: Option<u64>| {
        let env = env();
        let program = env.compile(text).unwrap();
        let (own, any) = data();
        let mut run = Evaluation::new(PER_CALL_LIMIT);
        run.set(0, Val::from_json(&own, &env.variables[0].1));
        run.set(1, Val::dynamic(&any));
        run.run(&program).unwrap();
        assert_eq!(run.cost(), wanted, "{text}");
        if let Some(estimated) = estimated {
            assert_eq!(program.cost().max, estimated, "{text}");
        }
    };
    check("true", 0, Some(0));
    check("self.n", 2, Some(2));
    check("self.n > 1", 3, Some(3));
    check("self.name == 'kube'", 3, Some(3));
    check("self.name.startsWith('k')", 3, Some(3));
    check("self.name.contains('ub')", 3, Some(6));
    check("has(self.name)", 1, Some(1));
    check("self.n > 1 && self.n < 5", 6, Some(6));
    check("self.n > 9 ? 'a' : self.name", 5, Some(5));
    check("[self.n]", 12, Some(12));
    check("self.labels.all(k, k != '')", 11, None);
    check("self.labels.size() < 3", 4, Some(4));
}

#[test]
fn checks_are_asked_of_the_authorizer() {
    struct Known(Option<Answer>);
    impl Authorizer for Known {
        fn answer(&self, check: &Check) -> Option<Answer> {
            assert_eq!(
                (check.group.as_str(), check.resource.as_str(), check.verb.as_str()),
                ("apps", "deployments", "create")
            );
            self.0.clone()
        }
    }
    let env = Env::new()
        .with("authorizer", Decl::of(Type::Opaque("kubernetes.authorization.Authorizer")))
        .with("authorizer.requestResource", Decl::of(Type::Opaque("kubernetes.authorization.ResourceCheck")));
    let check = |text: &str, known: Option<Answer>| {
        let program = env.compile(text).unwrap();
        let known = Known(known);
        let mut run = Evaluation::new(PER_CALL_LIMIT);
        run.set(0, Val::opaque(Opaque::Check(Box::default())));
        run.set(
            1,
            Val::opaque(Opaque::Check(Box::new(Check::of_resource("apps", "deployments", "", "ns", "web")))),
        );
        run.ask(&known);
        run.test(&program)
    };
    let yes = Answer { allowed: true, ..Answer::default() };
    let text = "authorizer.group('apps').resource('deployments').namespace('ns').check('create').allowed()";
    assert!(check(text, Some(yes.clone())).unwrap());
    assert!(!check("authorizer.requestResource.check('create').allowed()", Some(Answer::default())).unwrap());
    match check(text, None).unwrap_err().kind() {
        FaultKind::Pending(check) => assert_eq!(check.namespace, "ns"),
        other => panic!("{other:?}"),
    }
    let thrice = [text; 3].join(" && ");
    assert_eq!(check(&thrice, Some(yes)).unwrap_err().kind(), &FaultKind::Budget);
}

#[test]
fn properties_have_names_in_expressions() {
    let check =
        |property: &str, wanted: Option<&str>| assert_eq!(escape(property).as_deref(), wanted, "{property}");
    check("plain", Some("plain"));
    check("foo-bar.baz/x", Some("foo__dash__bar__dot__baz__slash__x"));
    check("a__b", Some("a__underscores__b"));
    check("namespace", Some("__namespace__"));
    check("1st", None);
    check("a b", None);
}

#[test]
fn what_is_as_deep_as_it_may_be_still_runs() {
    let nested = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    for (open, inner, close) in [
        ("(", "true", ")"),
        ("[", "1", "]"),
        ("!(", "true", ")"),
        ("{'a': ", "1", "}"),
        ("true ? (", "1", ") : 0"),
        ("[1].all(x, ", "true", ")"),
        ("[1].map(x, ", "x", ")"),
        ("cel.bind(x, 1, ", "x", ")"),
        ("optional.of(1).optMap(x, ", "x", ")"),
        ("dyn(", "1", ")"),
    ] {
        let most = (1..200).rev().find(|n| env().compile(&nested(open, inner, close, *n)).is_ok());
        let most = most.unwrap_or(0);
        assert!(most >= 20, "{open} only {most}");
        run(&nested(open, inner, close, most)).unwrap_or_else(|e| panic!("{open} {most}: {e}"));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_panics(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..24)) {
        // An error is as good as a value.
        let _told = run(&words.join(" "));
        let _told = run(&words.concat());
    }
}

const WORDS: &[&str] = &[
    "self",
    "any",
    ".n",
    ".name",
    ".items",
    ".list",
    ".labels",
    "x",
    "1",
    "-9223372036854775808",
    "0u",
    "2.5",
    "'a'",
    "b'\\xff'",
    "\"é\"",
    "null",
    "true",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "<",
    "&&",
    "||",
    "!",
    "?",
    ":",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "in",
    ".all(x, ",
    ".map(x, ",
    ".filter(x, ",
    ".exists_one(x, ",
    ".size()",
    ".matches('a+')",
    ".split('')",
    ".substring(1)",
    ".indexOf('', 1)",
    ".replace('', 'b')",
    ".charAt(1)",
    ".format([1])",
    "has(",
    "dyn(",
    "int(",
    "string(",
    "duration('1h')",
    "timestamp(0)",
    ".getHours('99:99')",
    "quantity('1k')",
    ".add(1)",
    "ip('::1')",
    "cidr('::/0')",
    ".masked()",
    "semver('1.0.0')",
    "url('/x')",
    "optional.none()",
    ".orValue(",
    ".?name",
    "[?0]",
    "cel.bind(x, ",
    "type(",
    "`",
    "'",
    "\\",
    "//",
    "\n",
];
