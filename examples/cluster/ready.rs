//! Waiting until all is ready, and telling what is not and why.

use crate::manifests::{Target, named};
use k8s_openapi::api::core::v1::Pod;
use kubewright::client::{Api, Client};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Waits until every object is ready; the error says what is not, and why.
pub(crate) async fn until_ready(client: &Client, objects: &[Value], limit: Duration) -> Result<(), String> {
    let target = Target::new(client);
    let start = Instant::now();
    loop {
        let mut waiting = Vec::new();
        for object in objects {
            let why = match target.get(object).await {
                Ok(now) => unready(&now),
                Err(why) => Some(why),
            };
            waiting.extend(why.map(|why| format!("  {}: {why}", named(object))));
        }
        if waiting.is_empty() {
            return Ok(());
        }
        if start.elapsed() > limit {
            // Pods of the workloads tell why; those that stand in the manifests have told already.
            let more = pods(client).await.into_iter().filter(|line| !waiting.contains(line));
            let more: Vec<String> = more.collect();
            waiting.extend(more);
            return Err(waiting.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Why an object is not ready yet.
fn unready(object: &Value) -> Option<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    match object["kind"].as_str().unwrap_or("") {
        "Deployment" | "ReplicaSet" => {
            let wanted = spec["replicas"].as_i64().unwrap_or(1);
            let ready = status["readyReplicas"].as_i64().unwrap_or(0);
            let seen = status["observedGeneration"] == object["metadata"]["generation"];
            let updated =
                object["kind"] != "Deployment" || status["updatedReplicas"].as_i64().unwrap_or(0) == wanted;
            (ready < wanted || !seen || !updated).then(|| format!("{ready} of {wanted} pods are ready"))
        }
        "Pod" => {
            let phase = status["phase"].as_str().unwrap_or("");
            let ready = condition(status, "Ready") == Some("True");
            (phase != "Succeeded" && !ready).then(|| format!("it is {phase}: {}", reasons(status)))
        }
        "CustomResourceDefinition" => {
            (condition(status, "Established") != Some("True")).then(|| "not established".to_owned())
        }
        _ => None,
    }
}

fn condition<'a>(status: &'a Value, name: &str) -> Option<&'a str> {
    let conditions = status["conditions"].as_array()?;
    conditions.iter().find(|c| c["type"] == name)?["status"].as_str()
}

/// What the containers and conditions of a pod complain of, each thing once.
fn reasons(status: &Value) -> String {
    let containers = ["initContainerStatuses", "containerStatuses"].map(|k| status[k].as_array().cloned());
    let waiting = containers.into_iter().flatten().flatten().filter_map(|c| {
        let (waiting, ended) = (&c["state"]["waiting"], &c["state"]["terminated"]);
        let state = if waiting.is_null() { ended } else { waiting };
        Some(format!("{} {}", state["reason"].as_str()?, state["message"].as_str().unwrap_or("")))
    });
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let unmet = conditions
        .iter()
        .filter(|c| c["status"] == "False")
        .filter_map(|c| c["message"].as_str().map(str::to_owned));
    let mut told: Vec<String> = waiting.chain(unmet).collect();
    told.dedup();
    told.join("; ")
}

/// A line for each pod that is not ready.
async fn pods(client: &Client) -> Vec<String> {
    let Ok(list) = Api::<Pod>::all(client.clone()).list(Default::default()).await else { return Vec::new() };
    let pods = list.items.iter().filter_map(|pod| serde_json::to_value(&**pod).ok());
    pods.filter_map(|pod| Some(format!("  {}: {}", named(&pod), unready(&pod)?))).collect()
}
