//! The supervisor of one container: owns its pipes, writes its log, waits for its end, and outlives the host program.

mod process;
mod server;
mod streams;

use super::socket;
use super::spec::{
    EXITED_FILE, Exited, SOCKET_FILE, SPEC_FILE, STARTED_FILE, Spec, Started, read_json, write_json,
};
use super::stage::{self, StageResult};
use crate::logs::{LineSplitter, LogFile, LogStream};
use kubewright_core::{Clock, SystemClock};
use nix::sched::CloneFlags;
use process::Program;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streams::Fanout;
use tokio::sync::watch;

/// How long what is left in the pipes is waited for after the end; with processes left behind they may never close.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);
/// How long those who wait for the end are given to hear of it.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(5);

/// What the runtime asks of a shim; each connection carries one request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum ShimRequest {
    /// Send a signal to the first process; 9 ends all.
    Signal(i32),
    /// Open the log anew.
    ReopenLog,
    /// Answer when the container has ended.
    Wait,
    /// Run a further program; frames follow.
    Exec { command: Vec<String>, tty: bool, stdin: bool },
    /// Connect to the first process's streams; frames follow.
    Attach { stdin: bool },
}

/// What a shim answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum ShimAnswer {
    Done,
    /// The container or the program ended.
    Ended(i32),
    /// It could not be done.
    Failed(String),
}

/// What the parts of a shim share.
pub(super) struct Shared {
    pub(super) spec: Spec,
    pub(super) pid: i32,
    pub(super) log: Mutex<Option<LogFile>>,
    pub(super) output: Fanout,
    /// The first process's standard input; bounded, so that a slow reader slows the writer.
    pub(super) input: Mutex<Option<tokio::sync::mpsc::Sender<process::Input>>>,
    pub(super) ended: watch::Receiver<Option<i32>>,
}

pub(super) fn main(dir: &Path) -> StageResult<()> {
    let spec: Spec = read_json(&dir.join(SPEC_FILE)).map_err(|e| format!("{SPEC_FILE}: {e}"))?;
    nix::unistd::setsid().map_err(|e| format!("setsid: {e}"))?;
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let entered = enter(&spec);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("event loop: {e}"))?;
    let result = match entered {
        Ok(()) => runtime.block_on(run(dir, spec)),
        Err(sentence) => Err(sentence),
    };
    if let Err(sentence) = &result {
        let now = now();
        let (reason, message) = ("StartError".to_owned(), sentence.clone());
        let exited = Exited { started_at: 0, finished_at: now, exit_code: 128, reason, message };
        let _ = write_json(&dir.join(EXITED_FILE), &exited);
        println!("error: {sentence}");
    }
    result
}

/// Enters the sandbox's namespaces. No thread may be started after this.
fn enter(spec: &Spec) -> StageResult<()> {
    if let Some(pause) = spec.pause_pid {
        let wanted = spec.namespaces;
        let kinds = [
            (wanted.user, "user", CloneFlags::CLONE_NEWUSER),
            (wanted.net, "net", CloneFlags::CLONE_NEWNET),
            (wanted.ipc, "ipc", CloneFlags::CLONE_NEWIPC),
            (wanted.uts, "uts", CloneFlags::CLONE_NEWUTS),
        ];
        for (_, name, flag) in kinds.into_iter().filter(|(wanted, ..)| *wanted) {
            let file = std::fs::File::open(format!("/proc/{pause}/ns/{name}"));
            let file = file.map_err(|e| format!("the sandbox's {name} namespace: {e}"))?;
            nix::sched::setns(file, flag).map_err(|e| format!("enter {name} namespace: {e}"))?;
        }
    }
    if spec.new_pid {
        nix::sched::unshare(CloneFlags::CLONE_NEWPID).map_err(|e| format!("process id namespace: {e}"))?;
    }
    Ok(())
}

async fn run(dir: &Path, spec: Spec) -> StageResult<()> {
    let listener = socket::bind(&dir.join(SOCKET_FILE)).map_err(|e| format!("control socket: {e}"))?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(|e| e.to_string())?;
    let log = spec.log_path.as_deref().map(LogFile::open).transpose();
    let log = log.map_err(|e| format!("log file {:?}: {e}", spec.log_path))?;
    let mut program = Program::start(dir, &spec).await?;
    let started = Started { pid: program.pid, started_at: now() };
    write_json(&dir.join(STARTED_FILE), &started).map_err(|e| format!("{STARTED_FILE}: {e}"))?;
    let (ended, ended_seen) = watch::channel(None);
    let shared = Arc::new(Shared {
        pid: program.pid,
        log: Mutex::new(log),
        output: Fanout::default(),
        input: Mutex::new(program.input.take()),
        ended: ended_seen,
        spec,
    });
    println!("ok");
    stage::let_go_of_output()?;
    let (mut clients, mut pumps) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
    let _input = program.pump_input();
    for (stream, output) in program.outputs() {
        pumps.spawn(pump(Arc::clone(&shared), stream, output));
    }
    let status = server::serve_until(program.child.wait(), &listener, &mut clients, &shared).await;
    let code = process::exit_code(status);
    if !shared.spec.new_pid {
        process::kill_group(shared.pid);
    }
    let drained = async { while pumps.join_next().await.is_some() {} };
    shared.input.lock().unwrap_or_else(|e| e.into_inner()).take();
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, drained).await;
    shared.output.close();
    let exited = conclude(&shared, started.started_at, code);
    write_json(&dir.join(EXITED_FILE), &exited).map_err(|e| format!("{EXITED_FILE}: {e}"))?;
    let _ = ended.send(Some(code));
    let farewell = async { while clients.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(FAREWELL_TIME_MAX, farewell).await;
    Ok(())
}

fn conclude(shared: &Shared, started_at: i64, exit_code: i32) -> Exited {
    let out_of_memory = shared.spec.oom_file.as_deref().is_some_and(process::ran_out_of_memory);
    let reason = match exit_code {
        0 => "Completed",
        137 if out_of_memory => "OOMKilled",
        _ => "Error",
    };
    let (finished_at, message) = (now(), String::new());
    Exited { started_at, finished_at, exit_code, reason: reason.to_owned(), message }
}

/// Copies one stream of the program into the log and to whoever is attached.
async fn pump(shared: Arc<Shared>, stream: LogStream, mut output: process::Output) {
    let (mut splitter, mut records) = (LineSplitter::new(stream), Vec::new());
    let mut block = vec![0; crate::logs::LINE_BYTES_MAX];
    loop {
        let count = output.read(&mut block).await.unwrap_or(0);
        let time = SystemClock.now();
        match count {
            0 => splitter.finish(time, &mut records),
            _ => splitter.push(&block[..count], time, &mut records),
        }
        if let Some(log) = shared.log.lock().unwrap_or_else(|e| e.into_inner()).as_mut() {
            // A full disk costs the log, never the container.
            let _ = log.append(&records);
        }
        records.clear();
        if count == 0 {
            return;
        }
        shared.output.send(stream, &block[..count]).await;
    }
}

fn now() -> i64 {
    i64::try_from(SystemClock.now().as_nanosecond()).unwrap_or(i64::MAX)
}
