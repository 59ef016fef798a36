//! The Container Storage Interface: the port, its client over unix sockets, a server for drivers in Rust, and a driver of plain directories.

mod client;
mod convert;
mod directory;
mod mounter;
pub mod port;
mod server;
#[rustfmt::skip]
#[path = "gen/csi.v1.rs"]
#[allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/csi.proto, which says what the fields are"
)]
mod wire;

pub use client::CsiClient;
pub use directory::DirectoryDriver;
pub use mounter::CsiNodeMounter;
pub use server::{CsiServer, serve};

#[cfg(test)]
mod tests;
