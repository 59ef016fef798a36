//! PodTemplate: a template of pods kept for later use.

use super::pod::{default_template, validate_template_at, warnings_at};
use crate::api::BuiltinOptions;
use crate::api::kit::columns::{container_images, container_names, labels};
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::{Path, at, column, describe, name_column, object_mut, sub};
use crate::resource::{Scope, Strategy};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of PodTemplate.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        generation: true,
        strategy: Arc::new(PodTemplateRules),
        columns: vec![
            name_column(),
            column("Containers", "string", "The names of the containers.", |o, _| {
                container_names(at(o, &["template", "spec"])).into()
            }),
            column("Images", "string", "The images of the containers.", |o, _| {
                container_images(at(o, &["template", "spec"])).into()
            }),
            column("Pod Labels", "string", "The labels of the pods.", |o, _| {
                labels(at(o, &["template", "metadata"]), "labels").into()
            }),
        ],
        ..describe::<PodTemplate>(Scope::Namespaced)
    }
}

struct PodTemplateRules;

impl Strategy for PodTemplateRules {
    fn default(&self, object: &mut Value) {
        if let Some(template) = object_mut(object, "template") {
            default_template(template);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        validate_template_at(sub(object, "template"), &Path::Root.child("template"), &mut errors);
        errors
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings_at(sub(object, "template"), "template")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts};
    use serde_json::json;

    #[test]
    fn templates_are_defaulted_and_checked() {
        let mut object = json!({"metadata": {"name": "t"}, "template": {
            "metadata": {"labels": {"b": "2", "a": "1"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}});
        PodTemplateRules.default(&mut object);
        assert_eq!(object["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(texts(&PodTemplateRules.validate(&object)), Vec::<String>::new());
        let columns = descriptor(&BuiltinOptions::default()).columns;
        assert_eq!(row(&columns, &object), json!(["t", "c", "i:1", "a=1,b=2"]));
        object["template"]["spec"]["containers"][0]["name"] = "".into();
        assert_eq!(
            texts(&PodTemplateRules.validate(&object)),
            ["template.spec.containers[0].name: Required value"]
        );
    }
}
