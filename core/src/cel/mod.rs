//! The Common Expression Language as Kubernetes speaks it: rules of custom kinds, admission policies, match conditions and device selectors.
//!
//! An expression is parsed, checked against the types of its variables and compiled once; it then runs on JSON values that it borrows.
//! Every step is bounded: the length and depth of the text, an estimate of the cost before anything runs, and the cost while it runs, both by
//! upstream's measures. Nothing here reads a clock, and what an authorizer says comes in through [`Authorizer`].
//!
//! ```
//! use kubewright_core::cel::{Decl, Env, Evaluation, Type, Val, PER_CALL_LIMIT};
//! # use serde_json::json;
//! let env = Env::new().with("self", Decl::of(Type::list(Type::Int)));
//! let program = env.compile("self.all(x, x > 0)").unwrap();
//! let (value, decl) = (json!([1, 2, 3]), Decl::of(Type::list(Type::Int)));
//! let mut run = Evaluation::new(PER_CALL_LIMIT);
//! run.set(0, Val::from_json(&value, &decl));
//! assert!(run.test(&program).unwrap());
//! ```

pub mod admission;
mod ast;
mod authz;
mod check;
mod check_call;
mod check_fold;
mod cost;
mod device;
mod env;
mod fault;
mod lexer;
mod lib;
mod macros;
mod opaque;
mod ops;
mod parse;
mod program;
mod run;
mod run_fold;
mod signature;
mod types;
mod value;

pub use authz::{Answer, Authorizer, Check};
pub use cost::Range;
pub use device::{DEVICE_COST_MAX, DeviceFacts, DeviceSelector};
pub use env::Env;
pub use fault::{CompileError, Fault, FaultKind};
pub use opaque::Opaque;
pub use program::Program;
pub use run::Evaluation;
pub use types::{Decl, Field, Listing, Object, REQUEST_BYTES_MAX, Type, escape};
pub use value::{Entries, List, Map, Text, Val};

pub(crate) use fault::Issue;

/// What one evaluation may cost.
pub const PER_CALL_LIMIT: u64 = 1_000_000;

#[cfg(test)]
mod tests;
