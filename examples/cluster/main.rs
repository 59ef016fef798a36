//! A complete small cluster in one process: API server, controllers, scheduler, nodes that run real processes, and a Service proxy.
//!
//! `cargo run --release --example cluster` needs nothing but Linux and a Rust toolchain, and no root. `--help` tells the rest.

mod addresses;
#[cfg(feature = "cri")]
mod cri;
mod demo;
mod manifests;
mod options;
mod page;
mod ready;
mod report;
mod setup;

use clap::Parser;
use options::Options;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The embedded runtime runs this program again as the supervisor of its containers; in a normal start this returns at once.
    kubewright::runtime::embedded::init();
    // The demo's workload is this program too, in its second role.
    if std::env::args().nth(1).as_deref() == Some(page::ROLE) {
        return page::serve();
    }
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&format!("no threads could be started: {e}")),
    };
    let outcome = runtime.block_on(run(options));
    runtime.shutdown_timeout(Duration::from_secs(5));
    match outcome {
        Ok(code) => code,
        Err(e) => fail(&e),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("cluster: {why}");
    ExitCode::FAILURE
}

async fn run(options: Options) -> Result<ExitCode, String> {
    let manifests = manifests::read(&options.manifest)?;
    let steps = report::Steps::new();
    let cluster = tokio::select! {
        cluster = setup::start(&options, &steps) => cluster?,
        // What had started is dropped, and with it ended.
        () = interrupted() => return Ok(ExitCode::SUCCESS),
    };
    let outcome = tokio::select! {
        outcome = show(&options, &steps, &cluster, manifests) => outcome,
        () = interrupted() => Ok(true),
    };
    steps.say("stopping");
    let stopped = cluster.stop().await;
    steps.finish("stopped");
    let ready = outcome?;
    stopped?;
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Brings the manifests or the demo up, shows what runs where, and stays until interrupted unless `--once` is given.
async fn show(
    options: &Options,
    steps: &report::Steps,
    cluster: &setup::Cluster,
    manifests: Vec<serde_json::Value>,
) -> Result<bool, String> {
    let client = cluster.plane.client();
    let is_demo = manifests.is_empty();
    let objects = if is_demo { demo::objects() } else { manifests };
    steps.say("applying manifests");
    let target = manifests::Target::new(client);
    target.check(&objects).await?;
    for object in &objects {
        target.apply(object).await?;
    }
    steps.say("waiting until all is ready");
    let waiting = ready::until_ready(client, &objects, Duration::from_secs(options.timeout)).await;
    steps.finish("the cluster is up");
    if let Err(why) = waiting {
        eprintln!("not ready after {} s:\n{why}", options.timeout);
        if options.once {
            return Ok(false);
        }
    }
    report::pods(client).await?;
    if is_demo && options.runtime.runs_programs() {
        demo::call(client).await?;
    }
    if options.once {
        return Ok(true);
    }
    report::usage(&cluster.kubeconfig);
    std::future::pending::<()>().await;
    Ok(true)
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
