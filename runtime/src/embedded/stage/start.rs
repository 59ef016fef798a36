//! Becomes a container's program: in its namespaces, its root, its user.

use super::identity::{self, Ids};
use super::{StageResult, mounts};
use crate::embedded::socket;
use crate::embedded::spec::{SPEC_FILE, Spec, read_json};
use nix::sched::CloneFlags;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program of a new container. The second argument names the socket on which a failure is told; it closes when the program
/// has taken over.
pub(super) fn main(dir: &Path, args: &[OsString]) -> StageResult<()> {
    let mut teller = tell_on(dir, args)?;
    let result = read_spec(dir).and_then(|spec| {
        take_session(spec.tty)?;
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(|e| e.to_string())?;
        join_cgroups(&spec);
        let root = if spec.new_root { enter_new_root(&spec)? } else { spec.dir.join("rootfs") };
        become_program(&spec, spec.args.clone(), &root)
    });
    tell(&mut teller, result)
}

/// A further program in a running container: socket, process id of its first program, `tty` or `-`, the program's words.
pub(super) fn exec_main(dir: &Path, args: &[OsString]) -> StageResult<()> {
    let mut teller = tell_on(dir, args)?;
    let words: Vec<String> = args.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let result = read_spec(dir).and_then(|mut spec| {
        let [pid, tty, command @ ..] = words.as_slice() else {
            return Err("exec lacks arguments".to_owned());
        };
        spec.tty = tty == "tty";
        take_session(spec.tty)?;
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(|e| e.to_string())?;
        join_cgroups(&spec);
        if spec.tty && !spec.env.iter().any(|(name, _)| name == "TERM") {
            spec.env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        let root = if spec.new_root {
            let namespace = std::fs::File::open(format!("/proc/{pid}/ns/mnt"))
                .map_err(|_| "the container is not running".to_owned())?;
            nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS)
                .map_err(|e| format!("mount namespace: {e}"))?;
            PathBuf::from("/")
        } else {
            spec.dir.join("rootfs")
        };
        become_program(&spec, command.to_vec(), &root)
    });
    tell(&mut teller, result)
}

fn read_spec(dir: &Path) -> StageResult<Spec> {
    read_json(&dir.join(SPEC_FILE)).map_err(|e| format!("{SPEC_FILE}: {e}"))
}

fn tell_on(dir: &Path, args: &[OsString]) -> StageResult<UnixStream> {
    let name = args.first().ok_or("no socket given")?;
    socket::connect(&dir.join(name)).map_err(|e| format!("the supervisor is gone: {e}"))
}

fn tell(teller: &mut UnixStream, result: StageResult<()>) -> StageResult<()> {
    if let Err(sentence) = &result {
        teller.write_all(sentence.as_bytes()).map_err(|e| format!("{sentence} ({e})"))?;
    }
    result
}

fn take_session(tty: bool) -> StageResult<()> {
    nix::unistd::setsid().map_err(|e| format!("setsid: {e}"))?;
    if tty {
        rustix::process::ioctl_tiocsctty(std::io::stdin()).map_err(|e| format!("terminal: {e}"))?;
    }
    Ok(())
}

/// Limits are given where they can be: a container without them is better than none.
fn join_cgroups(spec: &Spec) {
    for file in &spec.cgroup_procs {
        let _ = std::fs::write(file, "0");
    }
    // Values below the parent's need a right that even root may lack.
    let _ = std::fs::write("/proc/self/oom_score_adj", spec.oom_score_adj.to_string());
}

fn enter_new_root(spec: &Spec) -> StageResult<PathBuf> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("mount namespace: {e}"))?;
    mounts::enter(spec)?;
    Ok(PathBuf::from("/"))
}

fn become_program(spec: &Spec, args: Vec<String>, root: &Path) -> StageResult<()> {
    let file = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let ids = identity::look_up(&spec.user, &file("etc/passwd"), &file("etc/group"))?;
    let cwd = root.join(spec.cwd.trim_start_matches('/'));
    let _ = std::fs::create_dir_all(&cwd);
    std::env::set_current_dir(&cwd).map_err(|e| format!("working directory {:?}: {e}", spec.cwd))?;
    let (program, rest) = args.split_first().ok_or("no command specified")?;
    let single = spec.namespaces.user;
    if spec.new_root || nix::unistd::geteuid().is_root() {
        identity::take_on(&ids, &spec.rights, single)?;
    }
    let program = if spec.new_root { PathBuf::from(program) } else { beside_root(root, program) };
    let mut command = Command::new(&program);
    command.args(rest).env_clear().envs(environment(spec, &ids, root));
    let error = command.exec();
    Err(describe(&args[0], &error))
}

/// Without a root of its own a program is looked for in the image first, then on the machine.
fn beside_root(root: &Path, program: &str) -> PathBuf {
    let inside = root.join(program.trim_start_matches('/'));
    let in_path = |dir: &&&str| root.join(dir).join(program).is_file();
    match program.contains('/') {
        true if inside.is_file() => inside,
        true => PathBuf::from(program),
        false => match ["usr/local/bin", "usr/bin", "bin", "usr/sbin", "sbin"].iter().find(in_path) {
            Some(dir) => root.join(dir).join(program),
            None => PathBuf::from(program),
        },
    }
}

fn environment(spec: &Spec, ids: &Ids, root: &Path) -> Vec<(String, String)> {
    let mut env = spec.env.clone();
    if !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".to_owned(), ids.home.clone().unwrap_or_else(|| "/".to_owned())));
    }
    if !spec.new_root {
        env.push(("KUBEWRIGHT_ROOTFS".to_owned(), root.display().to_string()));
    }
    env
}

/// In the words that people know from other runtimes.
fn describe(program: &str, error: &std::io::Error) -> String {
    let why = match error.kind() {
        std::io::ErrorKind::NotFound if program.contains('/') => "no such file or directory".to_owned(),
        std::io::ErrorKind::NotFound => "executable file not found in $PATH".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    format!("unable to start container process: exec: {program:?}: {why}")
}
