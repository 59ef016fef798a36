//! Value validation as data: what a custom kind's schema asks of values beyond their type.

use super::expressions::RuleSet;
use regex::Regex;
use serde_json::{Number, Value};
use std::sync::OnceLock;

/// The rules of one node.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) enum_values: Option<Vec<Value>>,
    pub(crate) pattern: Option<(Box<str>, Regex)>,
    pub(crate) format: Option<Box<str>>,
    pub(crate) minimum: Option<Number>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) maximum: Option<Number>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<Number>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) all_of: Vec<Branch>,
    pub(crate) any_of: Vec<Branch>,
    pub(crate) one_of: Vec<Branch>,
    pub(crate) not: Option<Box<Branch>>,
    /// `x-kubernetes-validations` as it stands there.
    pub(crate) expressions: Vec<Value>,
    /// The same, compiled when it is first needed; nothing where the node's values cannot be looked into.
    pub(crate) compiled: OnceLock<Option<Box<RuleSet>>>,
}

/// One alternative of a junctor: rules for the value and for what is below it, without types of its own.
#[derive(Debug, Default)]
pub(crate) struct Branch {
    /// Only the int-or-string pattern states types in branches.
    pub(crate) json_type: Option<Box<str>>,
    pub(crate) rules: Rules,
    pub(crate) required: Vec<Box<str>>,
    pub(crate) fields: Vec<(Box<str>, Branch)>,
    pub(crate) items: Option<Box<Branch>>,
    pub(crate) additional: Option<Box<Branch>>,
}
