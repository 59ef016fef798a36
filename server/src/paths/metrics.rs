//! `/metrics`: what the server counts and holds.

use super::GIT_VERSION;
use crate::server::Shared;
use std::fmt::Write;

/// The metrics in Prometheus' text form.
pub(super) fn text(shared: &Shared) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    head(&mut out, "counter", "apiserver_request_total", "Requests answered, by verb and code.");
    for (verb, code, count) in shared.counters.requests() {
        let verb = verb.to_ascii_uppercase();
        let _ = writeln!(out, "apiserver_request_total{{code=\"{code}\",verb=\"{verb}\"}} {count}");
    }
    head(&mut out, "gauge", "apiserver_resource_objects", "Stored objects, by resource.");
    let all = shared.cache.all();
    let mut ids: Vec<_> = all.keys().collect();
    ids.sort();
    for id in &ids {
        let (group, resource, count) = (&id.group, &id.resource, all[*id].snapshot().len());
        let _ =
            writeln!(out, "apiserver_resource_objects{{group=\"{group}\",resource=\"{resource}\"}} {count}");
    }
    head(&mut out, "gauge", "apiserver_longrunning_requests", "Open watches, by resource.");
    for id in &ids {
        let (group, resource, count) = (&id.group, &id.resource, all[*id].watchers());
        if count > 0 {
            let _ = writeln!(
                out,
                "apiserver_longrunning_requests{{group=\"{group}\",resource=\"{resource}\",verb=\"WATCH\"}} {count}"
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
    out
}

fn head(out: &mut String, kind: &str, name: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
