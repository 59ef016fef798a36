//! What may be asked for on the command line.

use std::path::PathBuf;

/// Load on an API server.
#[derive(clap::Parser, Debug)]
pub(crate) struct Options {
    /// The kubeconfig of the server; without one a plane is started and measured.
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// A process whose CPU and memory count as the server's, with `--kubeconfig`; may be given several times.
    #[arg(long = "server")]
    pub(crate) servers: Vec<u32>,
    /// The store of the plane: `memory`, `redb`, `sled`, or the URL of an etcd.
    #[arg(long, default_value = "redb")]
    pub(crate) store: String,
    /// Connections that ask at the same time.
    #[arg(long, default_value_t = 32)]
    pub(crate) connections: usize,
    /// Runs of each work; medians are told.
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: usize,
    /// Only these works (their names stand in the table); all by default.
    #[arg(long)]
    pub(crate) only: Vec<String>,
    /// Divides all counts, for a quick look.
    #[arg(long, default_value_t = 1)]
    pub(crate) divide: usize,
    /// Writes the figures as JSON, for `--against`.
    #[arg(long)]
    pub(crate) save: Option<PathBuf>,
    /// The figures of an earlier run to compare with; upstream's by default.
    #[arg(long)]
    pub(crate) against: Option<PathBuf>,
    /// Serves a plane with its files in this folder until the standard input ends: how this program starts its own.
    #[arg(long, hide = true)]
    pub(crate) serve: Option<PathBuf>,
}

impl Options {
    pub(crate) fn wants(&self, work: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == work)
    }

    pub(crate) fn count(&self, count: usize) -> usize {
        (count / self.divide.max(1)).max(1)
    }
}
