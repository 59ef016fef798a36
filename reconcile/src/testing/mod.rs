//! What tests of controllers need: an API server in memory, and a check that a controller converges and then stays still.

mod converge;
mod discovery;
mod fake;

pub use converge::converges;
pub use fake::FakeApi;
