//! Sandboxes: made, stopped, removed.

use super::network::Dialer;
use super::spec::{
    HELPER_LOG_FILE, Namespaces, PAUSE_FILE, PauseSpec, ProcessId, SANDBOX_FILE, SOCKET_FILE, SandboxRecord,
    identify, write_json,
};
use super::state::SandboxEntry;
use super::{Inner, Isolation, failed, rootfs, stage};
use crate::port::{NamespaceMode, PodSandboxConfig};
use crate::{Error, Reason};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};

const HELPER_TIME_MAX: Duration = Duration::from_secs(30);
const DEATH_TIME_MAX: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Inner {
    pub(super) async fn run_sandbox(
        self: &Arc<Self>,
        config: PodSandboxConfig,
        handler: String,
    ) -> Result<String, Error> {
        if !handler.is_empty() {
            let words = format!("no runtime for {handler:?} is configured");
            return Err(Error::new(Reason::Invalid, words));
        }
        let id = self.new_id();
        let dir = self.sandbox_dir(&id);
        let options = config.security.namespaces;
        let apart = self.isolation > Isolation::Process;
        let host_network = options.network == NamespaceMode::Node;
        let namespaces = Namespaces {
            user: self.isolation == Isolation::UserNamespace,
            net: apart && !host_network,
            ipc: apart && options.ipc != NamespaceMode::Node,
            uts: apart && !host_network,
        };
        let record = SandboxRecord {
            id: id.clone(),
            config,
            handler,
            created_at: self.now(),
            ip: None,
            pause: None,
            namespaces,
        };
        let entry = Arc::new(SandboxEntry::new(record, dir.clone()));
        if !host_network {
            self.allocate_address(&entry)?;
        }
        if let Err(error) = self.bring_up(&entry).await {
            self.end_pause(&entry).await?;
            self.sandboxes.lock().remove(&id);
            rootfs::remove_tree(&dir).map_err(|e| failed("sandbox", &e))?;
            return Err(error);
        }
        self.sandboxes.lock().insert(id.clone(), entry);
        self.announce();
        Ok(id)
    }

    /// Takes a free address, and enters the sandbox so that nobody else takes it.
    fn allocate_address(&self, entry: &Arc<SandboxEntry>) -> Result<(), Error> {
        let mut sandboxes = self.sandboxes.lock();
        let used: BTreeSet<Ipv4Addr> =
            sandboxes.values().filter_map(|other| other.record.lock().ip).collect();
        let network = u32::from(self.config.pod_network) & (u32::MAX << (32 - self.config.pod_prefix));
        let count = 1u32 << (32 - self.config.pod_prefix);
        // The first one is the network's, the second one the node's, the last one nobody's.
        let free =
            (2..count - 1).map(|offset| Ipv4Addr::from(network + offset)).find(|ip| !used.contains(ip));
        let ip = free.ok_or_else(|| Error::new(Reason::TryAgain, "no pod address is free"))?;
        let id = {
            let mut record = entry.record.lock();
            record.ip = Some(ip);
            record.id.clone()
        };
        sandboxes.insert(id, Arc::clone(entry));
        Ok(())
    }

    async fn bring_up(self: &Arc<Self>, entry: &SandboxEntry) -> Result<(), Error> {
        let record = entry.record.lock().clone();
        std::fs::create_dir_all(&entry.dir).map_err(|e| failed("sandbox", &e))?;
        if !record.config.log_directory.is_empty() {
            std::fs::create_dir_all(&record.config.log_directory).map_err(|e| failed("log directory", &e))?;
        }
        rootfs::write_host_files(&entry.dir, &record).map_err(|e| failed("sandbox", &e))?;
        let spec = PauseSpec {
            namespaces: record.namespaces,
            hostname: record.config.hostname.clone(),
            ip: record.ip,
            sysctls: record.config.sysctls.into_iter().collect(),
        };
        write_json(&entry.dir.join(PAUSE_FILE), &spec).map_err(|e| failed("sandbox", &e))?;
        let pid = spawn_helper("pause", &entry.dir).await?;
        entry.record.lock().pause = identify(pid);
        self.persist(entry)?;
        self.serve_sandbox(entry).await
    }

    fn persist(&self, entry: &SandboxEntry) -> Result<(), Error> {
        let record = entry.record.lock().clone();
        write_json(&entry.dir.join(SANDBOX_FILE), &record).map_err(|e| failed("sandbox", &e))
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        let Ok(entry) = self.sandbox(id) else { return Ok(()) };
        let _busy = entry.busy.lock().await;
        for container in self.containers_of(id) {
            self.stop_container(&container, Duration::ZERO).await?;
        }
        entry.stop.cancel();
        self.end_pause(&entry).await?;
        let changed = {
            let mut record = entry.record.lock();
            let had = record.pause.take().is_some() | record.ip.take().is_some();
            had && entry.dir.exists()
        };
        if changed {
            self.persist(&entry)?;
            self.announce();
        }
        Ok(())
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        let Ok(entry) = self.sandbox(id) else { return Ok(()) };
        self.stop_sandbox(id).await?;
        for container in self.containers_of(id) {
            self.remove_container(&container.record.id).await?;
        }
        let _busy = entry.busy.lock().await;
        rootfs::remove_tree(&entry.dir).map_err(|e| failed("sandbox", &e))?;
        self.sandboxes.lock().remove(id);
        self.announce();
        Ok(())
    }

    async fn end_pause(&self, entry: &SandboxEntry) -> Result<(), Error> {
        let pause = entry.record.lock().pause;
        match pause {
            Some(pause) => kill_and_wait(pause).await,
            None => Ok(()),
        }
    }

    /// How the ports of the pod with this address are reached, where it is a pod of this runtime with a network of its own.
    pub(super) fn dialer_of(&self, ip: Ipv4Addr) -> Option<Dialer> {
        let all = self.sandboxes.lock();
        let entry = all.values().find(|entry| {
            let record = entry.record.lock();
            record.ip == Some(ip) && record.namespaces.net
        });
        entry.map(|entry| Dialer::Pause(entry.dir.join(SOCKET_FILE)))
    }

    /// How a sandbox's ports are reached.
    pub(super) fn dialer(&self, entry: &SandboxEntry) -> Result<Dialer, Error> {
        let record = entry.record.lock();
        if !record.pause.is_some_and(ProcessId::is_alive) {
            let words = format!("sandbox {} is not ready", record.id);
            return Err(Error::new(Reason::FailedPrecondition, words));
        }
        Ok(match record.namespaces.net {
            true => Dialer::Pause(entry.dir.join(SOCKET_FILE)),
            false => Dialer::Machine(record.ip.unwrap_or(Ipv4Addr::LOCALHOST)),
        })
    }
}

/// Starts a helper and waits until it says that it is ready; gives its process id.
pub(super) async fn spawn_helper(stage: &str, dir: &Path) -> Result<i32, Error> {
    let log = std::fs::File::create(dir.join(HELPER_LOG_FILE)).map_err(|e| failed("helper's log", &e))?;
    let mut command = stage::command(stage, dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = tokio::process::Command::from(command).spawn().map_err(|e| failed("helper", &e))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.ok_or_else(|| Error::new(Reason::Failed, "the helper died at once"))?;
    let output = child.stdout.take().ok_or_else(|| Error::new(Reason::Failed, "the helper has no output"))?;
    let mut said = String::new();
    let mut output = BufReader::new(output);
    let read = tokio::time::timeout(HELPER_TIME_MAX, output.read_line(&mut said)).await;
    match (read, said.trim_end()) {
        (Ok(Ok(_)), "ok") => Ok(pid),
        (Ok(Ok(_)), words) => {
            let mut words = words.trim_start_matches("error: ").to_owned();
            if words.is_empty() {
                words =
                    std::fs::read_to_string(dir.join(HELPER_LOG_FILE)).unwrap_or_default().trim().to_owned();
            }
            // It is about to end by itself; waiting for it keeps no process behind.
            let _ = tokio::time::timeout(DEATH_TIME_MAX, child.wait()).await;
            Err(Error::new(Reason::StartFailed, words))
        }
        (Ok(Err(e)), _) => Err(failed("helper", &e)),
        (Err(_), _) => {
            let _ = child.start_kill();
            Err(Error::new(Reason::Timeout, format!("the helper {stage} does not come up")))
        }
    }
}

/// Kills a process that may be a child of an earlier runtime, and waits until it is gone.
async fn kill_and_wait(process: ProcessId) -> Result<(), Error> {
    let work = async {
        while process.is_alive() {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let late = |_| Error::new(Reason::Timeout, format!("process {} does not die", process.pid));
    tokio::time::timeout(DEATH_TIME_MAX, work).await.map_err(late)
}
