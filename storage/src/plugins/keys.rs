//! How `items`, modes and optional keys choose files: shared by configMap, secret and projected.

use crate::{Error, FileProjection, Payload, Reason};
use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Secret};
use std::collections::BTreeMap;

/// The mode of a file when nobody says otherwise.
pub(super) const DEFAULT_MODE: i32 = 0o644;

/// Chooses files out of an object's keys.
pub(super) fn choose(
    what: &str,
    data: &BTreeMap<String, Vec<u8>>,
    items: Option<&Vec<KeyToPath>>,
    default_mode: i32,
    optional: bool,
) -> Result<Payload, Error> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(data
            .iter()
            .map(|(k, v)| (k.clone(), FileProjection { data: v.clone(), mode: mode(default_mode) }))
            .collect());
    };
    let mut files = Payload::new();
    for item in items {
        let Some(value) = data.get(&item.key) else {
            if optional {
                continue;
            }
            return Err(Error::new(
                Reason::NotFound,
                format!("references non-existent {what} key: {}", item.key),
            ));
        };
        let mode = mode(item.mode.unwrap_or(default_mode));
        files.insert(item.path.clone(), FileProjection { data: value.clone(), mode });
    }
    Ok(files)
}

/// Permission bits out of the API's number.
pub(super) fn mode(bits: i32) -> u32 {
    u32::try_from(bits).unwrap_or(0o644) & 0o7777
}

/// The files of a ConfigMap, text and binary.
pub(super) fn of_config_map(object: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = object.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = object.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    text.chain(binary).collect()
}

/// The files of a Secret.
pub(super) fn of_secret(object: &Secret) -> BTreeMap<String, Vec<u8>> {
    object.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect()
}
