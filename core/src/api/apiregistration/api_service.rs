//! APIService: that a group's version is served, here or by a server elsewhere.

use crate::api::BuiltinOptions;
use crate::api::kit::checks::keep_other_half;
use crate::api::kit::columns::age_column;
use crate::api::kit::names::{label_1035, path_segment, port_number, subdomain};
use crate::api::kit::{
    ErrorSink, Path, column, default_int, describe, flag, get, int, list, name_column, names, object_mut,
    set, sub, text,
};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde_json::{Value, json};
use std::sync::Arc;

/// The descriptor of APIService.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        categories: names(&["api-extensions"]),
        status: true,
        strategy: Arc::new(ServiceRules),
        columns: vec![
            name_column(),
            column("Service", "string", "The Service that answers.", |o, _| {
                match get(sub(o, "spec"), "service") {
                    Some(service) => {
                        format!("{}/{}", text(service, "namespace"), text(service, "name")).into()
                    }
                    None => "Local".into(),
                }
            }),
            column("Available", "string", "Whether it answers.", |o, _| available(o).into()),
            age_column(),
        ],
        ..describe::<APIService>(Scope::Cluster)
    }
}

fn available(service: &Value) -> String {
    let conditions = list(sub(service, "status"), "conditions");
    match conditions.iter().find(|c| text(c, "type") == "Available") {
        Some(condition) if text(condition, "status") == "True" => "True".to_owned(),
        Some(condition) => format!("{} ({})", text(condition, "status"), text(condition, "reason")),
        None => "Unknown".to_owned(),
    }
}

struct ServiceRules;

impl Strategy for ServiceRules {
    fn default(&self, object: &mut Value) {
        if let Some(service) = object_mut(object, "spec").and_then(|spec| object_mut(spec, "service")) {
            default_int(service, "port", 443);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, cx: WriteContext<'_>) {
        let mut status = json!({});
        if get(sub(object, "spec"), "service").is_none() {
            status["conditions"] = json!([{
                "type": "Available", "status": "True", "reason": "Local", "message": "Local APIServices are always available",
                "lastTransitionTime": cx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}]);
        }
        set(object, "status", status);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        keep_other_half(object, old, cx);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let (spec, path) = (sub(object, "spec"), Path::Root.child("spec"));
        validate_names(object, spec, &path, &mut errors);
        for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let number = int(spec, field).unwrap_or(0);
            if !(1..=most).contains(&number) {
                let detail = format!("must be positive and less than {most}");
                errors.invalid(&path.child(field), number, &detail);
            }
        }
        let bundle = text(spec, "caBundle");
        let insecure = flag(spec, "insecureSkipTLSVerify");
        let at_insecure = path.child("insecureSkipTLSVerify");
        match get(spec, "service") {
            None => {
                if !bundle.is_empty() {
                    let shown = format!("{} bytes", bundle.len() / 4 * 3);
                    let detail = "local APIServices may not have a caBundle";
                    errors.invalid(&path.child("caBundle"), shown, detail);
                }
                if insecure {
                    let detail = "local APIServices may not have insecureSkipTLSVerify";
                    errors.invalid(&at_insecure, true, detail);
                }
            }
            Some(service) => {
                validate_service(service, &path.child("service"), &mut errors);
                if insecure && !bundle.is_empty() {
                    errors.invalid(&at_insecure, true, "may not be true if caBundle is present");
                }
            }
        }
        errors
    }

    fn validate_update(&self, object: &Value, _: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource != Some("status") {
            return self.validate(object);
        }
        let mut errors = ErrorList::new();
        let status = Path::Root.child("status");
        let path = status.child("conditions");
        for (i, condition) in list(sub(object, "status"), "conditions").iter().enumerate() {
            let value = text(condition, "status");
            if !matches!(value, "True" | "False" | "Unknown") {
                let known = ["False", "True", "Unknown"];
                errors.not_supported(&path.index(i).child("status"), value, &known);
            }
        }
        errors
    }
}

fn validate_names(object: &Value, spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let metadata = Path::Root.child("metadata");
    let name = text(sub(object, "metadata"), "name");
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let wanted = format!("{version}.{group}");
    let problems = path_segment(name);
    for problem in &problems {
        errors.invalid(&metadata.child("name"), name, problem);
    }
    if problems.is_empty() && name != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.invalid(&metadata.child("name"), name, &detail);
    }
    if group.is_empty() && version != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        errors.required(&path.child("group"), detail);
    }
    for problem in subdomain(group).iter().filter(|_| !group.is_empty()) {
        errors.invalid(&path.child("group"), group, problem);
    }
    for problem in label_1035(version) {
        errors.invalid(&path.child("version"), version, &problem);
    }
}

fn validate_service(service: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in ["namespace", "name"] {
        if text(service, field).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    let port = int(service, "port").unwrap_or(0);
    if let Some(problem) = port_number(port) {
        errors.invalid(&path.child("port"), port, &format!("port is not valid: {problem}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};

    #[test]
    fn services_are_refused_in_upstreams_words() {
        let check = |name: &str, spec: Value, wanted: &[&str]| {
            let mut object = json!({"metadata": {"name": name}, "spec": spec});
            ServiceRules.default(&mut object);
            assert_eq!(texts(&ServiceRules.validate(&object)), wanted);
        };
        let good = json!({"group": "g.io", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 15,
            "service": {"name": "s", "namespace": "n"}, "insecureSkipTLSVerify": true});
        check("v1.g.io", good.clone(), &[]);
        check(
            "other",
            good,
            &[
                "metadata.name: Invalid value: \"other\": must be `spec.version+\".\"+spec.group`: \"v1.g.io\"",
            ],
        );
        check(
            "v2.",
            json!({"version": "v2", "groupPriorityMinimum": 0, "versionPriority": 2000, "insecureSkipTLSVerify": true}),
            &[
                "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 2000: must be positive and less than 1000",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ],
        );
    }

    #[test]
    fn local_ones_are_available() {
        let mut object = json!({"metadata": {"name": "v1.g.io"}, "spec": {}});
        ServiceRules.prepare_for_create(&mut object, write(None));
        let columns = descriptor(&BuiltinOptions::default()).columns;
        assert_eq!(row(&columns, &object), json!(["v1.g.io", "Local", "True", "<unknown>"]));
        let odd = json!({"status": {"conditions": [{"type": "Available", "status": "Maybe"}]}});
        assert_eq!(ServiceRules.validate_update(&odd, &odd, write(Some("status"))).len(), 1);
    }
}
