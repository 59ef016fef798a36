//! The checks of both levels: what each finds in a pod, in upstream's words.

use super::policy::{Level, LevelVersion, Version};
use crate::admission::json::{at, containers, flag, list, sub, text};
use kubewright_core::meta;
use serde_json::Value;
use std::collections::BTreeSet;

/// What a check found: the reason in short, and the detail.
pub(super) type Found = (&'static str, String);

/// A pod as checks see it; templates of workloads are alike.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The pod or the template.
    pub(super) pod: &'a Value,
    pub(super) version: Version,
}

impl<'a> Subject<'a> {
    fn spec(self) -> &'a Value {
        sub(self.pod, "spec")
    }

    fn context(self) -> &'a Value {
        sub(self.spec(), "securityContext")
    }

    fn containers(self) -> impl Iterator<Item = &'a Value> {
        containers(self.spec())
    }

    fn is_windows(self) -> bool {
        self.version.reaches(25) && text(sub(self.spec(), "os"), "name") == "windows"
    }

    /// A pod with users of its own is root only inside.
    fn has_own_users(self) -> bool {
        self.version.reaches(35) && sub(self.spec(), "hostUsers") == false
    }

    /// The names of the containers that are bad.
    fn bad(self, is_bad: impl Fn(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|c| is_bad(c)).map(|c| text(c, "name")).collect()
    }
}

type Check = fn(Subject<'_>) -> Option<Found>;

/// The checks of the baseline level, in the order of upstream's names; the second half tells from which version on a stricter check of the
/// restricted level takes the place.
const BASELINE: &[(Check, Option<u32>)] = &[
    (app_armor, None),
    (capabilities, Some(22)),
    (host_namespaces, None),
    (host_paths, Some(0)),
    (host_ports, None),
    (probe_hosts, None),
    (privileged, None),
    (proc_mount, Some(35)),
    (se_linux, None),
    (seccomp, Some(19)),
    (sysctls, None),
    (host_process, None),
];
const RESTRICTED: &[(Check, u32)] = &[
    (privilege_escalation, 8),
    (capabilities_restricted, 22),
    (proc_mount_restricted, 35),
    (volume_types, 0),
    (non_root, 0),
    (user_zero, 23),
    (seccomp_restricted, 19),
];

/// All that a level finds in a pod.
pub(super) fn evaluate(wanted: LevelVersion, pod: &Value) -> Vec<Found> {
    let subject = Subject { pod, version: wanted.version };
    if wanted.level == Level::Privileged {
        return Vec::new();
    }
    let restricted = wanted.level == Level::Restricted;
    let replaced = |by: &Option<u32>| restricted && by.is_some_and(|minor| wanted.version.reaches(minor));
    let mut found: Vec<Found> =
        BASELINE.iter().filter(|(_, by)| !replaced(by)).filter_map(|(check, _)| check(subject)).collect();
    if restricted {
        let counts = RESTRICTED.iter().filter(|(_, since)| wanted.version.reaches(*since));
        found.extend(counts.filter_map(|(check, _)| check(subject)));
    }
    found
}

/// `reason (detail), reason (detail)`.
pub(super) fn told(found: &[Found]) -> String {
    let one = |(reason, detail): &Found| {
        if detail.is_empty() { (*reason).to_owned() } else { format!("{reason} ({detail})") }
    };
    found.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let quote = |name: T| format!("\"{}\"", name.as_ref());
    names.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

/// `container "a"`, `containers "a", "b"`.
fn named(bad: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", bad.len()), quoted(bad))
}

/// `pod and container "a"`.
fn setters(pod: bool, bad: &[&str]) -> Option<String> {
    match (pod, bad.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_owned()),
        (false, false) => Some(named(bad)),
        (true, false) => Some(format!("pod and {}", named(bad))),
    }
}

fn app_armor(s: Subject<'_>) -> Option<Found> {
    let kind = |owner: &Value| at(owner, &["appArmorProfile", "type"]).as_str().map(str::to_owned);
    let wrong =
        |owner: &Value| kind(owner).filter(|t| !matches!(t.as_str(), "RuntimeDefault" | "Localhost" | ""));
    let mut values = BTreeSet::new();
    values.extend(wrong(s.context()));
    let pod = !values.is_empty();
    let bad = s.bad(|c| wrong(sub(c, "securityContext")).is_some());
    values.extend(s.containers().filter_map(|c| wrong(sub(c, "securityContext"))));
    let mut who: Vec<String> = setters(pod, &bad).into_iter().collect();
    let mut values: Vec<String> = values.into_iter().collect();
    let allowed = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let mut annotations: Vec<String> = meta::annotations(s.pod)
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
        .filter_map(|(key, value)| value.as_str().filter(|v| !allowed(v)).map(|v| format!("{key}={v:?}")))
        .collect();
    if !annotations.is_empty() {
        annotations.sort();
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
        values.extend(annotations);
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    Some((reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&values))))
}

const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn added<'a>(container: &'a Value, allowed: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let all = at(container, &["securityContext", "capabilities", "add"]).as_array();
    all.into_iter().flatten().filter_map(Value::as_str).filter(move |c| !allowed.contains(c))
}

fn too_many_added(s: Subject<'_>, allowed: &'static [&'static str]) -> Option<String> {
    let bad = s.bad(|c| added(c, allowed).next().is_some());
    let names: BTreeSet<&str> = s.containers().flat_map(|c| added(c, allowed)).collect();
    let say =
        || format!("{} must not include {} in securityContext.capabilities.add", named(&bad), quoted(names));
    (!bad.is_empty()).then(say)
}

fn capabilities(s: Subject<'_>) -> Option<Found> {
    too_many_added(s, DEFAULT_CAPABILITIES).map(|detail| ("non-default capabilities", detail))
}

fn host_namespaces(s: Subject<'_>) -> Option<Found> {
    let shared = ["hostIPC", "hostNetwork", "hostPID"].into_iter().filter(|f| flag(s.spec(), f));
    let shared: Vec<String> = shared.map(|f| format!("{f}=true")).collect();
    (!shared.is_empty()).then(|| ("host namespaces", shared.join(", ")))
}

fn host_paths(s: Subject<'_>) -> Option<Found> {
    let of_host = list(s.spec(), "volumes").iter().filter(|v| !sub(v, "hostPath").is_null());
    let names: Vec<&str> = of_host.map(|v| text(v, "name")).collect();
    let say = || format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names));
    (!names.is_empty()).then(|| ("hostPath volumes", say()))
}

fn host_ports(s: Subject<'_>) -> Option<Found> {
    fn ports(container: &Value) -> impl Iterator<Item = i64> {
        list(container, "ports").iter().filter_map(|p| p["hostPort"].as_i64()).filter(|p| *p != 0)
    }
    let bad = s.bad(|c| ports(c).next().is_some());
    let all: BTreeSet<String> = s.containers().flat_map(ports).map(|p| p.to_string()).collect();
    let say = || {
        let (uses, what) = (plural("uses", "use", bad.len()), plural("hostPort", "hostPorts", all.len()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        format!("{} {uses} {what} {}", named(&bad), all.join(", "))
    };
    (!bad.is_empty()).then(|| ("hostPort", say()))
}

fn probe_hosts(s: Subject<'_>) -> Option<Found> {
    if !s.version.reaches(34) {
        return None;
    }
    fn hosts(container: &Value) -> Vec<&str> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|p| sub(container, p));
        let hooks = ["postStart", "preStop"].map(|h| at(container, &["lifecycle", h]));
        let of = |handler| ["httpGet", "tcpSocket"].map(|kind| text(sub(handler, kind), "host"));
        probes.into_iter().chain(hooks).flat_map(of).filter(|h| !h.is_empty()).collect()
    }
    let bad: BTreeSet<&str> = s.bad(|c| !hosts(c).is_empty()).into_iter().collect();
    let bad: Vec<&str> = bad.into_iter().collect();
    let all: BTreeSet<&str> = s.containers().flat_map(hosts).collect();
    let say = || {
        let what = plural("probe or lifecycle host", "probe or lifecycle hosts", all.len());
        format!("{} {} {what} {}", named(&bad), plural("uses", "use", bad.len()), quoted(all))
    };
    (!bad.is_empty()).then(|| ("probe or lifecycle host", say()))
}

fn privileged(s: Subject<'_>) -> Option<Found> {
    let bad = s.bad(|c| flag(sub(c, "securityContext"), "privileged"));
    let say = || format!("{} must not set securityContext.privileged=true", named(&bad));
    (!bad.is_empty()).then(|| ("privileged", say()))
}

fn proc_mount(s: Subject<'_>) -> Option<Found> {
    if s.has_own_users() { None } else { proc_mount_restricted(s) }
}

fn proc_mount_restricted(s: Subject<'_>) -> Option<Found> {
    fn odd(container: &Value) -> Option<&str> {
        at(container, &["securityContext", "procMount"]).as_str().filter(|m| *m != "Default")
    }
    let bad = s.bad(|c| odd(c).is_some());
    let all: BTreeSet<&str> = s.containers().filter_map(odd).collect();
    let say = || format!("{} must not set securityContext.procMount to {}", named(&bad), quoted(all));
    (!bad.is_empty()).then(|| ("procMount", say()))
}

fn se_linux(s: Subject<'_>) -> Option<Found> {
    let newer = s.version.reaches(31);
    let allowed = |kind: &str| {
        matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (newer && kind == "container_engine_t")
    };
    let options = |owner| sub(owner, "seLinuxOptions");
    let wrong =
        |o: &Value| !allowed(text(o, "type")) || !text(o, "user").is_empty() || !text(o, "role").is_empty();
    let pod = wrong(options(s.context()));
    let bad = s.bad(|c| wrong(options(sub(c, "securityContext"))));
    let who = setters(pod, &bad)?;
    let all: Vec<&Value> = std::iter::once(options(s.context()))
        .chain(s.containers().map(|c| options(sub(c, "securityContext"))))
        .collect();
    let types: BTreeSet<&str> = all.iter().map(|o| text(o, "type")).filter(|t| !allowed(t)).collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(types)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|o| !text(o, field).is_empty()) {
            data.push(format!("{field} may not be set"));
        }
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
    Some(("seLinuxOptions", detail))
}

fn seccomp_type(owner: &Value) -> Option<&str> {
    let profile = sub(owner, "seccompProfile");
    (!profile.is_null()).then(|| text(profile, "type"))
}

fn odd_seccomp(owner: &Value) -> Option<&str> {
    seccomp_type(owner).filter(|t| !matches!(*t, "RuntimeDefault" | "Localhost"))
}

fn seccomp(s: Subject<'_>) -> Option<Found> {
    if !s.version.reaches(19) {
        return seccomp_annotations(s);
    }
    let bad = s.bad(|c| odd_seccomp(sub(c, "securityContext")).is_some());
    let pod = odd_seccomp(s.context());
    let who = setters(pod.is_some(), &bad)?;
    let of_containers = s.containers().filter_map(|c| odd_seccomp(sub(c, "securityContext")));
    let values: BTreeSet<&str> = pod.into_iter().chain(of_containers).collect();
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values));
    Some(("seccompProfile", detail))
}

fn seccomp_annotations(s: Subject<'_>) -> Option<Found> {
    let allowed = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let of_containers =
        s.containers().map(|c| format!("container.seccomp.security.alpha.kubernetes.io/{}", text(c, "name")));
    let keys = std::iter::once("seccomp.security.alpha.kubernetes.io/pod".to_owned()).chain(of_containers);
    let annotations = meta::annotations(s.pod)?;
    let wrong = |key: String| {
        let value = annotations.get(&key)?.as_str().filter(|v| !allowed(v))?;
        Some(format!("{key}={value:?}"))
    };
    let found: BTreeSet<String> = keys.filter_map(wrong).collect();
    let say = || {
        let all: Vec<&str> = found.iter().map(String::as_str).collect();
        format!("forbidden {} {}", plural("annotation", "annotations", found.len()), all.join(", "))
    };
    (!found.is_empty()).then(|| ("seccompProfile", say()))
}

const SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(s: Subject<'_>) -> Option<Found> {
    let allowed = |name: &str| SYSCTLS.iter().any(|(n, since)| *n == name && s.version.reaches(*since));
    let all = list(s.context(), "sysctls").iter().map(|c| text(c, "name"));
    let found: Vec<&str> = all.filter(|name| !allowed(name)).collect();
    (!found.is_empty()).then(|| ("forbidden sysctls", found.join(", ")))
}

fn host_process(s: Subject<'_>) -> Option<Found> {
    let wrong = |owner| at(owner, &["windowsOptions", "hostProcess"]) == true;
    let bad = s.bad(|c| wrong(sub(c, "securityContext")));
    let who = setters(wrong(s.context()), &bad)?;
    Some(("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true")))
}

fn privilege_escalation(s: Subject<'_>) -> Option<Found> {
    if s.is_windows() {
        return None;
    }
    let bad = s.bad(|c| at(c, &["securityContext", "allowPrivilegeEscalation"]) != false);
    let say = || format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&bad));
    (!bad.is_empty()).then(|| ("allowPrivilegeEscalation != false", say()))
}

fn capabilities_restricted(s: Subject<'_>) -> Option<Found> {
    if s.is_windows() {
        return None;
    }
    let drops_all = |c: &Value| {
        let dropped = at(c, &["securityContext", "capabilities", "drop"]).as_array();
        dropped.is_some_and(|d| d.iter().any(|c| c == "ALL"))
    };
    let keeping = s.bad(|c| !drops_all(c));
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    }
    details.extend(too_many_added(s, &["NET_BIND_SERVICE"]));
    (!details.is_empty()).then(|| ("unrestricted capabilities", details.join("; ")))
}

const FREE_VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volume_types(s: Subject<'_>) -> Option<Found> {
    fn kind(volume: &Value) -> &str {
        let mut kinds =
            volume.as_object().into_iter().flatten().filter(|(k, v)| *k != "name" && !v.is_null());
        kinds.next().map_or("unknown", |(kind, _)| kind.as_str())
    }
    let odd: Vec<&Value> =
        list(s.spec(), "volumes").iter().filter(|v| !FREE_VOLUMES.contains(&kind(v))).collect();
    let (names, types): (Vec<&str>, BTreeSet<&str>) =
        (odd.iter().map(|v| text(v, "name")).collect(), odd.iter().map(|v| kind(v)).collect());
    let say = || {
        let (volumes, uses) = (plural("volume", "volumes", names.len()), plural("uses", "use", names.len()));
        let what = plural("restricted volume type", "restricted volume types", types.len());
        format!("{volumes} {} {uses} {what} {}", quoted(&names), quoted(types))
    };
    (!names.is_empty()).then(|| ("restricted volume types", say()))
}

fn non_root(s: Subject<'_>) -> Option<Found> {
    if s.has_own_users() {
        return None;
    }
    let stated = |owner| sub(owner, "runAsNonRoot").as_bool();
    let pod = stated(s.context());
    let bad = s.bad(|c| stated(sub(c, "securityContext")) == Some(false));
    if let Some(who) = setters(pod == Some(false), &bad) {
        return Some((
            "runAsNonRoot != true",
            format!("{who} must not set securityContext.runAsNonRoot=false"),
        ));
    }
    let silent = s.bad(|c| stated(sub(c, "securityContext")).is_none() && pod != Some(true));
    let say = || format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent));
    (!silent.is_empty()).then(|| ("runAsNonRoot != true", say()))
}

fn user_zero(s: Subject<'_>) -> Option<Found> {
    if s.has_own_users() {
        return None;
    }
    let zero = |owner| sub(owner, "runAsUser").as_i64() == Some(0);
    let bad = s.bad(|c| zero(sub(c, "securityContext")));
    let who = setters(zero(s.context()), &bad)?;
    Some(("runAsUser=0", format!("{who} must not set runAsUser=0")))
}

fn seccomp_restricted(s: Subject<'_>) -> Option<Found> {
    if s.is_windows() {
        return None;
    }
    if let Some(found) = seccomp(s) {
        return Some(found);
    }
    let of_pod = seccomp_type(s.context()).is_some();
    let silent = s.bad(|c| seccomp_type(sub(c, "securityContext")).is_none() && !of_pod);
    let say = || {
        let rest = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
        format!("pod or {} {rest}", named(&silent))
    };
    (!silent.is_empty()).then(|| ("seccompProfile", say()))
}

#[cfg(test)]
mod tests;
