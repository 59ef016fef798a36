//! VolumeAttachment: that a volume is to be attached to a node, and whether it is.

use super::csi_node::validate_driver_name;
use crate::api::BuiltinOptions;
use crate::api::core::persistent_volume::validate_access_modes;
use crate::api::kit::checks::{drop_status, keep_other_half, optional_name, required};
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::{immutable, validate_name};
use crate::api::kit::names::NameRule;
use crate::api::kit::{ErrorSink, Path, column, describe, entries, flag, get, int, name_column, sub, text};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::Value;
use std::sync::Arc;

const METADATA_BYTES_MAX: usize = 256 * 1024;
const MESSAGE_BYTES_MAX: usize = 1024;
/// What a volume without an object of its own may not say.
const NOT_INLINE: [&str; 4] = ["claimRef", "capacity", "storageClassName", "volumeMode"];

/// The descriptor of VolumeAttachment.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        status: true,
        strategy: Arc::new(AttachmentRules),
        columns: columns(),
        ..describe::<VolumeAttachment>(Scope::Cluster)
    }
}

fn columns() -> Vec<PrinterColumn> {
    let mut attacher = column("Attacher", "string", "The driver that attaches.", |o, _| {
        text(sub(o, "spec"), "attacher").into()
    });
    attacher.format = "name".to_owned();
    vec![
        name_column(),
        attacher,
        column("PV", "string", "The volume.", |o, _| {
            text(sub(sub(o, "spec"), "source"), "persistentVolumeName").into()
        }),
        column("Node", "string", "The node.", |o, _| text(sub(o, "spec"), "nodeName").into()),
        column("Attached", "boolean", "Whether it is attached.", |o, _| {
            flag(sub(o, "status"), "attached").into()
        }),
        age_column(),
    ]
}

struct AttachmentRules;

impl Strategy for AttachmentRules {
    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        drop_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        keep_other_half(object, old, cx);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let (spec, path) = (sub(object, "spec"), Path::Root.child("spec"));
        validate_driver_name(text(spec, "attacher"), &path.child("attacher"), &mut errors);
        validate_source(sub(spec, "source"), &path.child("source"), &mut errors);
        let node = text(spec, "nodeName");
        for problem in NameRule::Subdomain.problems(node) {
            errors.invalid(&path.child("nodeName"), node, &problem);
        }
        validate_status(sub(object, "status"), &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = self.validate(object);
        immutable(sub(object, "spec"), sub(old, "spec"), &Path::Root.child("spec"), &mut errors);
        errors
    }
}

fn validate_source(source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (get(source, "inlineVolumeSpec"), get(source, "persistentVolumeName")) {
        (None, None) => errors.required(path, ONE),
        (Some(_), Some(_)) => errors.forbidden(path, ONE),
        (None, Some(name)) if name == "" => {
            let detail = "must specify non empty persistentVolumeName";
            errors.required(&path.child("persistentVolumeName"), detail);
        }
        (None, Some(_)) => {
            optional_name(source, "persistentVolumeName", NameRule::Subdomain, path, errors);
        }
        (Some(spec), None) => validate_inline(spec, &path.child("inlineVolumeSpec"), errors),
    }
}

fn validate_inline(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in NOT_INLINE.iter().filter(|field| get(spec, field).is_some()) {
        errors.forbidden(&path.child(field), "may not be specified in the context of inline volumes");
    }
    validate_access_modes(spec, path, errors);
    match get(spec, "csi") {
        None => errors.required(&path.child("csi"), "has to be specified in the context of inline volumes"),
        Some(csi) => required(csi, &["driver", "volumeHandle"], &path.child("csi"), errors),
    }
}

fn validate_status(status: &Value, errors: &mut ErrorList) {
    let path = Path::Root.child("status");
    let bytes: usize = entries(status, "attachmentMetadata")
        .map(|(key, value)| key.len() + value.as_str().unwrap_or("").len())
        .sum();
    if bytes > METADATA_BYTES_MAX {
        errors.too_long(&path.child("attachmentMetadata"), METADATA_BYTES_MAX);
    }
    for field in ["attachError", "detachError"] {
        let at = path.child(field);
        let error = sub(status, field);
        if text(error, "message").len() > MESSAGE_BYTES_MAX {
            errors.too_long(&at.child("message"), MESSAGE_BYTES_MAX);
        }
        if let Some(code) = int(error, "errorCode").filter(|code| *code < 0) {
            errors.invalid(&at.child("errorCode"), code, "must be between 0 and 2147483647, inclusive");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    #[test]
    fn attachments_are_checked_and_stay() {
        let attachment = |source: Value| json!({"metadata": {"name": "a"}, "spec": {"attacher": "d.example.com", "nodeName": "n", "source": source}});
        let check = |source: Value, wanted: &[&str]| {
            assert_eq!(texts(&AttachmentRules.validate(&attachment(source))), wanted);
        };
        check(json!({"persistentVolumeName": "v"}), &[]);
        check(
            json!({}),
            &[
                "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            ],
        );
        check(
            json!({"inlineVolumeSpec": {"capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"], "csi": {"driver": "d"}}}),
            &[
                "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
                "spec.source.inlineVolumeSpec.csi.volumeHandle: Required value",
            ],
        );
        let old = attachment(json!({"persistentVolumeName": "v"}));
        let new = attachment(json!({"persistentVolumeName": "w"}));
        assert_eq!(AttachmentRules.validate_update(&new, &old, write(None)).len(), 1);
        let mut failed = old.clone();
        failed["status"] = json!({"attachError": {"errorCode": -1}});
        assert_eq!(AttachmentRules.validate_update(&failed, &old, write(Some("status"))).len(), 1);
        assert_eq!(row(&columns(), &old), json!(["a", "d.example.com", "v", "n", false, "<unknown>"]));
    }
}
