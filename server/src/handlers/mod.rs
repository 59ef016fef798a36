//! What the server does for each verb.

mod create;
pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod patch;
pub(crate) mod read;
pub(crate) mod update;

use crate::admission::policy;
use crate::crd;
use crate::kinds::Served;
use crate::server::{Shared, method_not_allowed};
use jiff::Timestamp;
use kubewright_core::passage::Passage;
use kubewright_core::{
    ApiError, ApiRequest, ApiResponse, Notes, Options, Representation, RequestBody, Target, UserInfo, Verb,
};
use serde_json::Value;
use smol_str::SmolStr;
use std::sync::Arc;

/// One request for a stored resource.
pub(crate) struct Call {
    pub(crate) server: Arc<Shared>,
    pub(crate) kind: Arc<Served>,
    pub(crate) verb: Verb,
    /// Empty for a cluster-scoped kind, and for all namespaces.
    pub(crate) namespace: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    pub(crate) options: Options,
    pub(crate) user: Arc<UserInfo>,
    pub(crate) user_agent: SmolStr,
    pub(crate) representation: Representation,
    pub(crate) include_object: Option<String>,
    pub(crate) body: RequestBody,
    /// Warnings and audit annotations.
    pub(crate) notes: Notes,
    /// The request as it came over HTTP, where it may be passed on.
    pub(crate) passage: Option<Arc<Passage>>,
    /// The time of the request.
    pub(crate) now: Timestamp,
}

impl Call {
    pub(crate) fn new(server: Arc<Shared>, kind: Arc<Served>, request: ApiRequest) -> Result<Self, ApiError> {
        let Target::Resource { namespace, name, subresource, .. } = request.target else {
            return Err(ApiError::no_such_path());
        };
        let namespace = namespace.filter(|n| !n.is_empty());
        if namespace.is_some() && !kind.descriptor.namespaced() {
            return Err(ApiError::no_such_path());
        }
        let across = matches!(request.verb, Verb::List | Verb::Watch);
        if kind.descriptor.namespaced() && namespace.is_none() && !across {
            return Err(method_not_allowed());
        }
        let now = server.clock.now();
        Ok(Call {
            server,
            kind,
            verb: request.verb,
            namespace: namespace.unwrap_or_default(),
            name: name.filter(|n| !n.is_empty()),
            subresource: subresource.filter(|s| !s.is_empty()),
            options: request.options,
            user: request.user,
            user_agent: request.user_agent,
            representation: request.representation,
            include_object: request.include_object,
            body: request.body,
            notes: request.notes,
            passage: request.passage,
            now,
        })
    }

    /// The same request about another object, without its body; the caller sets the kind.
    pub(crate) fn for_object(&self, name: &str) -> Call {
        Call {
            server: self.server.clone(),
            kind: self.kind.clone(),
            verb: self.verb,
            namespace: self.namespace.clone(),
            name: Some(name.to_owned()),
            subresource: None,
            options: Options { dry_run: self.options.dry_run, ..Options::default() },
            user: self.user.clone(),
            user_agent: self.user_agent.clone(),
            representation: Representation::Object,
            include_object: None,
            body: RequestBody::Empty,
            notes: self.notes.clone(),
            passage: None,
            now: self.now,
        }
    }

    /// The name in the path.
    pub(crate) fn name(&self) -> Result<&str, ApiError> {
        self.name.as_deref().ok_or_else(method_not_allowed)
    }

    /// 404 for the object named.
    pub(crate) fn not_found(&self) -> ApiError {
        self.kind.not_found(self.name.as_deref().unwrap_or(""))
    }
}

/// Answers a request. What writes or is rare is boxed, so that a plain read does not carry room for it.
pub(crate) async fn handle(call: Call) -> Result<ApiResponse, ApiError> {
    if let Some(warning) = call.kind.deprecated {
        call.notes.warn(warning);
    }
    if let Some(subresource) = call.subresource.clone() {
        return Box::pin(crate::subresources::handle(call, &subresource)).await;
    }
    match (call.verb, call.name.is_some()) {
        (Verb::Get, true) => read::get(call).await,
        (Verb::List, false) | (Verb::Get, false) => Box::pin(list::list(call)).await,
        (Verb::Watch, _) => Box::pin(crate::watch::watch(call)).await,
        (Verb::Create, false) => Box::pin(create::create(call)).await,
        (Verb::Update, true) => Box::pin(update::replace(call)).await,
        (Verb::Patch, true) => Box::pin(patch::patch(call, None)).await,
        (Verb::Delete, true) => Box::pin(delete::delete(call)).await,
        (Verb::DeleteCollection, false) | (Verb::Delete, false) => {
            Box::pin(delete::delete_collection(call)).await
        }
        _ => Err(method_not_allowed()),
    }
}

/// Works out what the server itself says of an object that is about to be written, for the kinds of which it says something.
fn settle(call: &Call, subresource: Option<&str>, object: &mut Value, created: bool) -> Result<(), ApiError> {
    let kind = &call.kind.descriptor;
    if crd::is_definition(&kind.group, &kind.plural) {
        crd::settle(call, object, created)?;
    }
    if subresource.is_none() && policy::is_checked(&kind.group, &kind.plural) {
        policy::settle(&call.server.reader, object);
    }
    Ok(())
}
