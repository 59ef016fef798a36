//! What containers use: from their cgroups, else from the processes below their first one.

use super::Inner;
use super::cgroups::Usage;
use super::state::Phase;
use crate::port::{ContainerFilter, ContainerStats};
use nix::unistd::SysconfVar;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The processes of this machine at one time.
struct Processes {
    children: HashMap<i32, Vec<i32>>,
    used: HashMap<i32, (u64, u64)>,
    tick_nanoseconds: u64,
    page_bytes: u64,
}

impl Inner {
    /// The use of resources by running containers. Blocks for the reading of files of the kernel.
    pub(super) fn stats(&self, filter: &ContainerFilter) -> Vec<ContainerStats> {
        let entries: Vec<_> = self.containers.lock().values().cloned().collect();
        let (timestamp, mut processes) = (self.now(), None);
        let mut all = Vec::new();
        for entry in entries.iter().filter(|entry| filter.matches(&entry.view())) {
            let Phase::Running(started) = *entry.phase.borrow() else { continue };
            let of_cgroup = self.cgroups.as_ref().and_then(|cgroups| cgroups.usage(&entry.record.id));
            let usage =
                of_cgroup.unwrap_or_else(|| processes.get_or_insert_with(Processes::read).below(started.pid));
            all.push(ContainerStats {
                id: entry.record.id.clone(),
                metadata: entry.record.config.metadata.clone(),
                labels: entry.record.config.labels.clone(),
                timestamp,
                cpu_usage_core_nano_seconds: usage.cpu_nanoseconds,
                memory_working_set_bytes: usage.working_set_bytes,
                memory_usage_bytes: usage.memory_bytes,
                writable_layer_used_bytes: size_of_tree(&entry.dir.join("upper")),
            });
        }
        all
    }
}

impl Processes {
    fn read() -> Self {
        let system = |what, otherwise| {
            let value = nix::unistd::sysconf(what).ok().flatten();
            value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(otherwise)
        };
        let mut all = Processes {
            children: HashMap::new(),
            used: HashMap::new(),
            tick_nanoseconds: 1_000_000_000 / system(SysconfVar::CLK_TCK, 100),
            page_bytes: system(SysconfVar::PAGE_SIZE, 4096),
        };
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            all.add(pid, &stat);
        }
        all
    }

    fn add(&mut self, pid: i32, stat: &str) {
        let Some((_, rest)) = stat.rsplit_once(')') else { return };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number =
            |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let parent = fields.get(1).and_then(|field| field.parse().ok()).unwrap_or(0);
        self.children.entry(parent).or_default().push(pid);
        // User and system time, its own and that of children that were waited for; resident pages.
        let ticks = number(11) + number(12) + number(13) + number(14);
        self.used.insert(pid, (ticks * self.tick_nanoseconds, number(21) * self.page_bytes));
    }

    fn below(&self, pid: i32) -> Usage {
        let (mut usage, mut waiting) = (Usage::default(), vec![pid]);
        while let Some(pid) = waiting.pop() {
            let (cpu, memory) = self.used.get(&pid).copied().unwrap_or_default();
            usage.cpu_nanoseconds += cpu;
            usage.memory_bytes += memory;
            waiting.extend(self.children.get(&pid).into_iter().flatten());
        }
        usage.working_set_bytes = usage.memory_bytes;
        usage
    }
}

/// Bytes on disk of a directory with all that is in it; what can't be read counts nothing. Blocks.
fn size_of_tree(path: &Path) -> u64 {
    let Ok(found) = std::fs::symlink_metadata(path) else { return 0 };
    let own = found.blocks() * 512;
    if !found.is_dir() {
        return own;
    }
    let inside = std::fs::read_dir(path).into_iter().flatten().flatten();
    own + inside.map(|entry| size_of_tree(&entry.path())).sum::<u64>()
}
