//! Black-box tests of what the server asks others over the network: real TLS servers on loopback addresses, written here.

mod access;
mod admission;
mod aggregation;
mod bad_servers;
mod conformance;
mod conversion;
mod front;
mod harness;
mod proxy;
