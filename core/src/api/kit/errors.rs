//! Adding errors at a [`Path`] to an [`ErrorList`].

use super::path::Path;
use crate::{ErrorList, FieldError};
use serde_json::Value;

/// Short ways to record a broken rule.
pub(crate) trait ErrorSink {
    fn add(&mut self, error: FieldError);

    fn required(&mut self, at: &Path<'_>, detail: &str) {
        self.add(FieldError::required(&at.field(), detail));
    }

    fn invalid(&mut self, at: &Path<'_>, value: impl Into<Value>, detail: &str) {
        self.add(FieldError::invalid(&at.field(), value, detail));
    }

    fn not_supported(&mut self, at: &Path<'_>, value: impl Into<Value>, supported: &[&str]) {
        self.add(FieldError::not_supported(&at.field(), value, supported));
    }

    fn duplicate(&mut self, at: &Path<'_>, value: impl Into<Value>) {
        self.add(FieldError::duplicate(&at.field(), value));
    }

    fn forbidden(&mut self, at: &Path<'_>, detail: &str) {
        self.add(FieldError::forbidden(&at.field(), detail));
    }

    fn too_long(&mut self, at: &Path<'_>, max: usize) {
        self.add(FieldError::too_long(&at.field(), max));
    }

    fn too_many(&mut self, at: &Path<'_>, actual: usize, max: usize) {
        self.add(FieldError::too_many(&at.field(), actual, max));
    }

    fn not_found(&mut self, at: &Path<'_>, value: impl Into<Value>) {
        self.add(FieldError::not_found(&at.field(), value));
    }
}

impl ErrorSink for ErrorList {
    fn add(&mut self, error: FieldError) {
        self.push(error);
    }
}
