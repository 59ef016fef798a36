//! Label selectors: requirements on labels, all of which must hold.

use super::{SelectorError, parse};
use crate::field::{ErrorList, FieldError, FieldPath};
use crate::meta::{validate_label_value, validate_qualified_name};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde_json::{Map, Value};
use smol_str::SmolStr;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Something that has labels.
pub trait Labels {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<S: std::hash::BuildHasher> Labels for HashMap<String, String, S> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl<L: Labels> Labels for Option<L> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref().and_then(|l| l.label(key))
    }
}

impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `key in (a,b)`.
    In,
    /// `key notin (a,b)`; also true without the label.
    NotIn,
    /// `key=a`.
    Equals,
    /// `key==a`.
    DoubleEquals,
    /// `key!=a`; also true without the label.
    NotEquals,
    /// `key`.
    Exists,
    /// `!key`.
    DoesNotExist,
    /// `key>1`.
    GreaterThan,
    /// `key<1`.
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub(crate) key: SmolStr,
    pub(crate) operator: Operator,
    /// Sorted, without repeats.
    pub(crate) values: Vec<SmolStr>,
}

impl Requirement {
    /// A checked requirement.
    ///
    /// # Errors
    /// Where key or values break upstream's rules, all reasons in one text.
    pub fn new(key: &str, operator: Operator, values: &[&str]) -> Result<Self, SelectorError> {
        let mut errors = ErrorList::new();
        if let Some(why) = validate_qualified_name(key).into_iter().reduce(|a, b| format!("{a}; {b}")) {
            errors.push(FieldError::invalid(&FieldPath::new("key"), key, &why));
        }
        let at = FieldPath::new("values");
        let wrong = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(why) = wrong {
            errors.push(FieldError::invalid(&at, values.to_vec(), why));
        }
        for (i, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err()
            {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(&at.index(i), *value, why));
            }
            if let Some(why) = validate_label_value(value).into_iter().reduce(|a, b| format!("{a}; {b}")) {
                errors.push(FieldError::invalid(&at.index(i).key(key), *value, &why));
            }
        }
        match errors.as_slice() {
            [] => Ok(Self::unchecked(key, operator, values.iter().map(|v| SmolStr::from(*v)).collect())),
            [one] => Err(SelectorError(one.to_string())),
            many => {
                let texts: Vec<String> = many.iter().map(ToString::to_string).collect();
                Err(SelectorError(format!("[{}]", texts.join(", "))))
            }
        }
    }

    fn unchecked(key: &str, operator: Operator, mut values: Vec<SmolStr>) -> Self {
        values.sort();
        values.dedup();
        Requirement { key: key.into(), operator, values }
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it compares.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// What it compares with, sorted.
    pub fn values(&self) -> &[SmolStr] {
        &self.values
    }

    /// Whether labels fulfil it.
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        let value = labels.label(&self.key);
        let among = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(among),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(among),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let number = |text: Option<&str>| text.and_then(|t| t.parse::<i64>().ok());
                match (number(value), number(self.values.first().map(SmolStr::as_str))) {
                    (Some(a), Some(b)) if self.operator == Operator::GreaterThan => a > b,
                    (Some(a), Some(b)) => a < b,
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.operator {
            Operator::Exists => return f.write_str(&self.key),
            Operator::DoesNotExist => return write!(f, "!{}", self.key),
            Operator::In | Operator::NotIn => {
                let word = if self.operator == Operator::In { "in" } else { "notin" };
                return write!(f, "{} {word} ({})", self.key, self.values.join(","));
            }
            Operator::Equals => "=",
            Operator::DoubleEquals => "==",
            Operator::NotEquals => "!=",
            Operator::GreaterThan => ">",
            Operator::LessThan => "<",
        };
        write!(f, "{}{sign}{}", self.key, self.values.first().map_or("", SmolStr::as_str))
    }
}

/// A label selector: everything, nothing, or what fulfils all requirements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    pub(crate) requirements: Vec<Requirement>,
    pub(crate) nothing: bool,
}

impl Selector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects nothing.
    pub fn nothing() -> Self {
        Selector { requirements: Vec::new(), nothing: true }
    }

    /// Parses `a=b,c!=d,e in (x,y),f notin (z),!g,h,x>1`. The empty text selects everything.
    ///
    /// # Errors
    /// In upstream's words.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::parse(text)
    }

    /// From requirements.
    pub fn from_requirements(requirements: Vec<Requirement>) -> Self {
        let mut requirements = requirements;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Selector { requirements, nothing: false }
    }

    /// Selects what has all of these labels, unchecked (a Service's or a ReplicationController's selector).
    pub fn from_set<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirement = |(k, v)| Requirement::unchecked(k, Operator::Equals, vec![SmolStr::from(v)]);
        Self::from_requirements(labels.into_iter().map(requirement).collect())
    }

    /// From a `LabelSelector`: none selects nothing, an empty one everything.
    ///
    /// # Errors
    /// In upstream's words.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::In, &[value])?);
            if let Some(last) = requirements.last_mut() {
                last.operator = Operator::Equals;
            }
        }
        for expression in selector.match_expressions.iter().flatten() {
            requirements.push(from_expression(expression)?);
        }
        Ok(Self::from_requirements(requirements))
    }

    /// From a `LabelSelector` in JSON; absent and `null` select nothing.
    ///
    /// # Errors
    /// In upstream's words.
    pub fn from_value(selector: Option<&Value>) -> Result<Self, SelectorError> {
        match selector.filter(|v| !v.is_null()) {
            None => Ok(Self::nothing()),
            Some(value) => {
                let selector: LabelSelector = serde::Deserialize::deserialize(value)
                    .map_err(|e| SelectorError(format!("the label selector is not readable: {e}")))?;
                Self::from_label_selector(Some(&selector))
            }
        }
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether it selects nothing whatever the labels.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// The requirements, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether labels fulfil it.
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// The one value that a label must have, where there is just one.
    pub fn requires(&self, key: &str) -> Option<&str> {
        let found = self.requirements.iter().find(|r| r.key == key)?;
        match (found.operator, found.values.as_slice()) {
            (Operator::Equals | Operator::DoubleEquals | Operator::In, [one]) => Some(one),
            _ => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nothing {
            // As upstream's nothing selector, which has no text.
            return f.write_str("");
        }
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

fn from_expression(e: &LabelSelectorRequirement) -> Result<Requirement, SelectorError> {
    let operator = match e.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
    };
    let values: Vec<&str> = e.values.iter().flatten().map(String::as_str).collect();
    Requirement::new(&e.key, operator, &values)
}

/// Everything that a `LabelSelector` in JSON breaks, in upstream's words.
pub fn validate_label_selector(selector: &Value, at: &FieldPath) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
        errors.extend(crate::meta::validate_labels(labels, &at.child("matchLabels")));
    }
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    for (i, expression) in expressions.into_iter().flatten().enumerate() {
        validate_expression(expression, &at.child("matchExpressions").index(i), &mut errors);
    }
    errors
}

fn validate_expression(expression: &Value, at: &FieldPath, errors: &mut ErrorList) {
    let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or("");
    let values = expression.get("values").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let path = at.child("values");
    match text("operator") {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(&path, why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&path, why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            errors.push(FieldError::invalid(&at.child("operator"), other, "not a valid selector operator"));
        }
    }
    let key = text("key");
    for why in validate_qualified_name(key) {
        errors.push(FieldError::invalid(&at.child("key"), key, &why));
    }
    for (i, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or("");
        for why in validate_label_value(value) {
            errors.push(FieldError::invalid(&path.index(i), value, &why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn selectors_match_as_upstream() {
        let labels: BTreeMap<String, String> =
            [("a", "b"), ("n", "5"), ("e", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let check = |text: &str, want: bool| {
            assert_eq!(Selector::parse(text).unwrap().matches(&labels), want, "{text}");
        };
        for (text, want) in [
            ("", true),
            ("a=b", true),
            ("a==b", true),
            ("a!=b", false),
            ("x!=b", true),
            ("a in (b,c)", true),
            ("a notin (c)", true),
            ("x notin (c)", true),
            ("x in (c)", false),
            ("a", true),
            ("!a", false),
            ("!x", true),
            ("n>4", true),
            ("n<4", false),
            ("a>4", false),
            ("e=", true),
            ("a=b,x", false),
            ("e in ()", true),
        ] {
            check(text, want);
        }
        assert!(!Selector::nothing().matches(&labels));
    }

    #[test]
    fn objects_become_selectors() {
        let check = |value: Value, want: &str| {
            assert_eq!(Selector::from_value(Some(&value)).unwrap().to_string(), want);
        };
        check(json!({}), "");
        check(
            json!({"matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]}),
            "a in (x,y),b=1,!c",
        );
        assert!(Selector::from_value(None).unwrap().is_nothing());
        let bad = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
        assert_eq!(
            Selector::from_value(Some(&bad)).unwrap_err().to_string(),
            "\"Near\" is not a valid label selector operator"
        );
        let found = validate_label_selector(&bad, &FieldPath::new("spec.selector"));
        assert_eq!(
            found[0].to_string(),
            "spec.selector.matchExpressions[0].operator: Invalid value: \"Near\": not a valid selector operator"
        );
    }

    fn requirement() -> impl Strategy<Value = String> {
        let key = "[a-z]([a-z0-9]{0,5}[a-z0-9])?";
        let value = "[a-z0-9]{0,5}";
        prop_oneof![
            (key, value).prop_map(|(k, v)| format!("{k}={v}")),
            (key, value).prop_map(|(k, v)| format!("{k}!={v}")),
            (key, prop::collection::vec(value, 1..4)).prop_map(|(k, v)| format!("{k} in ({})", v.join(","))),
            (key, prop::collection::vec(value, 1..4))
                .prop_map(|(k, v)| format!("{k} notin ({})", v.join(","))),
            key.prop_map(|k| k),
            key.prop_map(|k| format!("!{k}")),
            (key, any::<u16>()).prop_map(|(k, v)| format!("{k}>{v}")),
        ]
    }

    proptest! {
        #[test]
        fn written_selectors_parse_to_themselves(parts in prop::collection::vec(requirement(), 0..5)) {
            // `in` and `notin` as keys are operators to the grammar.
            prop_assume!(parts.iter().all(|p| !p.starts_with("in") && !p.starts_with("notin")));
            let selector = Selector::parse(&parts.join(",")).unwrap();
            prop_assert_eq!(&Selector::parse(&selector.to_string()).unwrap(), &selector);
        }

        #[test]
        fn no_text_panics(text in "[a-c=!<>(), \\n]{0,20}") {
            if let Ok(selector) = Selector::parse(&text) {
                let _ = selector.matches(&BTreeMap::<String, String>::new());
            }
        }
    }
}
