//! What expressions ask of an authorizer.

/// A check that an expression builds up, step by step: `authorizer.group("apps").resource("deployments").check("create")`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Check {
    /// How far it is built.
    pub(crate) stage: Stage,
    /// Namespace and name of a service account that is asked about instead of the request's user.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource; empty for resources.
    pub path: String,
    /// The API group.
    pub group: String,
    /// The plural name of the resource.
    pub resource: String,
    /// The subresource, if any.
    pub subresource: String,
    /// The namespace, if any.
    pub namespace: String,
    /// The object's name, if any.
    pub name: String,
    /// A field selector as text, if any.
    pub field_selector: String,
    /// A label selector as text, if any.
    pub label_selector: String,
    /// The verb: the API's, or HTTP's for a path.
    pub verb: String,
}

/// How far a check is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    #[default]
    Authorizer,
    Path,
    Group,
    Resource,
}

impl Check {
    /// The variable `authorizer.requestResource`: a check of the resource that a request is about.
    pub fn of_resource(group: &str, resource: &str, subresource: &str, namespace: &str, name: &str) -> Self {
        Check {
            stage: Stage::Resource,
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Check::default()
        }
    }

    /// Whether the check is about a path, not a resource.
    pub fn is_path(&self) -> bool {
        self.stage == Stage::Path
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Authorizer => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
        }
    }
}

/// What an authorizer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether the check is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong while asking.
    pub error: Option<String>,
}

/// Answers the checks of expressions.
///
/// Expressions run without waiting, and an authorizer may need to: one that has no answer at hand says so, the evaluation ends with
/// [`FaultKind::Pending`](super::FaultKind::Pending), and its caller asks, notes the answer and evaluates again. Upstream's price of a check allows two
/// in an expression, so an evaluation is repeated twice at most.
pub trait Authorizer {
    /// The answer, where it is known.
    fn answer(&self, check: &Check) -> Option<Answer>;
}
