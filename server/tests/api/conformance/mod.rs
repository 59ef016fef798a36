//! What upstream's conformance tests ask of an API server, in words of our own, where nothing has to run in a container. Which of them
//! each test here stands for is told in `docs/conformance.md`.
//!
//! Everything goes through HTTP, as a client sees it: straight into the service, and where it matters over TLS too.

mod definitions;
mod documents;
mod kinds;
mod lifecycle;
mod namespaces;
mod objects;
mod policies;
mod services;
mod site;
mod validation;
mod watches;
