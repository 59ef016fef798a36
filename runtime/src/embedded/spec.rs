//! The files of the state directory: what the runtime, its helpers and a later runtime tell each other.

use crate::port::{ContainerConfig, Device, Mount, PodSandboxConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

pub(super) const SANDBOX_FILE: &str = "sandbox.json";
pub(super) const PAUSE_FILE: &str = "pause.json";
pub(super) const CONTAINER_FILE: &str = "container.json";
pub(super) const SPEC_FILE: &str = "spec.json";
pub(super) const STARTED_FILE: &str = "started.json";
pub(super) const EXITED_FILE: &str = "exited.json";
pub(super) const SOCKET_FILE: &str = "control.sock";
/// A helper's own words, for looking into what went wrong.
pub(super) const HELPER_LOG_FILE: &str = "helper.log";

/// A process, told apart from a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pub(super) pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: ticks since boot.
    pub(super) start_ticks: u64,
}

/// A sandbox as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) id: String,
    pub(super) config: PodSandboxConfig,
    pub(super) handler: String,
    pub(super) created_at: i64,
    pub(super) ip: Option<Ipv4Addr>,
    /// The process that holds its namespaces; `None` once it was stopped.
    pub(super) pause: Option<ProcessId>,
    pub(super) namespaces: Namespaces,
}

/// Which namespaces a sandbox has of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Namespaces {
    /// Users: the owner is root inside, and nobody else exists.
    pub(super) user: bool,
    pub(super) net: bool,
    pub(super) ipc: bool,
    pub(super) uts: bool,
}

/// What `pause` is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PauseSpec {
    pub(super) namespaces: Namespaces,
    pub(super) hostname: String,
    pub(super) ip: Option<Ipv4Addr>,
    /// Kernel settings of its namespaces, `net.ipv4.x` to value.
    pub(super) sysctls: Vec<(String, String)>,
}

/// A container as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub(super) id: String,
    pub(super) sandbox_id: String,
    pub(super) config: ContainerConfig,
    pub(super) image_id: String,
    pub(super) image_ref: String,
    pub(super) log_path: String,
    pub(super) created_at: i64,
    pub(super) stop_signal: i32,
}

/// Where a container's root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Rootfs {
    /// Layers, the lowest first (names below `layers`), under a writable directory.
    Overlay { layers: PathBuf, names: Vec<String>, user_xattr: bool },
    /// A copy of its own in `rootfs`.
    Copy,
}

/// What `shim` and `start` are to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// The directory of the container.
    pub(super) dir: PathBuf,
    /// Whose namespaces are entered.
    pub(super) pause_pid: Option<i32>,
    pub(super) namespaces: Namespaces,
    /// Whether it gets a namespace of process ids of its own.
    pub(super) new_pid: bool,
    /// Whether the root file system is entered; otherwise the program runs beside it.
    pub(super) new_root: bool,
    pub(super) rootfs: Rootfs,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
    pub(super) user: UserSpec,
    pub(super) mounts: Vec<Mount>,
    pub(super) devices: Vec<Device>,
    pub(super) tty: bool,
    pub(super) stdin: bool,
    pub(super) stdin_once: bool,
    pub(super) log_path: Option<PathBuf>,
    pub(super) readonly_rootfs: bool,
    pub(super) rights: Rights,
    /// `cgroup.procs` files that the program is written into.
    pub(super) cgroup_procs: Vec<PathBuf>,
    /// Where the kernel tells that it ran out of memory.
    pub(super) oom_file: Option<PathBuf>,
    /// Added to the badness when memory runs out.
    pub(super) oom_score_adj: i64,
}

/// As whom a program runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UserSpec {
    /// `user[:group]` as the image or the pod has it: names or numbers.
    pub(super) name: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) groups: Vec<u32>,
}

/// What a program may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rights {
    pub(super) privileged: bool,
    pub(super) no_new_privs: bool,
    pub(super) add: Vec<String>,
    pub(super) drop: Vec<String>,
    pub(super) masked_paths: Vec<String>,
    pub(super) readonly_paths: Vec<String>,
}

/// That a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) pid: i32,
    pub(super) started_at: i64,
}

/// That a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Exited {
    pub(super) started_at: i64,
    pub(super) finished_at: i64,
    pub(super) exit_code: i32,
    pub(super) reason: String,
    pub(super) message: String,
}

/// Reads a file of the state directory.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::other)
}

/// Writes a file of the state directory: after a crash it is there whole, or not at all.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(value).map_err(io::Error::other)?)?;
    file.sync_data()?;
    std::fs::rename(temporary, path)
}

/// The process with this id, if there is one now.
pub(super) fn identify(pid: i32) -> Option<ProcessId> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so the fields are counted from its end.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let state = fields.first()?;
    let start_ticks = fields.get(19)?.parse().ok()?;
    (*state != "Z" && *state != "X").then_some(ProcessId { pid, start_ticks })
}

impl ProcessId {
    /// Whether this very process still runs.
    pub(super) fn is_alive(self) -> bool {
        identify(self.pid) == Some(self)
    }
}
