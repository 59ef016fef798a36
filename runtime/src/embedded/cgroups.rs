//! Limits and their accounts, where the runtime may write cgroups: version 2, or the controllers of version 1.

use crate::port::Resources;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MOUNT: &str = "/sys/fs/cgroup";
const V1_CONTROLLERS: [&str; 4] = ["memory", "cpu", "cpuacct", "pids"];
const REMOVE_TRIES_MAX: usize = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// The cgroups of one runtime.
#[derive(Debug)]
pub(super) enum Cgroups {
    /// One directory for all controllers.
    Unified(PathBuf),
    /// One directory for each controller, with the controller's name.
    Split(Vec<(&'static str, PathBuf)>),
}

/// What a container used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) cpu_nanoseconds: u64,
    pub(super) memory_bytes: u64,
    pub(super) working_set_bytes: u64,
}

impl Cgroups {
    /// The cgroups of this machine below `parent`, where they can be written.
    pub(super) fn find(parent: &str) -> Option<Self> {
        let parent = parent.trim_matches('/');
        if parent.is_empty() || parent.split('/').any(|part| part == "..") {
            return None;
        }
        let mount = Path::new(MOUNT);
        let available = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        if available.split_whitespace().any(|controller| controller == "memory") {
            let dir = mount.join(parent);
            fs::create_dir_all(&dir).ok()?;
            for level in [mount.to_owned(), dir.clone()] {
                for controller in ["cpu", "memory", "pids"] {
                    // One that can't be handed down limits nothing.
                    let _ = fs::write(level.join("cgroup.subtree_control"), format!("+{controller}"));
                }
            }
            return Some(Cgroups::Unified(dir));
        }
        let dirs = V1_CONTROLLERS.iter().map(|controller| (*controller, mount.join(controller).join(parent)));
        let made: Vec<_> = dirs.filter(|(_, dir)| fs::create_dir_all(dir).is_ok()).collect();
        (!made.is_empty()).then_some(Cgroups::Split(made))
    }

    fn dirs(&self, id: &str) -> Vec<(&'static str, PathBuf)> {
        match self {
            Cgroups::Unified(dir) => vec![("", dir.join(id))],
            Cgroups::Split(dirs) => {
                dirs.iter().map(|(controller, dir)| (*controller, dir.join(id))).collect()
            }
        }
    }

    fn file(&self, id: &str, controller: &str, name: &str) -> Option<PathBuf> {
        let all = self.dirs(id);
        let found = all.into_iter().find(|(other, _)| other.is_empty() || *other == controller);
        found.map(|(_, dir)| dir.join(name))
    }

    /// The files into which a program is written, and the one that tells of kills for lack of memory.
    pub(super) fn files_of(&self, id: &str) -> (Vec<PathBuf>, Option<PathBuf>) {
        let procs = self.dirs(id).into_iter().map(|(_, dir)| dir.join("cgroup.procs")).collect();
        let name = match self {
            Cgroups::Unified(_) => "memory.events",
            Cgroups::Split(_) => "memory.oom_control",
        };
        (procs, self.file(id, "memory", name))
    }

    /// Makes a container's cgroups with its limits.
    pub(super) fn make(&self, id: &str, resources: &Resources) {
        for (_, dir) in self.dirs(id) {
            if let Err(error) = fs::create_dir_all(&dir) {
                tracing::warn!(dir = %dir.display(), %error, "a cgroup can't be made");
            }
        }
        for refused in self.limit(id, resources) {
            tracing::warn!(container = id, refused, "a limit can't be set");
        }
    }

    /// Sets limits; gives those that the kernel refused.
    pub(super) fn limit(&self, id: &str, resources: &Resources) -> Vec<String> {
        let mut values: Vec<(&str, &str, String)> = Vec::new();
        let unified = matches!(self, Cgroups::Unified(_));
        if resources.memory_limit_bytes > 0 {
            let file = if unified { "memory.max" } else { "memory.limit_in_bytes" };
            values.push(("memory", file, resources.memory_limit_bytes.to_string()));
        }
        let period = if resources.cpu_period > 0 { resources.cpu_period } else { 100_000 };
        if unified && resources.cpu_quota != 0 {
            let quota =
                if resources.cpu_quota < 0 { "max".to_owned() } else { resources.cpu_quota.to_string() };
            values.push(("cpu", "cpu.max", format!("{quota} {period}")));
        } else if resources.cpu_quota != 0 {
            values.push(("cpu", "cpu.cfs_period_us", period.to_string()));
            values.push(("cpu", "cpu.cfs_quota_us", resources.cpu_quota.to_string()));
        }
        if resources.cpu_shares > 0 {
            let weight = 1 + (resources.cpu_shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
            values.push(match unified {
                true => ("cpu", "cpu.weight", weight.to_string()),
                false => ("cpu", "cpu.shares", resources.cpu_shares.to_string()),
            });
        }
        let set = |(controller, file, value): (&str, &str, String)| {
            let done = self.file(id, controller, file).is_some_and(|path| fs::write(path, &value).is_ok());
            (!done).then(|| format!("{file}={value}"))
        };
        values.into_iter().filter_map(set).collect()
    }

    /// What a container used; `None` where its cgroups are gone.
    pub(super) fn usage(&self, id: &str) -> Option<Usage> {
        let read =
            |controller, name| self.file(id, controller, name).and_then(|path| fs::read_to_string(path).ok());
        let number = |text: String| text.trim().parse::<u64>().ok();
        let (cpu_nanoseconds, memory, inactive) = match self {
            Cgroups::Unified(_) => (
                field(&read("cpu", "cpu.stat")?, "usage_usec")? * 1000,
                read("memory", "memory.current").and_then(number),
                "inactive_file",
            ),
            Cgroups::Split(_) => (
                read("cpuacct", "cpuacct.usage").and_then(number)?,
                read("memory", "memory.usage_in_bytes").and_then(number),
                "total_inactive_file",
            ),
        };
        let memory_bytes = memory?;
        let inactive = read("memory", "memory.stat").and_then(|text| field(&text, inactive)).unwrap_or(0);
        Some(Usage {
            cpu_nanoseconds,
            memory_bytes,
            working_set_bytes: memory_bytes.saturating_sub(inactive),
        })
    }

    /// Removes a container's cgroups, once its processes are gone.
    pub(super) async fn remove(&self, id: &str) {
        for (_, dir) in self.dirs(id) {
            for _ in 0..REMOVE_TRIES_MAX {
                match fs::remove_dir(&dir) {
                    Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
                        tokio::time::sleep(REMOVE_PAUSE).await;
                    }
                    _ => break,
                }
            }
        }
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_in_the_kernels_words() {
        let dir = tempfile::tempdir().unwrap();
        let resources = Resources {
            memory_limit_bytes: 1 << 20,
            cpu_quota: 50_000,
            cpu_shares: 1024,
            ..Resources::default()
        };
        let check = |cgroups: Cgroups, want: &[(&str, &str)]| {
            cgroups.make("c", &resources);
            for (file, value) in want {
                assert_eq!(fs::read_to_string(dir.path().join(file)).unwrap(), *value, "{file}");
            }
        };
        let unified = Cgroups::Unified(dir.path().join("u"));
        check(
            unified,
            &[("u/c/memory.max", "1048576"), ("u/c/cpu.max", "50000 100000"), ("u/c/cpu.weight", "39")],
        );
        let split = |name: &'static str| (name, dir.path().join(name));
        check(
            Cgroups::Split(vec![split("memory"), split("cpu")]),
            &[("memory/c/memory.limit_in_bytes", "1048576"), ("cpu/c/cpu.cfs_quota_us", "50000")],
        );
    }

    #[test]
    fn a_parent_that_leads_out_is_refused() {
        assert!(Cgroups::find("../x").is_none() && Cgroups::find("").is_none());
    }
}
