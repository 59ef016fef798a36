//! A versioned key-value store port, its backends and wrappers.
