//! A container runtime behind a CRI socket, and the demo's image in it.

use crate::demo;
use kubewright::runtime::images::ImageBuilder;
use kubewright::runtime::{ContainerRuntime, CriClient, ImageService};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Connects to a runtime that answers.
pub(crate) async fn connect(socket: &str) -> Result<CriClient, String> {
    let socket = if socket.contains("://") { socket.to_owned() } else { format!("unix://{socket}") };
    let runtime = CriClient::connect(&socket).await.map_err(|e| e.to_string())?;
    runtime.version().await.map_err(|e| e.to_string())?;
    Ok(runtime)
}

/// Brings the demo's image into the runtime. CRI has no call for that; containerd's own tool has one.
pub(crate) async fn bring(
    runtime: &CriClient,
    image: ImageBuilder,
    socket: &str,
    folder: &Path,
) -> Result<(), String> {
    let folder = folder.join("demo-image");
    let socket = socket.trim_start_matches("unix://").to_owned();
    let import = move || {
        let imported = import(&image, &socket, &folder);
        let _ = std::fs::remove_dir_all(&folder);
        imported
    };
    tokio::task::spawn_blocking(import).await.map_err(|e| e.to_string())??;
    match runtime.image_status(demo::IMAGE).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!("the runtime does not find {} after its import", demo::IMAGE)),
        Err(e) => Err(e.to_string()),
    }
}

fn import(image: &ImageBuilder, socket: &str, folder: &Path) -> Result<(), String> {
    let told = |e: std::io::Error| format!("{}: {e}", folder.display());
    let layout = folder.join("layout");
    image.write_layout(&layout).map_err(|e| e.to_string())?;
    let index = layout.join("index.json");
    let mut json: Value =
        serde_json::from_slice(&std::fs::read(&index).map_err(told)?).map_err(|e| e.to_string())?;
    json["manifests"][0]["annotations"] = json!({"io.containerd.image.name": demo::IMAGE});
    std::fs::write(&index, json.to_string()).map_err(told)?;
    let archive = folder.join("image.tar");
    let mut writer = tar::Builder::new(std::fs::File::create(&archive).map_err(told)?);
    writer.append_dir_all(".", &layout).and_then(|()| writer.into_inner()).map_err(told)?;
    let ctr = Command::new("ctr")
        .args(["--address", socket, "--namespace", "k8s.io", "images", "import"])
        .arg(&archive)
        .output();
    let hint = "use --manifest with images that the runtime has or can pull";
    let output =
        ctr.map_err(|e| format!("`ctr`, which imports images into containerd, can't be run ({e}); {hint}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
    Err(format!("`ctr images import` failed: {words}; {hint}"))
}
