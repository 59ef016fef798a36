//! What admission is told of a write, and where it leaves what it has to say.

use super::Operation;
use crate::handlers::delete::DeleteOptions;
use crate::server::Reader;
use crate::subresources;
use kubewright_core::{GroupVersionKind, GroupVersionResource, KindDescriptor, Notes, Options, UserInfo};
use serde_json::{Map, Value, json};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// One write under admission.
#[derive(Debug)]
pub struct AdmissionRequest<'a> {
    /// What happens.
    pub operation: Operation,
    /// The resource, as the client named it.
    pub resource: GroupVersionResource,
    /// How the server runs it.
    pub kind: &'a KindDescriptor,
    /// The namespace, empty for a cluster-scoped object.
    pub namespace: &'a str,
    /// The name, empty while it is yet to be generated.
    pub name: &'a str,
    /// The subresource written through.
    pub subresource: Option<&'a str>,
    /// Who writes.
    pub user: &'a UserInfo,
    /// The state before; none for a create.
    pub old: Option<&'a Value>,
    /// Nothing will be kept.
    pub dry_run: bool,
    /// How the client wants it done.
    pub options: WriteOptions<'a>,
    /// Where warnings for the client and annotations for the audit log go.
    pub notes: &'a Notes,
    /// Whether the changing half runs a second time, and how a plugin asks for that.
    pub reinvocation: Reinvocation,
    /// Reads of other objects.
    pub reader: &'a Reader,
}

impl AdmissionRequest<'_> {
    /// Whether this creates a pod itself, rather than something below one.
    pub(crate) fn creates_pod(&self) -> bool {
        self.operation == Operation::Create
            && self.resource.group.is_empty()
            && self.resource.resource == "pods"
            && self.subresource.is_none()
    }

    /// The kind of what is sent: that of the resource, or what its subresource takes (`Scale`, `Eviction`, `PodExecOptions`).
    pub fn request_kind(&self) -> GroupVersionKind {
        kind_of(self.kind, self.subresource)
    }
}

/// The kind of what is sent to a resource or to its subresource.
pub(crate) fn kind_of(kind: &KindDescriptor, subresource: Option<&str>) -> GroupVersionKind {
    let own = || GroupVersionKind::new(kind.group.clone(), kind.version.clone(), kind.kind.clone());
    let Some(name) = subresource else { return own() };
    let name = name.split('/').next().unwrap_or(name);
    match subresources::of(kind).into_iter().find(|s| s.name == name).and_then(|s| s.kind) {
        Some((group, version, kind)) => GroupVersionKind::new(group, version, kind),
        None => own(),
    }
}

/// The options of a write, made into their object only where somebody asks.
#[derive(Clone, Copy)]
pub struct WriteOptions<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    Written(Operation, &'a Options),
    Deleted(&'a DeleteOptions),
    None,
}

impl<'a> WriteOptions<'a> {
    pub(crate) fn written(operation: Operation, options: &'a Options) -> Self {
        match operation {
            Operation::Create | Operation::Update => WriteOptions(Source::Written(operation, options)),
            Operation::Delete | Operation::Connect => WriteOptions(Source::None),
        }
    }

    pub(crate) fn deleted(options: &'a DeleteOptions) -> Self {
        WriteOptions(Source::Deleted(options))
    }

    /// The options as `CreateOptions`, `UpdateOptions` or `DeleteOptions` of meta.k8s.io/v1, by what happens rather than by what the client
    /// called; null for a call of a subresource.
    pub fn to_value(&self) -> Value {
        let (kind, mut fields) = match self.0 {
            Source::None => return Value::Null,
            Source::Deleted(options) => {
                let value = serde_json::to_value(options).unwrap_or_default();
                let fields = value.as_object().cloned().unwrap_or_default();
                ("DeleteOptions", fields.into_iter().filter(|(_, v)| !v.is_null()).collect())
            }
            Source::Written(operation, options) => {
                let kind = if operation == Operation::Create { "CreateOptions" } else { "UpdateOptions" };
                (kind, write_fields(options))
            }
        };
        fields.insert("kind".to_owned(), json!(kind));
        fields.insert("apiVersion".to_owned(), json!("meta.k8s.io/v1"));
        Value::Object(fields)
    }
}

fn write_fields(options: &Options) -> Map<String, Value> {
    let mut fields = Map::new();
    if options.dry_run {
        fields.insert("dryRun".to_owned(), json!(["All"]));
    }
    for (name, text) in
        [("fieldManager", &options.field_manager), ("fieldValidation", &options.field_validation)]
    {
        if let Some(text) = text {
            fields.insert(name.to_owned(), json!(text));
        }
    }
    fields
}

impl fmt::Debug for WriteOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteOptions({})", self.to_value())
    }
}

/// The second run of the changing half.
///
/// Where a plugin that lets others do the changing (webhooks, policies) has changed an object, what ran before it may have to look
/// again: [`Reinvocation::ask`] makes the server run every plugin once more. A plugin sees by [`Reinvocation::is_again`] which run it is
/// in, and finds by its own name what it left in the first.
#[derive(Default)]
pub struct Reinvocation {
    asked: AtomicBool,
    again: AtomicBool,
    left: Mutex<BTreeMap<&'static str, Box<dyn Any + Send>>>,
}

/// What the first run of a configured plugin (policies, webhooks) leaves for the second.
#[derive(Default)]
pub(crate) struct Before {
    /// The object as the plugin left it.
    pub(crate) output: Option<Value>,
    /// Those that want to hear of later changes, and have heard of none yet.
    pub(crate) invoked: BTreeSet<String>,
    /// Those that are to be asked again.
    pub(crate) again: BTreeSet<String>,
}

impl Before {
    pub(crate) fn require_again(&mut self) {
        self.again.append(&mut self.invoked);
    }
}

impl Reinvocation {
    /// Asks for a second run; no effect in the second.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Whether this is the second run.
    pub fn is_again(&self) -> bool {
        self.again.load(Ordering::Relaxed)
    }

    /// Leaves something for the plugin's second run.
    pub fn leave<T: Any + Send>(&self, plugin: &'static str, value: T) {
        self.left().insert(plugin, Box::new(value));
    }

    /// Takes what the plugin left.
    pub fn take<T: Any + Send>(&self, plugin: &'static str) -> Option<T> {
        let left = self.left().remove(plugin)?;
        left.downcast::<T>().ok().map(|value| *value)
    }

    /// Begins the second run, where one was asked for and none has been.
    pub(crate) fn begin(&self) -> bool {
        self.asked.load(Ordering::Relaxed) && !self.again.swap(true, Ordering::Relaxed)
    }

    fn left(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Box<dyn Any + Send>>> {
        self.left.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Debug for Reinvocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_again() { "Reinvocation(again)" } else { "Reinvocation" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_by_what_happens() {
        let options = Options {
            dry_run: true,
            field_manager: Some("me".to_owned()),
            force: Some(true),
            ..Options::default()
        };
        let check = |operation, want: Value| {
            assert_eq!(WriteOptions::written(operation, &options).to_value(), want);
        };
        let want = |kind: &str| json!({"kind": kind, "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"], "fieldManager": "me"});
        check(Operation::Create, want("CreateOptions"));
        check(Operation::Update, want("UpdateOptions"));
        check(Operation::Connect, Value::Null);
    }

    #[test]
    fn there_is_one_second_run() {
        let reinvocation = Reinvocation::default();
        assert!(!reinvocation.begin() && !reinvocation.is_again());
        reinvocation.leave("a", 7_u32);
        reinvocation.ask();
        assert!(reinvocation.begin() && reinvocation.is_again());
        assert!(!reinvocation.begin());
        assert_eq!(reinvocation.take::<u32>("a"), Some(7));
        assert_eq!(reinvocation.take::<u32>("a"), None);
    }
}
