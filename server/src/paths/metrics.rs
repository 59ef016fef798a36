//! `/metrics`: what the server counts and holds; `/metrics/slis`: how its own checks stand.

use super::GIT_VERSION;
use crate::meter::head;
use crate::ports::MetricSource;
use crate::server::Shared;
use std::fmt::Write;

/// The metrics in Prometheus' text form.
pub(super) fn text(shared: &Shared) -> String {
    let mut out = String::new();
    shared.meter.write(&mut out);
    let all = shared.cache.all();
    let mut ids: Vec<_> = all.keys().collect();
    ids.sort();
    // Writing to a String cannot fail.
    for name in ["apiserver_resource_objects", "apiserver_storage_objects"] {
        head(&mut out, "gauge", name, "Stored objects, by resource.");
        for id in &ids {
            let (group, resource, count) = (&id.group, &id.resource, all[*id].snapshot().len());
            if name == "apiserver_resource_objects" {
                let _ = writeln!(out, "{name}{{group=\"{group}\",resource=\"{resource}\"}} {count}");
            } else {
                let dotted =
                    if group.is_empty() { resource.to_string() } else { format!("{resource}.{group}") };
                let _ = writeln!(out, "{name}{{resource=\"{dotted}\"}} {count}");
            }
        }
    }
    head(&mut out, "gauge", "apiserver_longrunning_requests", "Open watches, by resource.");
    for id in &ids {
        let (group, resource, count) = (&id.group, &id.resource, all[*id].watchers());
        if count > 0 {
            let _ = writeln!(
                out,
                "apiserver_longrunning_requests{{component=\"apiserver\",group=\"{group}\",resource=\"{resource}\",verb=\"WATCH\"}} {count}"
            );
        }
    }
    head(&mut out, "gauge", "kubernetes_build_info", "The release that the server is compatible with.");
    let _ = writeln!(
        out,
        "kubernetes_build_info{{git_version=\"{GIT_VERSION}\",major=\"1\",minor=\"36\",compiler=\"rustc\"}} 1"
    );
    head(&mut out, "gauge", "kubewright_cache_revision", "The revision up to which reads see every write.");
    let _ = writeln!(out, "kubewright_cache_revision {}", shared.cache.applied());
    for source in shared.metrics.load().iter() {
        source.write(&mut out);
    }
    process(&mut out);
    out
}

/// What the system says of this process, where it says it as Linux does.
fn process(out: &mut String) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    // The name of the program may hold anything, but ends with the last parenthesis.
    let Some((_, rest)) = stat.rsplit_once(") ") else { return };
    let fields: Vec<f64> = rest.split(' ').map(|f| f.parse().unwrap_or(0.0)).collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0);
    // Ticks of a hundredth of a second, and pages of 4 KiB: what every Linux that this runs on has.
    let gauges = [
        ("counter", "process_cpu_seconds_total", (field(14) + field(15)) / 100.0),
        ("gauge", "process_virtual_memory_bytes", field(23)),
        ("gauge", "process_resident_memory_bytes", field(24) * 4096.0),
        ("gauge", "process_start_time_seconds", boot_seconds() + field(22) / 100.0),
        ("gauge", "process_open_fds", std::fs::read_dir("/proc/self/fd").map_or(0.0, |d| d.count() as f64)),
    ];
    for (kind, name, value) in gauges {
        head(out, kind, name, "What the system says of this process.");
        let _ = writeln!(out, "{name} {value}");
    }
}

fn boot_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|l| l.strip_prefix("btime "));
    line.and_then(|t| t.trim().parse().ok()).unwrap_or(0.0)
}

/// The checks of `/healthz`, `/livez` and `/readyz` as gauges.
pub(super) async fn slis(shared: &Shared) -> String {
    let mut out = String::new();
    head(&mut out, "gauge", "kubernetes_healthcheck", "Whether a check passes now.");
    for which in ["healthz", "livez", "readyz"] {
        for (name, passes) in super::health::states(shared, which).await {
            let _ = writeln!(
                out,
                "kubernetes_healthcheck{{name=\"{name}\",type=\"{which}\"}} {}",
                u8::from(passes)
            );
        }
    }
    out
}
