//! Updates: a replacement or a patch on the present state, compared and committed, again where another write came between.

use super::{Call, create, delete, read};
use crate::admission::{AdmissionRequest, Operation};
use crate::cache::Entry;
use crate::conversion::is_of_version;
use crate::pipeline::{self, Outcome};
use crate::present;
use crate::subresources;
use kubewright_core::api::autoscaling::scale::{apply_scale, scale_of};
use kubewright_core::meta::{self, UpdateContext};
use kubewright_core::resource::{Origin, ScalePaths, WriteContext};
use kubewright_core::{ApiError, ApiObject, ApiResponse, KindDescriptor};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// How often a write that names no version is tried against other writers.
const TRIES: usize = 20;

/// Gives the wanted object for the present one.
pub(crate) type Change<'a> = &'a (dyn Fn(&Value) -> Result<Changed, ApiError> + Sync);

/// A wanted object with what there is to say about its fields.
pub(crate) struct Changed {
    object: Value,
    warnings: Vec<String>,
    /// Whether its `managedFields` are those of an apply, so that the difference is not told again.
    applied: bool,
}

impl Changed {
    /// What a replacement or a patch wants.
    pub(crate) fn by_update(object: Value, warnings: Vec<String>) -> Self {
        Changed { object, warnings, applied: false }
    }

    /// What server-side apply made.
    pub(crate) fn by_apply(object: Value, warnings: Vec<String>) -> Self {
        Changed { object, warnings, applied: true }
    }
}

/// `PUT` of an object.
pub(super) async fn replace(call: Call) -> Result<ApiResponse, ApiError> {
    let how = pipeline::strictness(&call)?;
    let (mut object, repeated) = pipeline::document(&call.body)?;
    let warnings = pipeline::object(&call.kind.descriptor, &mut object, &repeated, how)?;
    check_named(&call, &object)?;
    let change = |_: &Value| Ok(Changed::by_update(object.clone(), warnings.clone()));
    match write(&call, None, &change).await {
        Err(e) if e.is_not_found() && creates_on_update(&call, &object) => {
            let mut warnings = warnings.clone();
            pipeline::default(&call.kind.descriptor, &mut object);
            pipeline::track(&call, None, None, &mut object);
            let created = create::new_object(&call, object, &mut warnings).await?;
            let mut response = present::object(&call, 201, created)?;
            response.warnings = warnings;
            Ok(response)
        }
        other => other,
    }
}

/// The kinds that upstream creates by `PUT`.
fn creates_on_update(call: &Call, object: &Value) -> bool {
    let fresh = meta::resource_version(object).is_empty() && meta::uid(object).is_empty();
    let kind = &call.kind.descriptor;
    fresh
        && kind.origin == Origin::BuiltIn
        && matches!(
            (kind.group.as_str(), kind.plural.as_str()),
            ("", "endpoints" | "events" | "services" | "limitranges")
                | ("coordination.k8s.io", "leases")
                | ("rbac.authorization.k8s.io", _)
        )
}

/// The name in the body must be that of the path.
pub(crate) fn check_named(call: &Call, object: &Value) -> Result<(), ApiError> {
    let (wanted, has) = (call.name()?, meta::name(object));
    if has.is_empty() {
        return Err(ApiError::bad_request("name must be provided"));
    }
    if has != wanted {
        let why = format!("the name of the object ({has}) does not match the name on the URL ({wanted})");
        return Err(ApiError::bad_request(why));
    }
    let namespace = meta::namespace(object);
    if !namespace.is_empty() && namespace != call.namespace {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::bad_request(why));
    }
    Ok(())
}

/// Changes the object named in the path, through a subresource or not, and answers with it.
pub(crate) async fn write(
    call: &Call,
    subresource: Option<&str>,
    change: Change<'_>,
) -> Result<ApiResponse, ApiError> {
    let mut warnings = Vec::new();
    let object = apply(call, subresource, change, &mut warnings).await?;
    let mut response = present::object(call, 200, object)?;
    response.warnings = warnings;
    Ok(response)
}

/// Changes the object named in the path.
///
/// # Errors
/// 404, 409 where the change names a version that is not the present one, 422.
pub(crate) async fn apply(
    call: &Call,
    subresource: Option<&str>,
    change: Change<'_>,
    warnings: &mut Vec<String>,
) -> Result<Arc<ApiObject>, ApiError> {
    let name = call.name()?;
    for attempt in 0..TRIES {
        let found = Found::of(call, name, attempt).await?;
        let said = warnings.len();
        let done = match found.old(call).and_then(|old| Ok((change(&old)?, old))) {
            Err(e) => Err(e),
            Ok((mut changed, old)) => {
                warnings.append(&mut changed.warnings);
                try_write(call, subresource, &found, &old, changed, warnings).await
            }
        };
        match done {
            Ok(Some(object)) => return Ok(object),
            // What is refused on a state that may be old is judged again on the newest.
            Err(e) if found.newest => return Err(e),
            Ok(None) | Err(_) => warnings.truncate(said),
        }
    }
    Err(ApiError::stale(call.kind.group(), call.kind.plural(), name))
}

/// The object that a write begins with.
struct Found {
    entry: Arc<Entry>,
    /// Whether every acknowledged write is in it. The first try takes what the cache holds at the moment: nearly always that is
    /// the newest, and the commit's comparison finds out where it is not.
    newest: bool,
}

impl Found {
    async fn of(call: &Call, name: &str, attempt: usize) -> Result<Self, ApiError> {
        match read::held(call, name).filter(|_| attempt == 0) {
            Some(entry) => {
                call.server.converter.prepare(&call.kind, [&entry]).await?;
                Ok(Found { entry, newest: false })
            }
            None => Ok(Found { entry: read::current(call, name).await?, newest: true }),
        }
    }

    fn old(&self, call: &Call) -> Result<Value, ApiError> {
        pipeline::writable(call, &self.entry)
    }
}

/// Changes an object in place, past defaults, admission and validation: for the server's own writes, whose rules stand elsewhere.
///
/// # Errors
/// 404, or what `change` refuses with.
pub(crate) async fn edit(
    call: &Call,
    name: &str,
    change: &(dyn Fn(&mut Value) -> Result<(), ApiError> + Sync),
) -> Result<Arc<ApiObject>, ApiError> {
    for attempt in 0..TRIES {
        let found = Found::of(call, name, attempt).await?;
        let mut object = found.old(call)?;
        match change(&mut object) {
            Err(e) if found.newest => return Err(e),
            Err(_) => continue,
            Ok(()) => {}
        }
        let expected = found.entry.shape.object.resource_version();
        if let Outcome::Done(written) = pipeline::commit(call, &object, expected, Vec::new()).await? {
            pipeline::keep(call, object, &written);
            return Ok(written);
        }
    }
    Err(ApiError::stale(call.kind.group(), call.kind.plural(), name))
}

/// One try; `None` where another write came between, or only the newest state can tell.
async fn try_write(
    call: &Call,
    subresource: Option<&str>,
    found: &Found,
    old: &Value,
    changed: Changed,
    warnings: &mut Vec<String>,
) -> Result<Option<Arc<ApiObject>>, ApiError> {
    let Changed { mut object, applied, .. } = changed;
    let kind = &call.kind.descriptor;
    let cx = WriteContext { subresource, now: call.now, user: &call.user };
    let resource = kind.resource();
    let update = UpdateContext { resource: &resource, generation: kind.generation };
    pipeline::default(kind, &mut object);
    carry_status(kind, subresource, &mut object, old, applied);
    if !applied {
        pipeline::track(call, subresource, Some(old), &mut object);
    }
    let seen = Seen::of(call, old);
    let request = pipeline::admission_request(call, Operation::Update, meta::name(old), Some(seen.old()));
    seen.admit(call, &request, &mut object).await?;
    kind.strategy.prepare_for_update(&mut object, old, cx);
    meta::prepare_update(&mut object, old, &update)?;
    super::settle(call, subresource, &mut object, false)?;
    let reserved = create::numbers(call, &mut object, Some(old))?;
    pipeline::validate_update(kind, &object, old, cx, &call.notes)?;
    let shown = seen.shown(&object);
    pipeline::admit_validate(call, &request, Some(shown.as_ref().unwrap_or(&object))).await?;
    warnings.extend(kind.strategy.warnings(&object));
    let entry = &found.entry;
    // A write that changes nothing moves an object into the present storage version all the same.
    let outdated =
        kind.origin == Origin::Custom && !is_of_version(entry.shape.object.bytes(), &call.kind.storage);
    if object == *old && !outdated {
        return if found.newest { Ok(Some(entry.shape(&call.kind)?.object.clone())) } else { Ok(None) };
    }
    let expected = entry.shape.object.resource_version();
    if delete::is_finished(kind, &object) {
        return delete::remove(call, entry, &object).await;
    }
    let claims = reserved.as_ref().map(|reserved| reserved.claims(call.now)).unwrap_or_default();
    match pipeline::commit(call, &object, expected, claims).await? {
        Outcome::Done(written) => {
            if let Some(reserved) = reserved.filter(|_| !call.options.dry_run) {
                reserved.keep();
            }
            create::written(call, &written).await;
            pipeline::keep(call, object, &written);
            Ok(Some(written))
        }
        Outcome::Beaten => Ok(None),
        Outcome::Claimed => Err(create::claimed(call, &object)),
    }
}

/// What admission sees of an update: the object, or its Scale where that is what was sent.
struct Seen<'a> {
    old: Cow<'a, Value>,
    scale: Option<ScalePaths>,
}

impl<'a> Seen<'a> {
    fn of(call: &Call, old: &'a Value) -> Self {
        let through = call.subresource.as_deref() == Some("scale");
        match call.kind.descriptor.scale.clone().filter(|_| through) {
            Some(paths) => Seen { old: Cow::Owned(scale_of(old, &paths)), scale: Some(paths) },
            None => Seen { old: Cow::Borrowed(old), scale: None },
        }
    }

    fn old(&self) -> &Value {
        &self.old
    }

    /// The Scale of the object; `None` where the object itself is seen.
    fn shown(&self, object: &Value) -> Option<Value> {
        self.scale.as_ref().map(|paths| scale_of(object, paths))
    }

    async fn admit(
        &self,
        call: &Call,
        request: &AdmissionRequest<'_>,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        let Some(mut scale) = self.shown(object) else {
            return pipeline::admit(call, request, Some(object)).await;
        };
        let before = scale.clone();
        pipeline::admit(call, request, Some(&mut scale)).await?;
        if scale == before { Ok(()) } else { apply_scale(object, &scale, &call.kind.descriptor) }
    }
}

/// Keeps the status out of main-resource writes, and everything but the status out of status writes.
fn carry_status(
    kind: &KindDescriptor,
    subresource: Option<&str>,
    object: &mut Value,
    old: &Value,
    applied: bool,
) {
    if subresource == Some("status") {
        let settable: &[&str] = match subresources::is_bare(kind) {
            true => &["resourceVersion", "uid"],
            false => &["resourceVersion", "uid", "labels", "annotations", "finalizers"],
        };
        let managed: &[&str] = if applied { &["managedFields"] } else { &[] };
        restore(object, old, |field| field == "status" || field == "metadata");
        let (Some(metadata), Some(before)) = (object.get_mut("metadata"), old.get("metadata")) else {
            return;
        };
        restore(metadata, before, |field| settable.contains(&field) || managed.contains(&field));
    } else if kind.status && subresource.is_none() {
        put(object, "status", old.get("status"));
    }
}

/// Makes the fields of an object those of `old` again, but for those that the write may set. Nearly all are equal: only others are copied.
fn restore(object: &mut Value, old: &Value, settable: impl Fn(&str) -> bool) {
    let (Some(object), Some(old)) = (object.as_object_mut(), old.as_object()) else { return };
    object.retain(|field, _| settable(field) || old.contains_key(field));
    for (field, before) in old.iter().filter(|(field, _)| !settable(field)) {
        match object.get_mut(field) {
            Some(value) if value == before => {}
            Some(value) => value.clone_from(before),
            None => drop(object.insert(field.clone(), before.clone())),
        }
    }
}

/// Sets a field, or takes it out.
pub(crate) fn put(object: &mut Value, field: &str, value: Option<&Value>) {
    let Some(map) = object.as_object_mut() else { return };
    match value {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}
