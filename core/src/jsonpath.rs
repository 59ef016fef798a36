//! The simple JSON paths of printer columns, scale paths and selectable fields.

use serde_json::Value;

/// A parsed path, `.spec.containers[0].name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(String);

impl JsonPath {
    /// Parses a path of dotted names.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(JsonPath(text.to_owned()))
    }

    /// The first value that the path finds.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.0.split('.').filter(|s| !s.is_empty()).try_fold(value, |v, name| v.get(name))
    }
}
