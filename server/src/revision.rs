//! What `resourceVersion` and `resourceVersionMatch` ask for.

use kubewright_core::field::{FieldError, FieldPath};
use kubewright_core::{ApiError, Options};

/// How new an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// As every acknowledged write left it.
    Newest,
    /// Whatever is at hand.
    Any,
    /// Not older than this.
    AtLeast(u64),
    /// Exactly as it was then.
    Exact(u64),
}

/// The number in a `resourceVersion`; `None` where none is given.
pub(crate) fn parse(text: Option<&str>) -> Result<Option<u64>, ApiError> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        let error = FieldError::invalid(&FieldPath::new("resourceVersion"), text, &why);
        ApiError::bad_request(error.to_string())
    })
}

/// For a read of one object.
pub(crate) fn of_get(options: &Options) -> Result<Wanted, ApiError> {
    Ok(match parse(options.resource_version.as_deref())? {
        None => Wanted::Newest,
        Some(0) => Wanted::Any,
        Some(revision) => Wanted::AtLeast(revision),
    })
}

fn refused(errors: Vec<FieldError>) -> ApiError {
    ApiError::invalid("meta.k8s.io", "ListOptions", "", &errors)
}

/// For a list without a continue token.
pub(crate) fn of_list(options: &Options) -> Result<Wanted, ApiError> {
    let path = FieldPath::new("resourceVersionMatch");
    let how = options.resource_version_match.as_deref().filter(|m| !m.is_empty());
    let version = parse(options.resource_version.as_deref())?;
    let mut errors = Vec::new();
    if options.send_initial_events.is_some() {
        let path = FieldPath::new("sendInitialEvents");
        errors.push(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list"));
    }
    if let Some(how) = how {
        if version.is_none() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
        if options.continue_token.as_deref().is_some_and(|c| !c.is_empty()) {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
        if !matches!(how, "Exact" | "NotOlderThan") {
            errors.push(FieldError::not_supported(&path, how, &["Exact", "NotOlderThan", ""]));
        }
        if how == "Exact" && version == Some(0) {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    if !errors.is_empty() {
        return Err(refused(errors));
    }
    Ok(match (version, how) {
        (None, _) => Wanted::Newest,
        (Some(0), _) => Wanted::Any,
        (Some(revision), Some("Exact")) => Wanted::Exact(revision),
        // Upstream reads a page that starts at a revision as exact.
        (Some(revision), None) if options.limit.unwrap_or(0) > 0 => Wanted::Exact(revision),
        (Some(revision), _) => Wanted::AtLeast(revision),
    })
}

/// Checks what a watch may ask.
pub(crate) fn check_watch(options: &Options) -> Result<(), ApiError> {
    let path = FieldPath::new("resourceVersionMatch");
    let how = options.resource_version_match.as_deref().filter(|m| !m.is_empty());
    let mut errors = Vec::new();
    if options.send_initial_events.is_some() {
        match how {
            None => {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                errors.push(FieldError::forbidden(&path, why));
            }
            Some("NotOlderThan") => {}
            Some(other) => errors.push(FieldError::not_supported(&path, other, &["NotOlderThan"])),
        }
    } else if how.is_some() {
        let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        errors.push(FieldError::forbidden(&path, why));
    }
    if options.continue_token.as_deref().is_some_and(|c| !c.is_empty()) {
        let why = "continue is forbidden for watch";
        errors.push(FieldError::forbidden(&FieldPath::new("continue"), why));
    }
    if errors.is_empty() { Ok(()) } else { Err(refused(errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_mean_what_upstream_says() {
        let check = |version: &str, how: &str, limit: u64, expected: Result<Wanted, u16>| {
            let options = Options {
                resource_version: Some(version.to_owned()),
                resource_version_match: Some(how.to_owned()),
                limit: Some(limit),
                ..Options::default()
            };
            assert_eq!(of_list(&options).map_err(|e| e.code()), expected, "{version} {how} {limit}");
        };
        check("", "", 0, Ok(Wanted::Newest));
        check("0", "", 0, Ok(Wanted::Any));
        check("7", "", 0, Ok(Wanted::AtLeast(7)));
        check("7", "", 5, Ok(Wanted::Exact(7)));
        check("7", "NotOlderThan", 5, Ok(Wanted::AtLeast(7)));
        check("7", "Exact", 0, Ok(Wanted::Exact(7)));
        check("x", "", 0, Err(400));
        check("-1", "", 0, Err(400));
        check("", "Exact", 0, Err(422));
        check("0", "Exact", 0, Err(422));
        check("7", "Newer", 0, Err(422));
    }
}
