//! The processes beside the host program: its own executable, run again with a marker as the name of the program.
//!
//! Nothing here runs in the host's process. Each stage is single-threaded, so that it may enter namespaces by safe calls:
//! `probe` tries out what this machine allows, `pause` holds a sandbox's namespaces, `shim` supervises one container, `start`
//! becomes the container's program, `exec` becomes a further program in a running container.

mod identity;
mod mounts;
pub(super) mod pause;
mod probe;
mod relay;
mod start;

pub(super) use probe::Probe;

use super::shim;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// The name of the program under which the executable is a stage.
pub(super) const MARKER: &str = "kubewright-runtime";
const EXECUTABLE: &str = "/proc/self/exe";

/// That the host program called [`init`]; a fact about the executable, not about one runtime.
static INITIALISED: AtomicBool = AtomicBool::new(false);

/// What went wrong in a stage, as a sentence for the runtime.
pub(super) type StageResult<T> = Result<T, String>;

/// Lets the executable be its own supervisor of containers: a host of the embedded runtime calls this as the first line of
/// `main`, before any thread (so before a tokio runtime) is started.
///
/// In a normal start it returns at once. In a process that an embedded runtime started as a helper (the name of the program is
/// `kubewright-runtime` then) it does the helper's work and never returns: the process exits or becomes the container's program.
///
/// ```no_run
/// # #[allow(clippy::needless_doctest_main, reason = "where the line stands is what is shown")]
/// fn main() {
///     kubewright_runtime::embedded::init();
///     // the program
/// }
/// ```
pub fn init() {
    INITIALISED.store(true, Ordering::SeqCst);
    let mut args = std::env::args_os();
    if args.next().as_deref() != Some(OsStr::new(MARKER)) {
        return;
    }
    let args: Vec<OsString> = args.collect();
    std::process::exit(match dispatch(&args) {
        Ok(()) => 0,
        Err(sentence) => {
            eprintln!("{sentence}");
            1
        }
    });
}

/// Whether [`init`] was called in this process.
pub(super) fn is_initialised() -> bool {
    INITIALISED.load(Ordering::SeqCst)
}

fn dispatch(args: &[OsString]) -> StageResult<()> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|e| format!("/proc/self/task: {e}"))?.count();
    if threads != 1 {
        return Err("embedded::init() must be called before the program starts threads".to_owned());
    }
    let (stage, rest) = args.split_first().ok_or("no stage given")?;
    let dir = rest.first().map(PathBuf::from).ok_or("no directory given")?;
    match stage.to_str() {
        Some("probe") => probe::main(&dir),
        Some("pause") => pause::main(&dir),
        Some("shim") => shim::main(&dir),
        Some("start") => start::main(&dir, &rest[1..]),
        Some("exec") => start::exec_main(&dir, &rest[1..]),
        _ => Err(format!("unknown stage {stage:?}")),
    }
}

/// The command that runs a stage on a directory.
pub(super) fn command(stage: &str, dir: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(EXECUTABLE);
    command.arg0(MARKER).arg(stage).arg(dir).env_clear().current_dir("/");
    command
}

/// Closes the pipe to the runtime that started the stage.
pub(super) fn let_go_of_output() -> StageResult<()> {
    let null =
        std::fs::OpenOptions::new().write(true).open("/dev/null").map_err(|e| format!("/dev/null: {e}"))?;
    rustix::stdio::dup2_stdout(&null).map_err(|e| format!("standard output: {e}"))
}
