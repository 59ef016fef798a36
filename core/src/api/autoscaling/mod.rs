//! The group `autoscaling`: only what the scale subresource needs.

pub mod scale;
