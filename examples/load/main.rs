//! Puts load on an API server over TLS and tells rates, delays, CPU and memory beside those of another run.
//!
//! ```text
//! cargo run --release --example load                                  # a plane of this program's own, on redb with fsync
//! cargo run --release --example load -- --store memory --only get-pod
//! cargo run --release --example load -- --kubeconfig F --server PID --server PID --save run.json
//! ```
//! The plane is a process of its own, so that the CPU told is the server's alone; `--server` names the processes of a foreign one (API server
//! and store). `upstream.json` is such a run against Kubernetes 1.36 with etcd 3.6.8 on two cores and a disk of 1.7 ms per
//! `fdatasync`; `--against` takes another.

mod measure;
mod options;
mod plane;
mod requests;
mod target;
mod watches;
mod works;

use clap::Parser;
use options::Options;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let options = Options::parse();
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = threads.map_err(Failed::from).and_then(|runtime| match &options.serve {
        Some(folder) => runtime.block_on(plane::serve(&options.store, folder)),
        None => runtime.block_on(works::run(&options)),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("load: {e}");
            ExitCode::FAILURE
        }
    }
}
