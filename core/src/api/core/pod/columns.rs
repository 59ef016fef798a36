//! How a pod looks in a table: the words that everybody greps for.

use crate::api::kit::columns::{age_column, or};
use crate::api::kit::duration::{human_duration, parse};
use crate::api::kit::{at, column, computed, flag, get, int, list, name_column, sub, text};
use crate::resource::PrinterColumn;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Pods that have come to their end are marked, so that clients may leave them out.
pub(super) fn row_conditions(pod: &Value) -> Vec<Value> {
    let (reason, message) = match text(sub(pod, "status"), "phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

pub(super) fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Ready", "string", "Ready containers of those there are.", |o, _| {
            let summary = Summary::of(o);
            format!("{}/{}", summary.ready, summary.total).into()
        }),
        column("Status", "string", "The state of the pod in one word.", |o, _| Summary::of(o).reason.into()),
        column("Restarts", "string", "How often containers were started again.", |o, now| {
            Summary::of(o).restarts(now).into()
        }),
        age_column(),
        computed("IP", "string", "The pod's address.", 1, |o, _| {
            let first = at(o, &["status", "podIPs"]).get(0).map_or("", |ip| text(ip, "ip"));
            or(or(first, text(sub(o, "status"), "podIP")), "<none>").into()
        }),
        computed("Node", "string", "Where the pod runs.", 1, |o, _| {
            or(text(sub(o, "spec"), "nodeName"), "<none>").into()
        }),
        computed("Nominated Node", "string", "Where room is being made for the pod.", 1, |o, _| {
            or(text(sub(o, "status"), "nominatedNodeName"), "<none>").into()
        }),
        computed(
            "Readiness Gates",
            "string",
            "Fulfilled conditions of those the pod waits for.",
            1,
            |o, _| readiness_gates(o).into(),
        ),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(sub(pod, "spec"), "readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let conditions = list(sub(pod, "status"), "conditions");
    let is_true = |gate: &&Value| {
        let kind = text(gate, "conditionType");
        conditions.iter().find(|c| text(c, "type") == kind).is_some_and(|c| text(c, "status") == "True")
    };
    format!("{}/{}", gates.iter().filter(is_true).count(), gates.len())
}

/// What the containers' states add up to.
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

/// Restarts of some containers and when the last of them ended.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += int(status, "restartCount").unwrap_or(0);
        self.last = self.last.max(parse(at(status, &["lastState", "terminated", "finishedAt"])));
    }
}

impl Summary {
    fn of(pod: &Value) -> Summary {
        let (spec, status) = (sub(pod, "spec"), sub(pod, "status"));
        let phase = text(status, "phase");
        let conditions = list(status, "conditions");
        let gated = conditions
            .iter()
            .any(|c| text(c, "type") == "PodScheduled" && text(c, "reason") == "SchedulingGated");
        let reason = if gated { "SchedulingGated" } else { or(text(status, "reason"), phase) };
        let sidecars = list(spec, "initContainers").iter().filter(|c| is_sidecar(c)).count();
        let mut summary = Summary {
            ready: 0,
            total: list(spec, "containers").len() + sidecars,
            reason: reason.to_owned(),
            restarts: 0,
            last_restart: None,
        };
        let (sidecar_restarts, initializing) = summary.read_init(spec, status);
        if !initializing || condition_true(conditions, "Initialized") {
            summary.restarts = sidecar_restarts.count;
            summary.last_restart = sidecar_restarts.last;
            summary.read_containers(status);
        }
        if get(sub(pod, "metadata"), "deletionTimestamp").is_some() {
            if text(status, "reason") == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Reads the init containers up to the first that has not done its part. Gives the restarts of those that stay, and whether one
    /// has not done its part.
    fn read_init(&mut self, spec: &Value, status: &Value) -> (Restarts, bool) {
        let (mut all, mut sidecars) = (Restarts::default(), Restarts::default());
        let wanted = list(spec, "initContainers");
        let mut initializing = false;
        for (i, container) in list(status, "initContainerStatuses").iter().enumerate() {
            all.add(container);
            let sidecar = wanted.iter().any(|c| text(c, "name") == text(container, "name") && is_sidecar(c));
            if sidecar {
                sidecars.add(container);
            }
            let state = sub(container, "state");
            let terminated = get(state, "terminated");
            let waiting = text(sub(state, "waiting"), "reason");
            if terminated.is_some_and(|t| int(t, "exitCode").unwrap_or(0) == 0) {
                continue;
            }
            if sidecar && flag(container, "started") {
                self.ready += usize::from(flag(container, "ready"));
                continue;
            }
            self.reason = match terminated {
                Some(terminated) => format!("Init:{}", ended(terminated)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{i}/{}", wanted.len()),
            };
            initializing = true;
            break;
        }
        self.restarts = all.count;
        self.last_restart = all.last;
        (sidecars, initializing)
    }

    fn read_containers(&mut self, status: &Value) {
        let mut restarts = Restarts { count: self.restarts, last: self.last_restart };
        let mut running = false;
        for container in list(status, "containerStatuses").iter().rev() {
            restarts.add(container);
            let state = sub(container, "state");
            let waiting = text(sub(state, "waiting"), "reason");
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(terminated) = get(state, "terminated") {
                self.reason = ended(terminated);
            } else if flag(container, "ready") && get(state, "running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        self.restarts = restarts.count;
        self.last_restart = restarts.last;
        if self.reason == "Completed" && running {
            let ready = condition_true(list(status, "conditions"), "Ready");
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn restarts(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(last) if self.restarts != 0 => {
                format!("{} ({} ago)", self.restarts, human_duration(last, now))
            }
            _ => self.restarts.to_string(),
        }
    }
}

/// Why a container ended, as far as it is told.
fn ended(terminated: &Value) -> String {
    match text(terminated, "reason") {
        "" => match int(terminated, "signal").unwrap_or(0) {
            0 => format!("ExitCode:{}", int(terminated, "exitCode").unwrap_or(0)),
            signal => format!("Signal:{signal}"),
        },
        reason => reason.to_owned(),
    }
}

fn condition_true(conditions: &[Value], kind: &str) -> bool {
    conditions.iter().any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

/// Whether an init container stays for the pod's life.
pub(super) fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pod: Value, ready: &str, status: &str, restarts: &str) {
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let summary = Summary::of(&pod);
        assert_eq!(format!("{}/{}", summary.ready, summary.total), ready, "{pod}");
        assert_eq!((summary.reason.as_str(), summary.restarts(now).as_str()), (status, restarts), "{pod}");
    }

    fn spec() -> Value {
        json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}, {"name": "j"}]})
    }

    #[test]
    fn ended_pods_are_marked() {
        let check = |phase: &str, wanted: &[&str]| {
            let all = row_conditions(&json!({"status": {"phase": phase}}));
            let reasons: Vec<&str> = all.iter().map(|c| c["reason"].as_str().unwrap()).collect();
            assert_eq!(reasons, wanted, "{phase}");
        };
        check("Succeeded", &["Succeeded"]);
        check("Failed", &["Failed"]);
        check("Running", &[]);
        check("", &[]);
    }

    #[test]
    fn running_pods_count_restarts() {
        check(
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": {"phase": "Running", "containerStatuses": [
                {"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
                    "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}},
                {"name": "b", "ready": true, "restartCount": 1, "state": {"running": {}}}]}}),
            "2/2",
            "Running",
            "3 (5m ago)",
        );
        check(json!({"spec": spec(), "status": {"phase": "Pending"}}), "0/2", "Pending", "0");
    }

    #[test]
    fn init_containers_go_first() {
        let with = |statuses: Value| json!({"spec": spec(), "status": {"phase": "Pending", "initContainerStatuses": statuses}});
        let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
        check(with(json!([done, {"name": "j", "state": {"running": {}}}])), "0/2", "Init:1/2", "0");
        check(
            with(json!([done, {"name": "j", "restartCount": 4, "state": {"terminated": {"exitCode": 3}}}])),
            "0/2",
            "Init:ExitCode:3",
            "4",
        );
        check(
            with(json!([{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}])),
            "0/2",
            "Init:Error",
            "0",
        );
        check(
            with(json!([{"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}])),
            "0/2",
            "Init:CrashLoopBackOff",
            "0",
        );
        check(
            with(json!([{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}])),
            "0/2",
            "Init:0/2",
            "0",
        );
    }

    #[test]
    fn sidecars_count_as_containers() {
        check(
            json!({
                "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
                "status": {"phase": "Running",
                    "initContainerStatuses": [
                        {"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
                    "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}]}}),
            "2/2",
            "Running",
            "1",
        );
    }

    #[test]
    fn ends_are_told() {
        let with = |state: Value, phase: &str| {
            json!({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": phase, "containerStatuses": [
                {"name": "a", "state": state}]}})
        };
        check(with(json!({"terminated": {"reason": "Completed"}}), "Succeeded"), "0/1", "Completed", "0");
        check(with(json!({"terminated": {"signal": 9}}), "Failed"), "0/1", "Signal:9", "0");
        check(
            with(json!({"waiting": {"reason": "ImagePullBackOff"}}), "Pending"),
            "0/1",
            "ImagePullBackOff",
            "0",
        );
        let mut going = with(json!({"running": {}}), "Running");
        going["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        check(going.clone(), "0/1", "Terminating", "0");
        going["status"]["reason"] = "NodeLost".into();
        check(going, "0/1", "Unknown", "0");
        check(
            json!({"status": {"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}}),
            "0/0",
            "SchedulingGated",
            "0",
        );
    }
}
