//! Holds a sandbox's namespaces for as long as the sandbox lives, and opens sockets inside its network for the runtime.

use super::relay;
use super::{StageResult, identity};
use crate::embedded::spec::{PAUSE_FILE, PauseSpec, SOCKET_FILE, read_json};
use crate::embedded::{link, redirect, socket};
use nix::sched::CloneFlags;
use std::path::Path;

pub(super) fn main(dir: &Path) -> StageResult<()> {
    let result = prepare(dir);
    // The runtime waits for this line, and only for this line.
    println!("{}", result.as_ref().map_or_else(|sentence| format!("error: {sentence}"), |_| "ok".to_owned()));
    let (spec, listener, outbound) = result?;
    super::let_go_of_output()?;
    relay::serve(&spec, listener, outbound)
}

/// A listener to which every connection that leaves the pod is led.
fn lead_out(ip: std::net::Ipv4Addr) -> std::io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    link::make_everything_local()?;
    redirect::outgoing_to(listener.local_addr()?.port(), ip)?;
    Ok(listener)
}

/// What `pause` serves: its task, its control socket, and where connections out of the pod arrive, or why they can't leave.
type Prepared = (PauseSpec, std::os::unix::net::UnixListener, StageResult<std::net::TcpListener>);

fn prepare(dir: &Path) -> StageResult<Prepared> {
    let spec: PauseSpec = read_json(&dir.join(PAUSE_FILE)).map_err(|e| format!("{PAUSE_FILE}: {e}"))?;
    nix::unistd::setsid().map_err(|e| format!("setsid: {e}"))?;
    let wanted = spec.namespaces;
    if wanted.user {
        identity::enter_new_user_namespace()?;
    }
    let flags = [
        (wanted.net, CloneFlags::CLONE_NEWNET),
        (wanted.ipc, CloneFlags::CLONE_NEWIPC),
        (wanted.uts, CloneFlags::CLONE_NEWUTS),
    ];
    for (_, flag) in flags.into_iter().filter(|(wanted, _)| *wanted) {
        nix::sched::unshare(flag).map_err(|e| format!("namespace {flag:?}: {e}"))?;
    }
    if wanted.uts && !spec.hostname.is_empty() {
        nix::unistd::sethostname(&spec.hostname).map_err(|e| format!("host name: {e}"))?;
    }
    if wanted.net {
        link::bring_loopback_up().map_err(|e| format!("loopback: {e}"))?;
    }
    for (name, value) in &spec.sysctls {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        std::fs::write(&path, value).map_err(|e| format!("sysctl {name}: {e}"))?;
    }
    let listener = socket::bind(&dir.join(SOCKET_FILE)).map_err(|e| format!("control socket: {e}"))?;
    let outbound = match spec.ip {
        Some(ip) if wanted.net => lead_out(ip).map_err(|e| format!("redirection: {e}")),
        _ => Err("the pod has no network of its own".to_owned()),
    };
    Ok((spec, listener, outbound))
}
