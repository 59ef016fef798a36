//! Label selectors and field selectors, parsed and matched as upstream does (`k8s.io/apimachinery/pkg/labels` and `fields`).

mod fields;
mod labels;
mod parse;

pub use fields::{FieldOperator, FieldRequirement, FieldSelector};
pub use labels::{Labels, Operator, Requirement, Selector, validate_label_selector};

use crate::ApiError;
use std::fmt;

/// Why a selector is none, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError(pub(crate) String);

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SelectorError {}

impl From<SelectorError> for ApiError {
    /// 400, as upstream answers to an unreadable selector.
    fn from(e: SelectorError) -> Self {
        ApiError::bad_request(e.0)
    }
}
