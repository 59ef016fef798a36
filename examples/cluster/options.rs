//! The command line.

use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Runs a whole small Kubernetes cluster in this one process.
///
/// Without --manifest it runs a demo: three web servers behind a Service. Pods are real processes, set apart as far as this machine allows
/// to this user; addresses of pods and Services lie in the loopback range, so curl and browsers of this machine reach them.
#[derive(Debug, Parser)]
#[command(
    name = "cluster",
    after_help = "EXAMPLES:
  cluster                                     a demo that stays up; kubectl works on it
  cluster --manifest app.yaml --once          run it until all is ready, show it, end
  cat app.yaml | cluster --manifest -         the same from the standard input, and stay up
  cluster --runtime fake --nodes 100          a hundred simulated nodes
  cluster --store etcd=http://127.0.0.1:2379  objects in a real etcd"
)]
pub(crate) struct Options {
    /// Where everything is kept; started again on the same folder, the cluster is as it was
    #[arg(long, value_name = "DIR", default_value_os_t = default_data())]
    pub(crate) data: PathBuf,
    /// Where objects are kept: redb, sled, memory or etcd=URL[,URL]
    #[arg(long, default_value = "redb", value_parser = StoreChoice::parse)]
    pub(crate) store: StoreChoice,
    /// Where HTTPS listens; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6443")]
    pub(crate) listen: SocketAddr,
    /// How many nodes [default: 3, or 1 with cri=SOCKET]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    nodes: Option<u16>,
    /// What runs containers: embedded (real processes), fake (simulated) or cri=SOCKET
    #[arg(long, default_value = "embedded", value_parser = RuntimeChoice::parse)]
    pub(crate) runtime: RuntimeChoice,
    /// An image for all nodes out of a file or folder (OCI layout, or an archive by docker save), under NAME where it is given
    #[arg(long, value_name = "[NAME=]PATH", value_parser = LocalImage::parse)]
    pub(crate) image: Vec<LocalImage>,
    /// Manifests to apply, in YAML or JSON; - for the standard input
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) manifest: Vec<PathBuf>,
    /// Keep Leases and Events in memory only, beside the store on disk
    #[arg(long)]
    pub(crate) heartbeats_in_memory: bool,
    /// For how many seconds events are kept, 0 for ever [default: 3600]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) event_ttl: Option<u64>,
    /// Where the kubeconfig is written (mode 0600) [default: <data>/kubeconfig]
    #[arg(long, value_name = "PATH")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Apply, wait until all is ready, show the result and end: 0 when ready, 1 when not
    #[arg(long)]
    pub(crate) once: bool,
    /// How many seconds to wait until all is ready
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) timeout: u64,
}

impl Options {
    /// How many nodes; a runtime behind a socket is one.
    pub(crate) fn nodes(&self) -> u16 {
        self.nodes.unwrap_or(if matches!(self.runtime, RuntimeChoice::Cri(_)) { 1 } else { 3 })
    }
}

/// A folder under the user's state directory.
fn default_data() -> PathBuf {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or(home).unwrap_or_else(std::env::temp_dir).join("kubewright/cluster")
}

/// An image that needs no registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalImage {
    /// What pods call it; the names within the file otherwise.
    pub(crate) name: Option<String>,
    pub(crate) path: PathBuf,
}

impl LocalImage {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (Some(name.to_owned()), path),
            None => (None, text),
        };
        if path.is_empty() || name.as_deref() == Some("") {
            return Err("it is PATH or NAME=PATH".to_owned());
        }
        Ok(LocalImage { name, path: PathBuf::from(path) })
    }
}

/// Which store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreChoice {
    Redb,
    Sled,
    Memory,
    Etcd(Vec<String>),
}

impl StoreChoice {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "redb" => Ok(StoreChoice::Redb),
            "sled" => Ok(StoreChoice::Sled),
            "memory" => Ok(StoreChoice::Memory),
            _ => match text.strip_prefix("etcd=") {
                Some(urls) if !urls.is_empty() => {
                    Ok(StoreChoice::Etcd(urls.split(',').map(str::to_owned).collect()))
                }
                _ => Err("it is one of redb, sled, memory, etcd=URL[,URL]".to_owned()),
            },
        }
    }
}

/// Which runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RuntimeChoice {
    Embedded,
    Fake,
    Cri(String),
}

impl RuntimeChoice {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(RuntimeChoice::Embedded),
            "fake" => Ok(RuntimeChoice::Fake),
            _ => match text.strip_prefix("cri=") {
                Some(socket) if !socket.is_empty() => Ok(RuntimeChoice::Cri(socket.to_owned())),
                _ => Err("it is one of embedded, fake, cri=SOCKET".to_owned()),
            },
        }
    }

    /// Whether the demo's program can run on it.
    pub(crate) fn runs_programs(&self) -> bool {
        *self != RuntimeChoice::Fake
    }
}
