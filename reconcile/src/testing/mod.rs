//! What tests of controllers need: an API server in memory, and a check that a controller converges and then stays still.

mod discovery;
mod fake;

pub use fake::FakeApi;
