//! ResourceClaimTemplate: claims that are made anew for each pod.

use super::claims::{default_claim, validate_claim};
use crate::api::BuiltinOptions;
use crate::api::core::pod::validate_template_metadata;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::{immutable, validate_name};
use crate::api::kit::names::NameRule;
use crate::api::kit::{Path, describe, name_column, object_mut, sub};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of ResourceClaimTemplate.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        strategy: Arc::new(TemplateRules),
        columns: vec![name_column(), age_column()],
        ..describe::<ResourceClaimTemplate>(Scope::Namespaced)
    }
}

struct TemplateRules;

impl Strategy for TemplateRules {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object_mut(object, "spec").and_then(|spec| object_mut(spec, "spec")) {
            default_claim(spec);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let (spec, path) = (sub(object, "spec"), Path::Root.child("spec"));
        validate_template_metadata(sub(spec, "metadata"), &path.child("metadata"), &mut errors);
        validate_claim(sub(spec, "spec"), &path.child("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        immutable(sub(object, "spec"), sub(old, "spec"), &Path::Root.child("spec"), &mut errors);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{fields, write};
    use serde_json::json;

    #[test]
    fn templates_are_checked_and_stay() {
        let template = |class: &str| {
            let mut object = json!({"metadata": {"name": "t"}, "spec": {"metadata": {"labels": {"a": "b"}},
                "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": class}}]}}}});
            TemplateRules.default(&mut object);
            object
        };
        assert_eq!(fields(&TemplateRules.validate(&template("gpu"))), Vec::<String>::new());
        assert_eq!(
            fields(&TemplateRules.validate(&template(""))),
            ["spec.spec.devices.requests[0].exactly.deviceClassName"]
        );
        let errors = TemplateRules.validate_update(&template("a"), &template("b"), write(None));
        assert_eq!(fields(&errors), ["spec"]);
    }
}
