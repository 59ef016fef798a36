//! How many seats a request takes.

use crate::server::Reader;
use kubewright_core::{ApiRequest, Target, Verb};

/// Objects of a list that one seat stands for.
const OBJECTS_PER_SEAT: usize = 100;
/// The widest request of all.
pub(super) const WIDTH_MAX: i64 = 10;

/// Whether a request is none of flow control's business: it stays open for long and works little.
pub(super) fn is_long_running(request: &ApiRequest) -> bool {
    let Target::Resource { subresource: Some(subresource), .. } = &request.target else { return false };
    let first = subresource.split('/').next().unwrap_or("");
    matches!(first, "log" | "exec" | "attach" | "portforward" | "proxy")
}

/// The seats of a request: lists, and watches that begin with one, by the number of objects that they go through; all others one.
///
/// A watch gives its seats back when it begins to wait for changes.
pub(super) fn width(request: &ApiRequest, reader: Option<&Reader>, max: i64) -> i64 {
    let Target::Resource { resource, namespace, name, subresource: None } = &request.target else { return 1 };
    let options = &request.options;
    let lists = match request.verb {
        Verb::List | Verb::DeleteCollection => true,
        Verb::Watch => {
            options.send_initial_events == Some(true)
                || options.resource_version.as_deref().is_none_or(|v| v.is_empty() || v == "0")
        }
        _ => false,
    };
    let (true, None, Some(reader)) = (lists, name, reader) else { return 1 };
    let most = OBJECTS_PER_SEAT * usize::try_from(max).unwrap_or(1);
    let most = match options.limit {
        Some(limit) if limit > 0 => most.min(usize::try_from(limit).unwrap_or(most)),
        _ => most,
    };
    let objects = reader.count(resource, namespace.as_deref().unwrap_or(""), most).unwrap_or(0);
    i64::try_from(objects.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(max).clamp(1, max)
}
