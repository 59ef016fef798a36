//! Volumes of CSI drivers for pods of this node: stage once, publish for each pod, and undo both in the end.
//!
//! What was published is noted in files beside the target and the staging directory, so that it can be undone after a restart.

use super::CsiClient;
use super::port::{
    AccessMode, AccessType, Identity, Node, NodeCapability, NodePublish, NodeStage, Secrets, VolumeCapability,
};
use crate::{CsiMounter, CsiVolume, Error, Reason};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Beside a target: what is published there. Upstream's name.
const RECORD: &str = "vol_data.json";
/// Beside a staging directory: for which targets it is staged.
const USERS: &str = "users.json";

/// Held by whoever works on one volume of one pod.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// Publishes volumes through the drivers that were registered, by name.
#[derive(Default)]
pub struct CsiNodeMounter {
    drivers: Mutex<BTreeMap<String, Arc<dyn Node>>>,
    /// One call for a volume at a time.
    busy: Mutex<HashMap<(String, String), Turn>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    driver_name: String,
    volume_handle: String,
    /// Where it is staged; none where the driver does not stage.
    staging_dir: Option<PathBuf>,
}

impl CsiNodeMounter {
    /// Without any driver yet.
    pub fn new() -> Self {
        CsiNodeMounter::default()
    }

    /// Takes a driver in, in place of one of the same name.
    pub fn register(&self, name: impl Into<String>, driver: Arc<dyn Node>) {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), driver);
    }

    /// Takes the driver at a socket in, under the name that it gives; the name is returned.
    ///
    /// # Errors
    /// `Invalid` where it is no address of a socket; `NotReady` where nobody answers.
    ///
    /// # Cancel safety
    /// A dropped call registers nothing.
    pub async fn register_socket(&self, endpoint: &str) -> Result<String, Error> {
        let client = CsiClient::new(endpoint)?;
        let name = client.plugin_info().await?.name;
        if !client.probe().await? {
            return Err(Error::new(Reason::NotReady, format!("the CSI driver {name} is not ready")));
        }
        self.register(name.clone(), Arc::new(client));
        Ok(name)
    }

    /// Forgets a driver; what it published stays.
    pub fn unregister(&self, name: &str) {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The names of the drivers.
    pub fn drivers(&self) -> Vec<String> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn driver(&self, name: &str) -> Result<Arc<dyn Node>, Error> {
        let found = self.drivers.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        found.ok_or_else(|| {
            let words = format!("driver name {name} not found in the list of registered CSI drivers");
            Error::new(Reason::NotReady, words)
        })
    }

    fn turn(&self, driver: &str, volume: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for are forgotten.
        busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        busy.entry((driver.to_owned(), volume.to_owned())).or_default().clone()
    }

    async fn publish_volume(&self, volume: CsiVolume) -> Result<(), Error> {
        let driver = self.driver(&volume.driver)?;
        let turn = self.turn(&volume.driver, &volume.volume_handle);
        let _turn = turn.lock().await;
        let capability = capability(&volume)?;
        let secrets = secrets(&volume.secrets)?;
        let stages = !volume.ephemeral
            && driver.node_capabilities().await?.contains(&NodeCapability::StageUnstageVolume);
        let staging_path = stages.then(|| volume.staging_dir.clone());
        // Noted first: what is begun can be undone after a crash.
        let record = Record {
            driver_name: volume.driver.clone(),
            volume_handle: volume.volume_handle.clone(),
            staging_dir: staging_path.clone(),
        };
        save(&beside(&volume.target_dir, RECORD)?, &record)?;
        if let Some(staging) = &staging_path {
            let file = beside(staging, USERS)?;
            let mut users: BTreeSet<PathBuf> = load(&file)?.unwrap_or_default();
            users.insert(volume.target_dir.clone());
            save(&file, &users)?;
            fs::create_dir_all(staging).map_err(|error| Error::io("make", staging, &error))?;
            let request = NodeStage {
                volume_id: volume.volume_handle.clone(),
                publish_context: BTreeMap::new(),
                staging_path: staging.clone(),
                capability: capability.clone(),
                secrets: secrets.clone(),
                context: volume.attributes.clone(),
            };
            driver.stage(request).await?;
        }
        let request = NodePublish {
            volume_id: volume.volume_handle,
            publish_context: BTreeMap::new(),
            staging_path,
            target_path: volume.target_dir,
            capability,
            readonly: volume.read_only,
            secrets,
            context: volume.attributes,
        };
        driver.publish(request).await
    }

    async fn unpublish_volume(&self, target: PathBuf) -> Result<(), Error> {
        let file = beside(&target, RECORD)?;
        let Some(record) = load::<Record>(&file)? else { return Ok(()) };
        let driver = self.driver(&record.driver_name)?;
        let turn = self.turn(&record.driver_name, &record.volume_handle);
        let _turn = turn.lock().await;
        driver.unpublish(&record.volume_handle, &target).await?;
        if let Some(staging) = &record.staging_dir {
            self.leave_staging(driver.as_ref(), &record.volume_handle, staging, &target).await?;
        }
        remove(&file)
    }

    async fn leave_staging(
        &self,
        driver: &dyn Node,
        volume: &str,
        staging: &Path,
        target: &Path,
    ) -> Result<(), Error> {
        let file = beside(staging, USERS)?;
        let mut users: BTreeSet<PathBuf> = load(&file)?.unwrap_or_default();
        users.remove(target);
        if !users.is_empty() {
            return save(&file, &users);
        }
        driver.unstage(volume, staging).await?;
        match fs::remove_dir(staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", staging, &error))
            }
            _ => remove(&file),
        }
    }
}

impl std::fmt::Debug for CsiNodeMounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CsiNodeMounter({:?})", self.drivers())
    }
}

impl CsiMounter for CsiNodeMounter {
    fn publish(&self, volume: CsiVolume) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.publish_volume(volume))
    }

    fn unpublish(&self, target_dir: &Path) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.unpublish_volume(target_dir.to_owned()))
    }
}

fn capability(volume: &CsiVolume) -> Result<VolumeCapability, Error> {
    let has = |mode: &str| volume.access_modes.iter().any(|found| found == mode);
    let access_mode = if has("ReadWriteMany") {
        AccessMode::MultiNodeMultiWriter
    } else if has("ReadOnlyMany") && has("ReadWriteOnce") {
        AccessMode::MultiNodeSingleWriter
    } else if has("ReadOnlyMany") {
        AccessMode::MultiNodeReaderOnly
    } else if has("ReadWriteOncePod") {
        AccessMode::SingleNodeSingleWriter
    } else if has("ReadWriteOnce") || volume.access_modes.is_empty() {
        AccessMode::SingleNodeWriter
    } else {
        return Err(Error::invalid(format!("unknown access modes {:?}", volume.access_modes)));
    };
    let access_type = AccessType::Mount {
        fs_type: volume.fs_type.clone(),
        mount_flags: volume.mount_options.clone(),
        volume_mount_group: String::new(),
    };
    Ok(VolumeCapability { access_type, access_mode })
}

fn secrets(secrets: &BTreeMap<String, Vec<u8>>) -> Result<Secrets, Error> {
    let text = |(name, value): (&String, &Vec<u8>)| match String::from_utf8(value.clone()) {
        Ok(value) => Ok((name.clone(), value)),
        Err(_) => Err(Error::invalid(format!("the secret's value {name:?} is not UTF-8"))),
    };
    secrets.iter().map(text).collect::<Result<_, _>>().map(Secrets)
}

fn beside(path: &Path, name: &str) -> Result<PathBuf, Error> {
    let parent = path.parent().ok_or_else(|| Error::invalid(format!("the path {path:?} has no parent")))?;
    Ok(parent.join(name))
}

/// Writes a file whole or not at all.
fn save(file: &Path, value: &impl Serialize) -> Result<(), Error> {
    let io_error = |error: io::Error| Error::io("write", file, &error);
    let text = serde_json::to_vec(value).map_err(|error| io_error(error.into()))?;
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).map_err(io_error)?;
    }
    let half = file.with_extension("half");
    fs::write(&half, text).map_err(io_error)?;
    fs::rename(&half, file).map_err(io_error)
}

fn load<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, Error> {
    match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", file, &error)),
        Ok(text) => {
            let parsed =
                serde_json::from_slice(&text).map_err(|error| Error::io("read", file, &error.into()))?;
            Ok(Some(parsed))
        }
    }
}

fn remove(file: &Path) -> Result<(), Error> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", file, &error)),
        _ => Ok(()),
    }
}
