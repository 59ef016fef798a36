//! The middle seam: a request to the API and its response, free of HTTP.
//!
//! The API server is a service over these types; HTTP is one codec at each end, an in-process client holds the same service.

use crate::node_api::{ExecOptions, LogOptions};
use crate::object::{ApiObject, WatchEvent};
use crate::passage::{Passage, Passed};
use crate::streams::{ExecSession, PortForwardSession};
use crate::{ApiError, Notes, UserInfo};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::Value;
use smol_str::SmolStr;
use std::fmt;
use std::sync::Arc;

/// What a request does, under the names that authorization uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Reads one object.
    Get,
    /// Reads a collection.
    List,
    /// Follows a collection (or one object by a field selector on its name).
    Watch,
    /// Creates an object.
    Create,
    /// Replaces an object.
    Update,
    /// Patches an object; the body's content type says how.
    Patch,
    /// Deletes an object.
    Delete,
    /// Deletes what a list would give.
    DeleteCollection,
}

impl Verb {
    /// The name in authorization rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

/// Group, version and plural of a resource; the group is empty for core.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionResource {
    /// API group.
    pub group: SmolStr,
    /// Version.
    pub version: SmolStr,
    /// Plural name.
    pub resource: SmolStr,
}

impl GroupVersionResource {
    /// From its three parts.
    pub fn new(group: impl Into<SmolStr>, version: impl Into<SmolStr>, resource: impl Into<SmolStr>) -> Self {
        GroupVersionResource { group: group.into(), version: version.into(), resource: resource.into() }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// Group, version and kind; the group is empty for core.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// API group.
    pub group: SmolStr,
    /// Version.
    pub version: SmolStr,
    /// Kind, `Pod`.
    pub kind: SmolStr,
}

impl GroupVersionKind {
    /// From its three parts.
    pub fn new(group: impl Into<SmolStr>, version: impl Into<SmolStr>, kind: impl Into<SmolStr>) -> Self {
        GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        GroupVersionResource::new(self.group.clone(), self.version.clone(), "").api_version()
    }
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An object or a collection.
    Resource {
        /// Which resource.
        resource: GroupVersionResource,
        /// The namespace; `None` for cluster scope and for all namespaces.
        namespace: Option<String>,
        /// The object's name; `None` for a collection.
        name: Option<String>,
        /// `status`, `scale`, `log`, ...
        subresource: Option<String>,
    },
    /// A path that is no resource: discovery, OpenAPI, version, health, metrics. The query string, where there is one, stays
    /// behind a `?` (`/readyz?verbose`).
    Path(String),
}

/// Query parameters, parsed. Times are seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// `labelSelector`, unparsed.
    pub label_selector: Option<String>,
    /// `fieldSelector`, unparsed.
    pub field_selector: Option<String>,
    /// `limit` of a list; `None` or 0 means all.
    pub limit: Option<u64>,
    /// `continue` token of a list.
    pub continue_token: Option<String>,
    /// `resourceVersion` as given.
    pub resource_version: Option<String>,
    /// `resourceVersionMatch`: `Exact` or `NotOlderThan`.
    pub resource_version_match: Option<String>,
    /// `timeoutSeconds` of a list or watch.
    pub timeout_seconds: Option<u64>,
    /// `allowWatchBookmarks`.
    pub allow_watch_bookmarks: bool,
    /// `sendInitialEvents` of a watch.
    pub send_initial_events: Option<bool>,
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `fieldManager`.
    pub field_manager: Option<String>,
    /// `fieldValidation`: `Ignore`, `Warn` or `Strict`.
    pub field_validation: Option<String>,
    /// `force` of an apply.
    pub force: Option<bool>,
    /// `gracePeriodSeconds` of a delete, where given as a query parameter.
    pub grace_period_seconds: Option<i64>,
    /// `propagationPolicy` of a delete, where given as a query parameter.
    pub propagation_policy: Option<String>,
    /// `orphanDependents` of a delete, where given as a query parameter.
    pub orphan_dependents: Option<bool>,
    /// Options of pods/log.
    pub log: Option<Box<LogOptions>>,
    /// Options of pods/exec and pods/attach.
    pub exec: Option<Box<ExecOptions>>,
    /// `container` of pods/log, exec and attach.
    pub container: Option<String>,
    /// `ports` of pods/portforward (a WebSocket codec without the SPDY tunnel needs them up front).
    pub ports: Vec<u16>,
}

/// The representation asked for by `Accept`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Representation {
    /// The object itself.
    #[default]
    Object,
    /// `as=Table` of meta.k8s.io/v1.
    Table,
    /// `as=PartialObjectMetadata` or `...List` of meta.k8s.io/v1.
    PartialObjectMetadata,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/json-patch+json`, RFC 6902.
    JsonPatch,
    /// `application/merge-patch+json`, RFC 7386.
    MergePatch,
    /// `application/strategic-merge-patch+json`.
    StrategicMergePatch,
    /// `application/apply-patch+yaml`.
    ApplyPatch,
}

/// The body of a request.
#[derive(Clone, Debug, Default)]
pub enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// As received.
    Bytes {
        /// How it is written.
        content_type: ContentType,
        /// The bytes.
        bytes: Bytes,
    },
    /// Already parsed, from a caller in the same process.
    Value {
        /// [`ContentType::Json`] for an object, or the kind of patch.
        content_type: ContentType,
        /// The document.
        value: Value,
    },
}

/// A request to the API server.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    /// What to do.
    pub verb: Verb,
    /// With what.
    pub target: Target,
    /// How.
    pub options: Options,
    /// Who asks; authentication fills it in.
    pub user: Arc<UserInfo>,
    /// How the answer shall look; `includeObject` of tables beside it.
    pub representation: Representation,
    /// `includeObject` of a table: `None`, `Metadata` (the default) or `Object`.
    pub include_object: Option<String>,
    /// What was sent.
    pub body: RequestBody,
    /// `User-Agent`, the default field manager's source; empty when unknown.
    pub user_agent: SmolStr,
    /// `Accept` as received, for the documents that exist in several media types (aggregated discovery, OpenAPI); empty in process.
    pub accept: SmolStr,
    /// What is remarked on the way; a clone kept by the caller is there after a refusal too.
    pub notes: Notes,
    /// The request as it came over HTTP, where it may have to be passed on to others.
    pub passage: Option<Arc<Passage>>,
}

impl ApiRequest {
    /// A request about a resource, with default options and no body.
    pub fn resource(
        verb: Verb,
        resource: GroupVersionResource,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Self {
        let target = Target::Resource {
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            subresource: None,
        };
        Self::new(verb, target)
    }

    /// A request about any target, with default options and no body.
    pub fn new(verb: Verb, target: Target) -> Self {
        ApiRequest {
            verb,
            target,
            options: Options::default(),
            user: Arc::default(),
            representation: Representation::Object,
            include_object: None,
            body: RequestBody::Empty,
            user_agent: SmolStr::default(),
            accept: SmolStr::default(),
            notes: Notes::default(),
            passage: None,
        }
    }

    /// The same request for a subresource; no effect on a path.
    #[must_use]
    pub fn subresource(mut self, name: &str) -> Self {
        if let Target::Resource { subresource, .. } = &mut self.target {
            *subresource = Some(name.to_owned());
        }
        self
    }

    /// The same request with a JSON body.
    #[must_use]
    pub fn body(mut self, content_type: ContentType, value: Value) -> Self {
        self.body = RequestBody::Value { content_type, value };
        self
    }
}

/// A collection, as the objects that it is spliced from.
#[derive(Clone, Debug)]
pub struct ObjectList {
    /// `apiVersion` of the list.
    pub api_version: String,
    /// `kind` of the list, `PodList`.
    pub kind: String,
    /// The revision at which the list is true.
    pub resource_version: u64,
    /// Token for the rest.
    pub continue_token: Option<String>,
    /// How many are left after this page, where known.
    pub remaining: Option<u64>,
    /// The objects, in key order.
    pub items: Vec<Arc<ApiObject>>,
}

/// A stream of watch events; an `Err` is the last item.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, ApiError>>;

/// Opens further connections of a port-forward: one call a connection, with the pod's port.
pub type PortForwarder =
    Arc<dyn Fn(u16) -> BoxFuture<'static, Result<PortForwardSession, ApiError>> + Send + Sync>;

/// What a response carries.
pub enum ResponseBody {
    /// One stored object.
    Object(Arc<ApiObject>),
    /// A collection.
    List(ObjectList),
    /// A computed document: a Status, a Table, a review, a discovery document.
    Value(Value),
    /// A document that is encoded already.
    Raw {
        /// Its media type.
        content_type: &'static str,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Events.
    Watch(WatchStream),
    /// Text as it comes (logs).
    Text(BoxStream<'static, Result<Bytes, ApiError>>),
    /// A running exec or attach.
    Exec(ExecSession),
    /// A pod whose ports can be connected to.
    PortForward(PortForwarder),
    /// What came from whom the request was passed on to.
    Passed(Passed),
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResponseBody::Object(o) => write!(f, "Object({o:?})"),
            ResponseBody::List(l) => write!(f, "List({} of {})", l.items.len(), l.kind),
            ResponseBody::Value(v) => write!(f, "Value({v})"),
            ResponseBody::Raw { content_type, bytes } => {
                write!(f, "Raw({content_type}, {} bytes)", bytes.len())
            }
            ResponseBody::Watch(_) => f.write_str("Watch"),
            ResponseBody::Text(_) => f.write_str("Text"),
            ResponseBody::Exec(_) => f.write_str("Exec"),
            ResponseBody::PortForward(_) => f.write_str("PortForward"),
            ResponseBody::Passed(_) => f.write_str("Passed"),
        }
    }
}

/// The answer to an [`ApiRequest`]; failures are [`ApiError`] instead.
#[derive(Debug)]
pub struct ApiResponse {
    /// The HTTP status code: 200, 201 or 202, or what came with [`ResponseBody::Passed`].
    pub code: u16,
    /// What it carries.
    pub body: ResponseBody,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
    /// The same request will always have this answer, so that caches of clients may keep it.
    pub immutable: bool,
    /// What identifies these bytes (`ETag`, without its quotes): a client that has them already is told so instead.
    pub etag: Option<SmolStr>,
    /// For how many seconds anybody may keep the answer.
    pub max_age_seconds: Option<u32>,
}

impl ApiResponse {
    /// A response without warnings.
    pub fn new(code: u16, body: ResponseBody) -> Self {
        ApiResponse { code, body, warnings: Vec::new(), immutable: false, etag: None, max_age_seconds: None }
    }
}
