//! The built-in controllers.
//!
//! Each is one constructor function that gives a [`kubewright_reconcile::Controller`]; they know the API only, through a client.

mod scheduling;

pub use scheduling::scheduling;
