//! Deletes: preconditions, grace, finalizers and propagation.

use super::{Call, create, list, read};
use crate::admission::{Operation, WriteOptions};
use crate::bootstrap;
use crate::cache::Entry;
use crate::encode;
use crate::keys::ResourceId;
use crate::pipeline::{self, Claim, Outcome};
use crate::present;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use kubewright_core::meta::{self, Propagation};
use kubewright_core::{
    ApiError, ApiObject, ApiResponse, FieldError, FieldPath, KindDescriptor, ResponseBody,
};
use kubewright_store::{Commit, CommitOutcome, Compare, Op};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

const TRIES: usize = 20;
/// How many objects of a collection are deleted at once.
const COLLECTION_DELETES_MAX: usize = 32;

/// `DeleteOptions` of meta/v1, from the body and the query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeleteOptions {
    grace_period_seconds: Option<i64>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    preconditions: Option<Preconditions>,
    dry_run: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<String>,
}

impl DeleteOptions {
    /// What a request asks; the query counts where there is no body, as upstream has it.
    fn of(call: &mut Call) -> Result<Self, ApiError> {
        let (document, _) = pipeline::document(&call.body)?;
        let mut options: DeleteOptions = match document {
            Value::Null => DeleteOptions {
                grace_period_seconds: call.options.grace_period_seconds,
                propagation_policy: call.options.propagation_policy.clone(),
                orphan_dependents: call.options.orphan_dependents,
                dry_run: call.options.dry_run.then(|| vec!["All".to_owned()]),
                ..DeleteOptions::default()
            },
            document => serde_json::from_value(document)
                .map_err(|e| ApiError::bad_request(format!("the body is no DeleteOptions: {e}")))?,
        };
        if options.dry_run.as_ref().is_some_and(|d| d.iter().any(|d| d == "All")) {
            call.options.dry_run = true;
        }
        options.propagation_policy = options.propagation_policy.filter(|p| !p.is_empty());
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), ApiError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("propagationPolicy");
        if let Some(policy) = &self.propagation_policy {
            if self.orphan_dependents.is_some() {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(FieldError::invalid(&path, policy.as_str(), why));
            }
            if Propagation::parse(policy).is_none() {
                let supported = ["Background", "Foreground", "Orphan", "nil"];
                errors.push(FieldError::not_supported(&path, policy.as_str(), &supported));
            }
        }
        let known = |d: &String| d == "All";
        if let Some(other) = self.dry_run.as_ref().and_then(|d| d.iter().find(|d| !known(d))) {
            errors.push(FieldError::not_supported(&FieldPath::new("dryRun"), other.as_str(), &["All"]));
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &errors))
        }
    }

    fn propagation(&self) -> Option<Propagation> {
        match (&self.propagation_policy, self.orphan_dependents) {
            (Some(policy), _) => Propagation::parse(policy),
            (None, Some(true)) => Some(Propagation::Orphan),
            (None, Some(false)) => Some(Propagation::Background),
            (None, None) => None,
        }
    }

    fn holds(&self, call: &Call, old: &Value) -> Result<(), ApiError> {
        let Some(wanted) = &self.preconditions else { return Ok(()) };
        let refused = |what: &str, wanted: &str, has: &str| {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {has}"
            );
            Err(ApiError::conflict(call.kind.group(), call.kind.plural(), meta::name(old), &why))
        };
        if let Some(uid) = wanted.uid.as_deref().filter(|uid| *uid != meta::uid(old)) {
            return refused("UID", uid, meta::uid(old));
        }
        let version = wanted.resource_version.as_deref();
        if let Some(version) = version.filter(|v| *v != meta::resource_version(old)) {
            return refused("ResourceVersion", version, meta::resource_version(old));
        }
        Ok(())
    }
}

/// Kinds whose dependents stay where nobody says otherwise, as they did before there was garbage collection, with what is said of that.
const ORPHANING: [(&str, &str, &str); 2] = [
    ("", "replicationcontrollers", ""),
    (
        "batch",
        "jobs",
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set \
         propagationPolicy=Orphan to suppress this warning",
    ),
];

/// What becomes of the dependents of an object whose deletion says nothing of them and that has no finalizer about them.
fn by_default(call: &Call, old: &Value) -> Option<Propagation> {
    let (.., warning) = ORPHANING.iter().find(|(group, plural, _)| call.kind.is(group, plural))?;
    if !warning.is_empty() {
        call.notes.warn(*warning);
    }
    let settled = meta::finalizers(old).any(|f| f == "orphan" || f == "foregroundDeletion");
    (!settled).then_some(Propagation::Orphan)
}

/// What a delete did.
enum Deleted {
    /// The object is gone.
    Gone(Arc<ApiObject>),
    /// It is marked, and goes once its finalizers or its grace period let it.
    Pending(Arc<ApiObject>),
}

/// Whether admission is asked about a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Yes,
    /// It was asked about what leads to the delete.
    Before,
}

/// `DELETE` of an object.
pub(crate) async fn delete(call: Call) -> Result<ApiResponse, ApiError> {
    delete_asked(call, Asked::Yes).await
}

/// The delete that an eviction is, which admission has seen as the eviction.
pub(crate) async fn evict(call: Call) -> Result<ApiResponse, ApiError> {
    delete_asked(call, Asked::Before).await
}

async fn delete_asked(mut call: Call, asked: Asked) -> Result<ApiResponse, ApiError> {
    let options = DeleteOptions::of(&mut call)?;
    let name = call.name()?.to_owned();
    let deleted = one(&call, &name, &options, asked).await?;
    restore(&call, &deleted).await;
    match deleted {
        Deleted::Gone(object) if returns_deleted(&call.kind.descriptor) => {
            present::object(&call, 200, object)
        }
        Deleted::Gone(object) => Ok(ApiResponse::new(200, ResponseBody::Value(success(&call, &object)))),
        Deleted::Pending(object) => {
            let code = if options.orphan_dependents == Some(false) { 202 } else { 200 };
            present::object(&call, code, object)
        }
    }
}

/// Puts the certificate authority back into a namespace that lives on: pods need it there.
async fn restore(call: &Call, deleted: &Deleted) {
    let Deleted::Gone(object) = deleted else { return };
    if call.options.dry_run || !call.kind.is("", "configmaps") || object.header().name != bootstrap::ROOT_CA {
        return;
    }
    call.server.cache.reached(object.resource_version(), create::SERVED_WAIT).await;
    match bootstrap::root_ca(&call.server, &call.namespace).await {
        // Of a namespace that is going, everything goes.
        Err(e) if e.code() != 403 && e.code() != 404 => {
            tracing::warn!(namespace = %call.namespace, error = %e, "the certificate authority could not be put back");
        }
        _ => {}
    }
}

/// The kinds whose delete answers with the object, as upstream's storage has it.
pub(crate) fn returns_deleted(kind: &KindDescriptor) -> bool {
    matches!(
        (kind.group.as_str(), kind.plural.as_str()),
        (
            "",
            "pods"
                | "services"
                | "serviceaccounts"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "resourcequotas"
                | "podtemplates"
        ) | (
            "resource.k8s.io",
            "deviceclasses" | "resourceclaims" | "resourceclaimtemplates" | "resourceslices"
        ) | (
            "storage.k8s.io",
            "csidrivers" | "csinodes" | "storageclasses" | "volumeattachments" | "volumeattributesclasses"
        )
    )
}

fn success(call: &Call, object: &ApiObject) -> Value {
    let mut details =
        json!({"name": object.header().name, "kind": call.kind.plural(), "uid": object.header().uid});
    if !call.kind.group().is_empty() {
        details["group"] = json!(call.kind.group());
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// `DELETE` of a collection: every object that the options select, each with its own rules.
pub(super) async fn delete_collection(mut call: Call) -> Result<ApiResponse, ApiError> {
    let options = DeleteOptions::of(&mut call)?;
    let mut listed = list::objects(&call).await?;
    let mut items = Vec::with_capacity(listed.items.len());
    let names: Vec<_> = listed.items.iter().map(|o| o.header().name.clone()).collect();
    let mut deletes: Vec<BoxFuture<'_, Result<Deleted, ApiError>>> = Vec::with_capacity(names.len());
    for name in &names {
        deletes.push(Box::pin(one(&call, name, &options, Asked::Yes)));
    }
    let mut deletes = stream::iter(deletes).buffered(COLLECTION_DELETES_MAX);
    while let Some(deleted) = deletes.next().await {
        match deleted {
            Ok(deleted) => {
                restore(&call, &deleted).await;
                let (Deleted::Gone(object) | Deleted::Pending(object)) = deleted;
                items.push(object);
            }
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    drop(deletes);
    listed.items = items;
    present::list(&call, listed)
}

async fn one(call: &Call, name: &str, options: &DeleteOptions, asked: Asked) -> Result<Deleted, ApiError> {
    for _ in 0..TRIES {
        let entry = read::current(call, name).await?;
        let old = entry.shape(&call.kind)?.object.value()?;
        options.holds(call, &old)?;
        if asked == Asked::Yes {
            let mut request = pipeline::admission_request(call, Operation::Delete, name, Some(&old));
            request.options = WriteOptions::deleted(options);
            pipeline::admit(call, &request, None).await?;
            pipeline::admit_validate(call, &request, None).await?;
        }
        if let Some(done) = attempt(call, options, &entry, &old).await? {
            return Ok(done);
        }
    }
    Err(ApiError::stale(call.kind.group(), call.kind.plural(), name))
}

/// One try; `None` where another write came between.
async fn attempt(
    call: &Call,
    options: &DeleteOptions,
    entry: &Arc<Entry>,
    old: &Value,
) -> Result<Option<Deleted>, ApiError> {
    let mut object = old.clone();
    let held = match options.propagation().or_else(|| by_default(call, old)) {
        Some(propagation) => meta::set_finalizers(&mut object, propagation),
        None => meta::finalizers(&object).next().is_some(),
    };
    let grace = grace(&call.kind.descriptor, old, options.grace_period_seconds);
    let held = held || namespace_held(&call.kind.descriptor, old);
    if grace > 0 || held {
        meta::begin_deletion(&mut object, call.now, grace);
        terminating(&call.kind.descriptor, &mut object);
        if object == *old {
            return Ok(Some(Deleted::Pending(entry.shape(&call.kind)?.object.clone())));
        }
        let expected = entry.shape.object.resource_version();
        return Ok(match pipeline::commit(call, &object, expected, Vec::new()).await? {
            Outcome::Done(object) => {
                create::written(call, &object).await;
                Some(Deleted::Pending(object))
            }
            Outcome::Beaten | Outcome::Claimed => None,
        });
    }
    meta::begin_deletion(&mut object, call.now, 0);
    Ok(remove(call, entry, &object).await?.map(Deleted::Gone))
}

/// The seconds that an object may take to end: only pods have any.
fn grace(kind: &KindDescriptor, old: &Value, asked: Option<i64>) -> i64 {
    if !(kind.group.is_empty() && kind.plural == "pods") {
        return 0;
    }
    let unscheduled = old["spec"]["nodeName"].as_str().unwrap_or("").is_empty();
    let over = matches!(old["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if unscheduled || over {
        return 0;
    }
    let wanted = asked.or_else(|| old["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30);
    // A negative period means the shortest one that still ends gracefully.
    if wanted < 0 { 1 } else { wanted }
}

/// A namespace stays until its own finalizers are gone.
fn namespace_held(kind: &KindDescriptor, object: &Value) -> bool {
    is_namespace(kind) && object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

fn is_namespace(kind: &KindDescriptor) -> bool {
    kind.group.is_empty() && kind.plural == "namespaces"
}

fn terminating(kind: &KindDescriptor, object: &mut Value) {
    if is_namespace(kind) {
        object["status"]["phase"] = json!("Terminating");
    }
}

/// Whether an object that is being deleted has nothing left that holds it.
pub(super) fn is_finished(kind: &KindDescriptor, object: &Value) -> bool {
    let grace = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    meta::is_deleting(object)
        && grace == 0
        && meta::finalizers(object).next().is_none()
        && !namespace_held(kind, object)
}

/// Takes an object out of the store; `None` where another write came between.
pub(super) async fn remove(
    call: &Call,
    entry: &Arc<Entry>,
    last: &Value,
) -> Result<Option<Arc<ApiObject>>, ApiError> {
    let expected = entry.shape.object.resource_version();
    if call.options.dry_run {
        return Ok(Some(Arc::new(encode::object(last, expected)?)));
    }
    let key = ResourceId::of(&call.kind.descriptor).key(meta::namespace(last), meta::name(last));
    let mut ops = vec![Op::Delete { key: key.clone() }];
    if call.kind.is("", "services") {
        for claim in call.server.allocator.release(last).claims(call.now) {
            if let Claim::Release { key } = claim {
                ops.push(Op::Delete { key });
            }
        }
    }
    let commit = Commit { compares: vec![Compare { key, mod_revision: expected }], ops };
    match call.server.store.commit(commit).await.map_err(|e| crate::errors::store(&e))? {
        CommitOutcome::Committed { revision } => Ok(Some(Arc::new(encode::object(last, revision)?))),
        CommitOutcome::Refused { .. } => Ok(None),
    }
}
