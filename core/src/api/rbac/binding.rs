//! The rules and columns of role bindings.

use crate::ErrorList;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::{
    ErrorSink, Path, column, computed, default_text, list, list_mut, name_column, object_mut, same, sub, text,
};
use crate::resource::{PrinterColumn, Strategy, WriteContext};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Role", "string", "The role that is given.", |o, _| {
            let role = sub(o, "roleRef");
            format!("{}/{}", text(role, "kind"), text(role, "name")).into()
        }),
        age_column(),
        computed("Users", "string", "The users who have it.", 1, |o, _| subjects(o, "User").into()),
        computed("Groups", "string", "The groups that have it.", 1, |o, _| subjects(o, "Group").into()),
        computed("ServiceAccounts", "string", "The service accounts that have it.", 1, |o, _| {
            subjects(o, "ServiceAccount").into()
        }),
    ]
}

fn subjects(binding: &Value, kind: &str) -> String {
    let shown: Vec<String> = list(binding, "subjects")
        .iter()
        .filter(|s| text(s, "kind") == kind)
        .map(|s| match kind {
            "ServiceAccount" => format!("{}/{}", text(s, "namespace"), text(s, "name")),
            _ => text(s, "name").to_owned(),
        })
        .collect();
    shown.join(", ")
}

pub(super) struct BindingRules {
    pub(super) cluster: bool,
}

impl Strategy for BindingRules {
    fn default(&self, object: &mut Value) {
        if let Some(role) = object_mut(object, "roleRef") {
            default_text(role, "apiGroup", GROUP);
        }
        for subject in list_mut(object, "subjects") {
            if matches!(text(subject, "kind"), "User" | "Group") {
                default_text(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::PathSegment, &mut errors);
        self.validate_role(sub(object, "roleRef"), &mut errors);
        let path = Path::Root.child("subjects");
        for (i, subject) in list(object, "subjects").iter().enumerate() {
            self.validate_subject(subject, &path.index(i), &mut errors);
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = self.validate(object);
        let role = sub(object, "roleRef");
        if !same(role, sub(old, "roleRef")) {
            errors.invalid(&Path::Root.child("roleRef"), role.clone(), "cannot change roleRef");
        }
        errors
    }
}

impl BindingRules {
    fn validate_role(&self, role: &Value, errors: &mut ErrorList) {
        let path = Path::Root.child("roleRef");
        let group = text(role, "apiGroup");
        if group != GROUP {
            errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
        }
        let kinds: &[&str] = if self.cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
        let kind = text(role, "kind");
        if !kinds.contains(&kind) {
            errors.not_supported(&path.child("kind"), kind, kinds);
        }
        validate_reference(text(role, "name"), &path, errors);
    }

    fn validate_subject(&self, subject: &Value, path: &Path<'_>, errors: &mut ErrorList) {
        let (kind, name, group) = (text(subject, "kind"), text(subject, "name"), text(subject, "apiGroup"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        match kind {
            "ServiceAccount" => {
                for problem in NameRule::Subdomain.problems(name).iter().filter(|_| !name.is_empty()) {
                    errors.invalid(&path.child("name"), name, problem);
                }
                if !group.is_empty() {
                    errors.not_supported(&path.child("apiGroup"), group, &[""]);
                }
                if text(subject, "namespace").is_empty() && self.cluster {
                    errors.required(&path.child("namespace"), "");
                }
            }
            "User" | "Group" => {
                if group != GROUP {
                    errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
                }
            }
            other => errors.not_supported(&path.child("kind"), other, &["Group", "ServiceAccount", "User"]),
        }
    }
}

fn validate_reference(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    for problem in NameRule::PathSegment.problems(name) {
        errors.invalid(&path.child("name"), name, &problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bindings_are_defaulted_and_checked() {
        let mut binding = json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [
            {"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]});
        let rules = BindingRules { cluster: false };
        rules.default(&mut binding);
        assert_eq!(binding["subjects"][0]["apiGroup"], GROUP);
        assert!(binding["subjects"][1].get("apiGroup").is_none());
        assert_eq!(rules.validate(&binding), vec![]);
        assert_eq!(BindingRules { cluster: true }.validate(&binding).len(), 1);
        let mut changed = binding.clone();
        changed["roleRef"]["name"] = "q".into();
        let cx = WriteContext::new(None, jiff::Timestamp::UNIX_EPOCH);
        let errors = rules.validate_update(&changed, &binding, cx);
        assert!(errors[0].message.ends_with("cannot change roleRef"));
        assert_eq!(subjects(&binding, "ServiceAccount"), "n/s");
    }
}
