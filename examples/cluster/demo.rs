//! The demo: a Deployment of three web servers, the ConfigMap that they show, and a Service in front.

use crate::page;
use k8s_openapi::api::core::v1::Service;
use kubewright::client::{Api, Client};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The image that each node makes of this program.
pub(crate) const IMAGE: &str = "kubewright.local/demo:1";
const PORT: u16 = 8080;

/// The demo's objects.
pub(crate) fn objects() -> Vec<Value> {
    let labels = json!({"app": "web"});
    let container = json!({
        "name": "web",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": [page::ROLE],
        "ports": [{"name": "http", "containerPort": PORT}],
        "env": [
            {"name": "PORT", "value": PORT.to_string()},
            {"name": "PAGE", "value": "/page/index.txt"},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}},
        "volumeMounts": [{"name": "page", "mountPath": "/page"}],
    });
    vec![
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "page", "namespace": "default"},
            "data": {"index.txt": "Hello"}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 5, "containers": [container],
                    "volumes": [{"name": "page", "configMap": {"name": "page"}}]}}}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]}}),
    ]
}

/// Calls the Service through its cluster IP until three different pods have answered.
pub(crate) async fn call(client: &Client) -> Result<(), String> {
    let services = Api::<Service>::namespaced(client.clone(), "default");
    let service = services.get("web").await.map_err(|e| e.to_string())?;
    let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.clone()).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut last = String::new();
    for _ in 0..100 {
        match ask(&ip).await {
            Ok(answer) => {
                if seen.insert(answer.clone()) {
                    println!("http://{ip}:{PORT}/ says: {answer}");
                }
            }
            Err(e) => last = e.to_string(),
        }
        if seen.len() == 3 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("only {} of 3 pods answered on http://{ip}:{PORT}/ {last}", seen.len()))
}

async fn ask(ip: &str) -> std::io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(format!("{ip}:{PORT}")).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text.rsplit("\r\n").next().unwrap_or("").trim().to_owned())
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await?
}
