//! `pods/log`, `exec`, `attach` and `portforward`: calls that the pod's node agent answers.

use crate::admission::Operation;
use crate::handlers::{Call, read};
use crate::pipeline;
use kubewright_core::node_api::{ContainerRef, NodeApi};
use kubewright_core::{ApiError, ApiResponse, ResponseBody};
use serde_json::{Value, json};
use std::sync::Arc;

/// A pod with what a call to its node needs.
struct Found {
    pod: Value,
    target: ContainerRef,
}

async fn find(call: &Call) -> Result<Found, ApiError> {
    let entry = read::current(call, call.name()?).await?;
    let object = &entry.shape.object;
    let header = object.header();
    let target = ContainerRef {
        namespace: header.namespace.to_string(),
        pod: header.name.to_string(),
        uid: header.uid.to_string(),
        container: String::new(),
    };
    Ok(Found { pod: object.value()?, target })
}

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
}

/// Lets admission refuse the call.
async fn admitted(call: &Call, found: &Found, kind: &str) -> Result<(), ApiError> {
    let mut options = connect_options(call, kind);
    let request = pipeline::admission_request(call, Operation::Connect, &found.target.pod, None);
    pipeline::admit(call, &request, Some(&mut options)).await?;
    pipeline::admit_validate(call, &request, Some(&options)).await
}

/// The options of the call as their object, which is what admission sees of it.
fn connect_options(call: &Call, kind: &str) -> Value {
    let mut options = json!({"apiVersion": "v1", "kind": kind});
    if let Some(exec) = call.options.exec.as_deref() {
        for (name, set) in
            [("stdin", exec.stdin), ("stdout", exec.stdout), ("stderr", exec.stderr), ("tty", exec.tty)]
        {
            if set {
                options[name] = json!(true);
            }
        }
        if !exec.command.is_empty() {
            options["command"] = json!(exec.command);
        }
    }
    if let Some(container) = &call.options.container {
        options["container"] = json!(container);
    }
    if !call.options.ports.is_empty() {
        options["ports"] = json!(call.options.ports);
    }
    options
}

/// The container asked for, or the only one, as upstream chooses.
fn choose(pod: &Value, name: &str, asked: Option<&str>) -> Result<String, ApiError> {
    let (main, init) = (names(pod, "containers"), names(pod, "initContainers"));
    let ephemeral = names(pod, "ephemeralContainers");
    if let Some(asked) = asked.filter(|c| !c.is_empty()) {
        if main.contains(&asked) || init.contains(&asked) || ephemeral.contains(&asked) {
            return Ok(asked.to_owned());
        }
        return Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    match main.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {name}"))),
        many => {
            let mut why = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            );
            if !init.is_empty() {
                why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            if !ephemeral.is_empty() {
                why.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
            }
            Err(ApiError::bad_request(why))
        }
    }
}

fn host(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty())
}

fn agent(call: &Call, found: &Found) -> Result<Arc<dyn NodeApi>, ApiError> {
    let Some(node) = host(&found.pod) else {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", found.target.pod)));
    };
    call.server.nodes.get(node).ok_or_else(|| {
        ApiError::unavailable(format!("the agent of node {node:?} is not connected to this server"))
    })
}

pub(super) async fn log(call: Call) -> Result<ApiResponse, ApiError> {
    let mut found = find(&call).await?;
    found.target.container = choose(&found.pod, &found.target.pod, call.options.container.as_deref())?;
    if host(&found.pod).is_none() {
        // Upstream answers an empty log for a pod without a node.
        return Ok(ApiResponse::new(200, ResponseBody::Text(Box::pin(futures::stream::empty()))));
    }
    let agent = agent(&call, &found)?;
    let options = call.options.log.map(|o| *o).unwrap_or_default();
    Ok(ApiResponse::new(200, ResponseBody::Text(agent.logs(found.target, options).await?)))
}

fn over(found: &Found) -> Result<(), ApiError> {
    match found.pod["status"]["phase"].as_str() {
        Some(phase @ ("Succeeded" | "Failed")) => {
            let why =
                format!("cannot exec or attach to a container in a completed pod; current phase is {phase}");
            Err(ApiError::bad_request(why))
        }
        _ => Ok(()),
    }
}

fn check_streams(options: &kubewright_core::node_api::ExecOptions, exec: bool) -> Result<(), ApiError> {
    if exec && options.command.is_empty() {
        return Err(ApiError::bad_request("you must specify at least one command for the container"));
    }
    if !options.stdin && !options.stdout && !options.stderr {
        return Err(ApiError::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    Ok(())
}

pub(super) async fn exec(call: Call) -> Result<ApiResponse, ApiError> {
    let mut found = find(&call).await?;
    let options = call.options.exec.as_deref().cloned().unwrap_or_default();
    check_streams(&options, true)?;
    found.target.container = choose(&found.pod, &found.target.pod, call.options.container.as_deref())?;
    over(&found)?;
    admitted(&call, &found, "PodExecOptions").await?;
    let agent = agent(&call, &found)?;
    Ok(ApiResponse::new(200, ResponseBody::Exec(agent.exec(found.target, options).await?)))
}

pub(super) async fn attach(call: Call) -> Result<ApiResponse, ApiError> {
    let mut found = find(&call).await?;
    let options = call.options.exec.as_deref().cloned().unwrap_or_default();
    check_streams(&options, false)?;
    found.target.container = choose(&found.pod, &found.target.pod, call.options.container.as_deref())?;
    over(&found)?;
    admitted(&call, &found, "PodAttachOptions").await?;
    let agent = agent(&call, &found)?;
    Ok(ApiResponse::new(200, ResponseBody::Exec(agent.attach(found.target, options).await?)))
}

pub(super) async fn port_forward(call: Call) -> Result<ApiResponse, ApiError> {
    let found = find(&call).await?;
    admitted(&call, &found, "PodPortForwardOptions").await?;
    let agent = agent(&call, &found)?;
    let target = found.target;
    let forward = move |port: u16| {
        let (agent, target) = (agent.clone(), target.clone());
        let open: futures::future::BoxFuture<'static, _> =
            Box::pin(async move { agent.port_forward(target, port).await });
        open
    };
    Ok(ApiResponse::new(200, ResponseBody::PortForward(Arc::new(forward))))
}
