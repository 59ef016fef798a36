//! A scheduler with upstream's plugin framework, as pure functions.
