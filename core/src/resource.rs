//! What a kind is: a Rust type with metadata, and a descriptor that the server runs it by.
//!
//! Upstream's types, a host's own types and CustomResourceDefinitions all end in a [`KindDescriptor`]; the server knows nothing else of a kind.

use crate::field::ErrorList;
use crate::schema::Schema;
use crate::{GroupVersionResource, UserInfo, jsonpath::JsonPath};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use smol_str::SmolStr;
use std::fmt;
use std::sync::Arc;

/// A Rust type of an API kind: every type of `k8s-openapi` with object metadata, and every type that derives `Resource`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no API kind",
    note = "derive `Resource` (with Serialize, Deserialize, Clone and Debug) on a struct that has a `metadata: ObjectMeta` field"
)]
pub trait Resource:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Clone
    + fmt::Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Group, version and plural.
    fn resource() -> GroupVersionResource {
        GroupVersionResource::new(Self::GROUP, Self::VERSION, Self::URL_PATH_SEGMENT)
    }

    /// `metadata.name`, empty when unset.
    fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or("")
    }

    /// `metadata.namespace`, `None` for cluster scope.
    fn namespace(&self) -> Option<&str> {
        self.metadata().namespace.as_deref()
    }

    /// `metadata.uid`, empty when unset.
    fn uid(&self) -> &str {
        self.metadata().uid.as_deref().unwrap_or("")
    }
}

impl<K> Resource for K where
    K: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + Clone
        + fmt::Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// A [`Resource`] that brings its own descriptor; `#[derive(Resource)]` implements it.
pub trait Described: Resource {
    /// How the server runs this kind.
    fn descriptor() -> KindDescriptor;

    /// The CustomResourceDefinition that declares this kind to any Kubernetes.
    fn crd() -> Value {
        crate::declare::custom_resource_definition(&Self::descriptor())
    }
}

/// Where the objects of a kind live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster.
    Cluster,
}

/// The paths of a scale subresource, as JSON paths without the leading `$` (`.spec.replicas`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// Where the wanted number stands.
    pub spec_replicas: String,
    /// Where the present number stands.
    pub status_replicas: String,
    /// Where the serialized label selector stands: a string, or a LabelSelector object (built-in kinds).
    pub label_selector: Option<String>,
}

/// One column of `kubectl get`, as upstream's TableColumnDefinition.
#[derive(Clone)]
pub struct PrinterColumn {
    /// The heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub data_type: String,
    /// `name` for the column that names the object, else usually empty.
    pub format: String,
    /// Prose.
    pub description: String,
    /// 0 is always shown, above it only with `-o wide`.
    pub priority: i32,
    /// The cell of an object.
    pub cell: Cell,
}

/// How a column's cell comes out of an object.
#[derive(Clone)]
pub enum Cell {
    /// A JSON path into the object; a `date` is shown as an age.
    Path(JsonPath),
    /// Computed from the object and the time now.
    Computed(fn(&Value, jiff::Timestamp) -> Value),
}

impl fmt::Debug for PrinterColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrinterColumn({} {})", self.name, self.data_type)
    }
}

/// A field that field selectors may name, beside `metadata.name` and `metadata.namespace`.
#[derive(Clone)]
pub struct SelectableField {
    /// As written in the selector, `spec.nodeName`.
    pub name: SmolStr,
    /// Its text in an object; empty when absent.
    pub value: FieldValue,
}

/// How a selectable field's text comes out of an object.
#[derive(Clone)]
pub enum FieldValue {
    /// A JSON path.
    Path(JsonPath),
    /// Computed.
    Computed(fn(&Value) -> String),
}

impl fmt::Debug for SelectableField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SelectableField({})", self.name)
    }
}

/// What a write does, handed to a [`Strategy`].
#[derive(Clone, Copy, Debug)]
pub struct WriteContext<'a> {
    /// The subresource written through (`status`, `binding`, ...), `None` for the object itself.
    pub subresource: Option<&'a str>,
    /// The time of the write.
    pub now: jiff::Timestamp,
    /// Who writes.
    pub user: &'a UserInfo,
}

impl<'a> WriteContext<'a> {
    /// A write by nobody in particular: the server's own, and those of tests.
    pub fn new(subresource: Option<&'a str>, now: jiff::Timestamp) -> Self {
        const NOBODY: &UserInfo = &UserInfo { extra: None, groups: None, uid: None, username: None };
        WriteContext { subresource, now, user: NOBODY }
    }
}

/// The rules of a kind that a schema cannot tell: upstream's defaults, validation and update strategy.
///
/// The server has decoded the object, pruned it by the schema and set its metadata before any of these run. All are pure.
/// A kind without rules uses [`NoRules`].
pub trait Strategy: Send + Sync + 'static {
    /// Fills in the defaults, also on objects read in older shapes. Must change nothing the second time.
    fn default(&self, object: &mut Value) {
        let _ = object;
    }

    /// Before a create: drops what a client may not set (status), sets what the server sets.
    fn prepare_for_create(&self, object: &mut Value, cx: WriteContext<'_>) {
        let _ = (object, cx);
    }

    /// After the server has given a new object its name, uid and creation time, before validation: what is made of those.
    fn complete_create(&self, object: &mut Value, cx: WriteContext<'_>) {
        let _ = (object, cx);
    }

    /// Before an update: carries over what this write may not touch. The server itself keeps `status` out of main-resource
    /// writes, and everything but `status` (and metadata that a status write may set) out of status writes, for kinds with a status subresource.
    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        let _ = (object, old, cx);
    }

    /// Validates a new object.
    fn validate(&self, object: &Value) -> ErrorList {
        let _ = object;
        ErrorList::new()
    }

    /// Validates a change, including what must not change. Called instead of [`Strategy::validate`].
    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        let _ = (old, cx);
        self.validate(object)
    }

    /// What the object's row in a table says of it beside its cells, as `TableRowCondition`s of meta/v1.
    fn row_conditions(&self, object: &Value) -> Vec<Value> {
        let _ = object;
        Vec::new()
    }

    /// Warnings for the client on create and update.
    fn warnings(&self, object: &Value) -> Vec<String> {
        let _ = object;
        Vec::new()
    }
}

/// The strategy of a kind whose schema says everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRules;

impl Strategy for NoRules {}

/// Where a kind comes from, which decides upstream's wording of decode errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A kind compiled in (upstream's or the host's): a wrong type is a 400 decode error.
    BuiltIn,
    /// A CustomResourceDefinition: a wrong type is a 422 with field causes.
    Custom,
}

/// Turns an object from one served shape into another, in place.
pub type ConvertFn = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// That a kind has no stored objects of its own: it is another view of those that another resource stores.
///
/// The two events (`v1` and `events.k8s.io/v1`) share their objects this way, and so do the served versions of a
/// CustomResourceDefinition with its storage version. The server keeps such objects under the key of [`StoredAs::resource`] and in
/// its shape, reads through [`StoredAs::from_stored`] and writes through [`StoredAs::to_stored`]; both also set `apiVersion` and `kind`.
#[derive(Clone)]
pub struct StoredAs {
    /// The resource whose key and shape the stored objects have.
    pub resource: GroupVersionResource,
    /// From this kind's shape to the stored one.
    pub to_stored: ConvertFn,
    /// From the stored shape to this kind's.
    pub from_stored: ConvertFn,
}

/// The webhook that turns the objects of a kind from one version into another.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversionWebhook {
    /// Where it is: `clientConfig`, as the definition has it.
    pub client_config: Value,
    /// The versions of reviews that it knows, best first.
    pub review_versions: Vec<String>,
}

impl fmt::Debug for StoredAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredAs({}/{})", self.resource.api_version(), self.resource.resource)
    }
}

/// How the server runs a kind in one version.
#[derive(Clone)]
pub struct KindDescriptor {
    /// API group, empty for core.
    pub group: SmolStr,
    /// Version, `v1`.
    pub version: SmolStr,
    /// `Pod`.
    pub kind: SmolStr,
    /// `PodList`.
    pub list_kind: SmolStr,
    /// `pods`.
    pub plural: SmolStr,
    /// `pod`.
    pub singular: SmolStr,
    /// `po`.
    pub short_names: Vec<SmolStr>,
    /// `all`.
    pub categories: Vec<SmolStr>,
    /// Namespaced or cluster.
    pub scope: Scope,
    /// Whether `/status` exists.
    pub status: bool,
    /// Whether `/scale` exists, and where it points.
    pub scale: Option<ScalePaths>,
    /// Whether `metadata.generation` counts changes outside metadata and status.
    pub generation: bool,
    /// Types, pruning, schema defaults, list keys.
    pub schema: Arc<Schema>,
    /// Further rules.
    pub strategy: Arc<dyn Strategy>,
    /// Columns of its table; empty means NAME and AGE.
    pub columns: Vec<PrinterColumn>,
    /// Fields for field selectors.
    pub selectable_fields: Vec<SelectableField>,
    /// Built in or custom.
    pub origin: Origin,
    /// Set where the objects are stored as those of another resource; `None` for a kind that stores its own.
    pub stored_as: Option<StoredAs>,
    /// Who converts between this kind's versions, instead of the functions of `stored_as`; `None` for everybody but
    /// CustomResourceDefinitions that say so.
    pub conversion: Option<Arc<ConversionWebhook>>,
}

impl KindDescriptor {
    /// Group, version and plural.
    pub fn resource(&self) -> GroupVersionResource {
        GroupVersionResource {
            group: self.group.clone(),
            version: self.version.clone(),
            resource: self.plural.clone(),
        }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        self.resource().api_version()
    }

    /// Whether objects live in namespaces.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }
}

impl fmt::Debug for KindDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KindDescriptor({}/{} {})", self.group, self.version, self.kind)
    }
}
