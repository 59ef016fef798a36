//! The JSON paths of printer columns, selectable fields and scale subresources: a useful part of `k8s.io/client-go/util/jsonpath`.
//!
//! Understood: `.a.b`, `.a["x.y"]`, `['x']`, `[0]`, `[-1]`, `[*]`, `.*`, `[?(@.type=="Ready")]` with `==`, `!=`, `<`, `<=`, `>`, `>=` or a bare path, an optional `$` and optional braces.

use serde_json::Value;
use std::fmt;

/// How deep a path may be.
const STEPS_MAX: usize = 64;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    text: Box<str>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(Box<str>),
    Index(i64),
    All,
    Filter { path: Vec<Step>, test: Option<(Test, Value)> },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Test {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Parses a path.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(inner).trim();
        let inner = inner.strip_prefix('$').unwrap_or(inner);
        let steps = parse_steps(inner).map_err(|why| format!("JSON path {text:?}: {why}"))?;
        Ok(JsonPath { text: text.into(), steps })
    }

    /// The path as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first value that the path finds.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        first(&self.steps, value)
    }

    /// Everything that the path finds, in document order.
    pub fn all<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = Vec::new();
        collect(&self.steps, value, &mut found);
        found
    }

    /// The names of the path, when it consists of fields only (`.spec.replicas`).
    pub fn field_names(&self) -> Option<Vec<&str>> {
        self.steps.iter().map(|s| if let Step::Field(name) = s { Some(&**name) } else { None }).collect()
    }

    /// Puts a value where the path leads, making objects on the way.
    ///
    /// # Errors
    /// When the path is more than a chain of fields, or something that is no object stands in the way.
    pub fn set(&self, target: &mut Value, value: Value) -> Result<(), String> {
        let names =
            self.field_names().ok_or_else(|| format!("JSON path {:?} is no chain of fields", self.text))?;
        let mut at = target;
        for name in names {
            if at.is_null() {
                *at = Value::Object(serde_json::Map::new());
            }
            let map =
                at.as_object_mut().ok_or_else(|| format!("JSON path {:?} crosses a value", self.text))?;
            at = map.entry(name).or_insert(Value::Null);
        }
        *at = value;
        Ok(())
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn first<'a>(steps: &[Step], value: &'a Value) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match step {
        Step::Field(name) => first(rest, value.get(&**name)?),
        Step::Index(i) => first(rest, at_index(value, *i)?),
        Step::All => children(value).find_map(|v| first(rest, v)),
        Step::Filter { path, test } => {
            children(value).filter(|v| passes(path, test.as_ref(), v)).find_map(|v| first(rest, v))
        }
    }
}

fn collect<'a>(steps: &[Step], value: &'a Value, found: &mut Vec<&'a Value>) {
    let Some((step, rest)) = steps.split_first() else {
        found.push(value);
        return;
    };
    match step {
        Step::Field(name) => value.get(&**name).into_iter().for_each(|v| collect(rest, v, found)),
        Step::Index(i) => at_index(value, *i).into_iter().for_each(|v| collect(rest, v, found)),
        Step::All => children(value).for_each(|v| collect(rest, v, found)),
        Step::Filter { path, test } => {
            children(value).filter(|v| passes(path, test.as_ref(), v)).for_each(|v| collect(rest, v, found))
        }
    }
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(list) => Box::new(list.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn at_index(value: &Value, index: i64) -> Option<&Value> {
    let list = value.as_array()?;
    let index = if index < 0 { index + i64::try_from(list.len()).ok()? } else { index };
    list.get(usize::try_from(index).ok()?)
}

fn passes(path: &[Step], test: Option<&(Test, Value)>, value: &Value) -> bool {
    let Some(found) = first(path, value) else { return false };
    let Some((test, wanted)) = test else { return true };
    let order = match (found, wanted) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    };
    match test {
        Test::Equal => order.map_or(found == wanted, |o| o.is_eq()),
        Test::NotEqual => order.map_or(found != wanted, |o| o.is_ne()),
        Test::Less => order.is_some_and(|o| o.is_lt()),
        Test::LessOrEqual => order.is_some_and(|o| o.is_le()),
        Test::Greater => order.is_some_and(|o| o.is_gt()),
        Test::GreaterOrEqual => order.is_some_and(|o| o.is_ge()),
    }
}

fn parse_steps(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if steps.len() >= STEPS_MAX {
            return Err(format!("more than {STEPS_MAX} steps"));
        }
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after).ok_or("unterminated array")?;
            steps.push(parse_bracket(after[..end].trim())?);
            rest = &after[end + 1..];
        } else if let Some(after) = rest.strip_prefix('.') {
            if after.starts_with('.') {
                return Err("recursive descent is not supported".to_owned());
            }
            let (name, after) = field_name(after);
            match name.as_str() {
                "" if after.starts_with('[') => {}
                "" if after.is_empty() && steps.is_empty() => {}
                "" => return Err("a name is missing after '.'".to_owned()),
                "*" => steps.push(Step::All),
                _ => steps.push(Step::Field(name.into())),
            }
            rest = after;
        } else if steps.is_empty() {
            let (name, after) = field_name(rest);
            steps.push(Step::Field(name.into()));
            rest = after;
        } else {
            return Err(format!("unexpected {rest:?}"));
        }
    }
    Ok(steps)
}

/// A name up to the next `.` or `[`; a backslash takes the next character as it is.
fn field_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &text[i..]),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            _ => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket that is open closes; quotes and inner brackets are skipped.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth, mut escaped) = (None, 0_usize, false);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(_), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(q), c) if c == q && !escaped => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(i),
            (None, ']') => depth -= 1,
            _ => {}
        }
        escaped = false;
    }
    None
}

fn parse_bracket(text: &str) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::All);
    }
    if let Some(name) = quoted(text) {
        return Ok(Step::Field(name.into()));
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return parse_filter(filter.trim());
    }
    text.parse().map(Step::Index).map_err(|_| format!("invalid array index {text:?}"))
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(out)
}

fn parse_filter(text: &str) -> Result<Step, String> {
    const TESTS: &[(&str, Test)] = &[
        ("==", Test::Equal),
        ("!=", Test::NotEqual),
        ("<=", Test::LessOrEqual),
        (">=", Test::GreaterOrEqual),
        ("<", Test::Less),
        (">", Test::Greater),
    ];
    let path = |text: &str| {
        let text = text.trim().strip_prefix('@').ok_or("a filter must start with '@'")?;
        parse_steps(text)
    };
    // The earliest operator splits, and of those at one place the longest.
    let found = TESTS
        .iter()
        .filter_map(|(sign, test)| outside_quotes(text, sign).map(|at| (at, *sign, *test)))
        .min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())));
    let Some((at, sign, test)) = found else { return Ok(Step::Filter { path: path(text)?, test: None }) };
    let right = text[at + sign.len()..].trim();
    let value = match quoted(right) {
        Some(text) => Value::String(text),
        None => serde_json::from_str(right).map_err(|_| format!("invalid value {right:?} in a filter"))?,
    };
    Ok(Step::Filter { path: path(&text[..at])?, test: Some((test, value)) })
}

fn outside_quotes(text: &str, sign: &str) -> Option<usize> {
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, _) if text[i..].starts_with(sign) => return Some(i),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_values() {
        let object = json!({
            "spec": {"replicas": 3, "list": [{"n": 1}, {"n": 2}]},
            "metadata": {"labels": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "A>B", "status": "False"}]},
        });
        let check = |path: &str, want: Value| {
            let found = JsonPath::parse(path).unwrap().all(&object).into_iter().cloned().collect();
            assert_eq!(Value::Array(found), want, "{path}");
        };
        check(".spec.replicas", json!([3]));
        check("{.spec.replicas}", json!([3]));
        check("{$.spec['replicas']}", json!([3]));
        check("spec.replicas", json!([3]));
        check(".metadata.labels[\"a.b/c\"]", json!(["x"]));
        check(r".metadata.labels.a\.b/c", json!(["x"]));
        check(".spec.list[*].n", json!([1, 2]));
        check(".spec.list[-1].n", json!([2]));
        check(".spec.list[7].n", json!([]));
        check(".spec.list[?(@.n>1)].n", json!([2]));
        check(".status.conditions[?(@.type==\"Ready\")].status", json!(["True"]));
        check(".status.conditions[?(@.type=='A>B')].status", json!(["False"]));
        check(".status.conditions[?(@.nothing)].status", json!([]));
        check(".spec.missing.deep", json!([]));
    }

    #[test]
    fn bad_paths_are_refused() {
        for path in [".a[", ".a[x]", ".a..b", ".a.", ".a[?(b==1)]", ".a[?(@.b==)]", ".a[0]b"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn values_are_set_through_chains_of_fields() {
        let mut object = json!({"spec": {}});
        JsonPath::parse(".spec.a.b").unwrap().set(&mut object, json!(2)).unwrap();
        assert_eq!(object, json!({"spec": {"a": {"b": 2}}}));
        assert!(JsonPath::parse(".spec.a.b.c").unwrap().set(&mut object, json!(2)).is_err());
        assert!(JsonPath::parse(".spec.l[0]").unwrap().set(&mut object, json!(2)).is_err());
    }
}
