//! The plane under load: the API server without controllers, in a process of its own.

use crate::Failed;
use kubewright::store::{MemoryStore, RedbStore};
use kubewright::{Builder, ControlPlane, Https, bundles, parts};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A running plane; ends when it is dropped.
pub(crate) struct Plane {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) process: u32,
    _child: Child,
    _folder: tempfile::TempDir,
}

/// Starts this program again as the server.
pub(crate) async fn start(store: &str) -> Result<Plane, Failed> {
    let folder = tempfile::tempdir()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--store", store, "--serve"])
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let process = child.id().ok_or("the plane ended at once")?;
    let output = child.stdout.take().ok_or("the plane has no output")?;
    let mut line = String::new();
    if BufReader::new(output).read_line(&mut line).await? == 0 {
        return Err("the plane did not start".into());
    }
    Ok(Plane { kubeconfig: PathBuf::from(line.trim()), process, _child: child, _folder: folder })
}

/// Serves until the standard input ends.
pub(crate) async fn serve(store: &str, folder: &Path) -> Result<(), Failed> {
    let builder = match store {
        "memory" => ControlPlane::builder().with(parts::store(MemoryStore::new())),
        "redb" => ControlPlane::builder().with(parts::store(RedbStore::open(folder.join("store.redb"))?)),
        #[cfg(feature = "sled")]
        "sled" => {
            let store = kubewright::store::SledStore::open(folder.join("store.sled"))?;
            ControlPlane::builder().with(parts::store(store))
        }
        #[cfg(feature = "etcd")]
        url if url.starts_with("http") => {
            let options = kubewright::store::EtcdOptions::new([url.to_owned()]);
            let store = kubewright::store::EtcdStore::connect(options).await?;
            ControlPlane::builder().with(parts::store(store))
        }
        other => return Err(format!("no such store, or built without it: {other}").into()),
    };
    let plane = server(builder).build()?.start().await?;
    let kubeconfig = folder.join("kubeconfig");
    plane.admin_kubeconfig()?.ok_or("the plane has no address")?.write(&kubeconfig)?;
    println!("{}", kubeconfig.display());
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    plane.shutdown().await?;
    Ok(())
}

fn server(builder: Builder) -> Builder {
    builder.with(bundles::kinds()).with(Https::on(([127, 0, 0, 1], 0).into()))
}
