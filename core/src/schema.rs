//! Structural schemas: what a kind's fields are, compiled once.

/// A compiled schema.
#[derive(Debug, Default)]
pub struct Schema {}
