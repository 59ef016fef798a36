//! From a query string to [`Options`], with upstream's errors for values that do not parse.

use kubewright_core::node_api::LogOptions;
use kubewright_core::{ApiError, Clock, ErrorList, FieldError, FieldPath, Options, Verb};
use std::borrow::Cow;

/// What a query string says beside the options of the request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Query {
    pub(super) options: Options,
    pub(super) watch: bool,
    pub(super) pretty: Option<bool>,
    /// `includeObject` of a table.
    pub(super) include_object: Option<String>,
    /// `timeout` of the whole request, in seconds.
    pub(super) timeout_seconds: Option<u64>,
}

/// Parses the query of a request about `subresource`.
///
/// # Errors
/// 400 for a number that is none, 422 for a value outside its enumeration.
pub(super) fn parse(query: &str, subresource: Option<&str>, clock: &dyn Clock) -> Result<Query, ApiError> {
    let mut out = Query::default();
    match subresource {
        Some("log") => out.options.log = Some(Box::default()),
        Some("exec" | "attach") => out.options.exec = Some(Box::default()),
        _ => {}
    }
    if query.is_empty() {
        return Ok(out);
    }
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if !(subresource_option(&mut out.options, &key, &value, clock)?
            || common_option(&mut out, &key, &value)?)
        {
            object_option(&mut out.options, &key, value)?;
        }
    }
    Ok(out)
}

/// The options of every request, whatever its verb. Says whether it knew the key.
fn common_option(out: &mut Query, key: &str, value: &str) -> Result<bool, ApiError> {
    match key {
        "watch" => out.watch = boolean(value),
        "pretty" => out.pretty = Some(boolean(value)),
        "includeObject" => out.include_object = Some(value.to_owned()),
        "timeout" => out.timeout_seconds = Some(duration_seconds(value)?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// The options of list, watch, create, update, patch and delete.
fn object_option(options: &mut Options, key: &str, value: Cow<'_, str>) -> Result<(), ApiError> {
    match key {
        "labelSelector" => options.label_selector = text(value),
        "fieldSelector" => options.field_selector = text(value),
        "limit" => options.limit = Some(count(&value)?).filter(|n| *n > 0),
        "continue" => options.continue_token = text(value),
        "resourceVersion" => options.resource_version = text(value),
        "resourceVersionMatch" => options.resource_version_match = text(value),
        "timeoutSeconds" => options.timeout_seconds = Some(count(&value)?),
        "allowWatchBookmarks" => options.allow_watch_bookmarks = boolean(&value),
        "sendInitialEvents" => options.send_initial_events = Some(boolean(&value)),
        "dryRun" if value.is_empty() => {}
        "dryRun" => {
            one_of("dryRun", &value, &["All"])?;
            options.dry_run = true;
        }
        "fieldManager" => options.field_manager = text(value),
        "fieldValidation" if value.is_empty() => {}
        "fieldValidation" => {
            one_of("fieldValidation", &value, &["", "Ignore", "Strict", "Warn"])?;
            options.field_validation = text(value);
        }
        "force" => options.force = Some(boolean(&value)),
        "gracePeriodSeconds" => options.grace_period_seconds = Some(integer(&value)?),
        "propagationPolicy" => options.propagation_policy = text(value),
        "orphanDependents" => options.orphan_dependents = Some(boolean(&value)),
        "container" => options.container = text(value),
        "ports" => ports(&mut options.ports, &value)?,
        _ => {}
    }
    Ok(())
}

/// The options of log, exec and attach, where the path names one of them. Says whether it knew the key.
fn subresource_option(
    options: &mut Options,
    key: &str,
    value: &str,
    clock: &dyn Clock,
) -> Result<bool, ApiError> {
    if let Some(log) = &mut options.log {
        return log_option(log, key, value, clock);
    }
    let Some(exec) = &mut options.exec else { return Ok(false) };
    match key {
        "command" => exec.command.push(value.to_owned()),
        "stdin" => exec.stdin = boolean(value),
        "stdout" => exec.stdout = boolean(value),
        "stderr" => exec.stderr = boolean(value),
        "tty" => exec.tty = boolean(value),
        _ => return Ok(false),
    }
    Ok(true)
}

fn log_option(log: &mut LogOptions, key: &str, value: &str, clock: &dyn Clock) -> Result<bool, ApiError> {
    match key {
        "follow" => log.follow = boolean(value),
        "previous" => log.previous = boolean(value),
        "timestamps" => log.timestamps = boolean(value),
        "tailLines" => log.tail_lines = Some(natural("tailLines", value, 0)?),
        "limitBytes" => log.limit_bytes = Some(natural("limitBytes", value, 1)?),
        "stream" => log.stream = Some(value.to_owned()),
        "sinceTime" => {
            let time = value.parse();
            log.since =
                Some(time.map_err(|e| {
                    ApiError::bad_request(format!("parsing time {value:?} as RFC 3339: {e}"))
                })?);
        }
        "sinceSeconds" => {
            let seconds = i64::try_from(natural("sinceSeconds", value, 1)?).unwrap_or(i64::MAX);
            let before = jiff::SignedDuration::from_secs(seconds);
            log.since = Some(clock.now().checked_sub(before).unwrap_or(jiff::Timestamp::MIN));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn text(value: Cow<'_, str>) -> Option<String> {
    Some(value.into_owned()).filter(|v| !v.is_empty())
}

/// Upstream takes everything but `false` and `0` for true, the empty value included.
fn boolean(value: &str) -> bool {
    !(value.eq_ignore_ascii_case("false") || value == "0")
}

fn integer(value: &str) -> Result<i64, ApiError> {
    value.parse().map_err(|e: std::num::ParseIntError| {
        let why = match e.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        ApiError::bad_request(format!("strconv.ParseInt: parsing {value:?}: {why}"))
    })
}

/// A number of things; a negative one counts as none, as upstream has it.
fn count(value: &str) -> Result<u64, ApiError> {
    integer(value).map(|n| u64::try_from(n).unwrap_or(0))
}

fn natural(field: &str, value: &str, least: i64) -> Result<u64, ApiError> {
    let n = integer(value)?;
    if n >= least {
        return Ok(n.unsigned_abs());
    }
    let why = if least > 0 { "must be greater than 0" } else { "must be greater than or equal to 0" };
    let errors = [FieldError::invalid(&FieldPath::new(field), n, why)];
    Err(ApiError::invalid("", "PodLogOptions", "", &errors))
}

fn one_of(field: &str, value: &str, allowed: &[&str]) -> Result<(), ApiError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let errors = [FieldError::not_supported(&FieldPath::new(field), value, allowed)];
    Err(ApiError::invalid("meta.k8s.io", "Options", "", &errors))
}

fn ports(out: &mut Vec<u16>, value: &str) -> Result<(), ApiError> {
    for port in value.split(',').filter(|p| !p.is_empty()) {
        let number = port.parse().ok().filter(|p| *p > 0);
        out.push(number.ok_or_else(|| ApiError::bad_request(format!("unable to parse {port:?} as a port")))?);
    }
    Ok(())
}

/// A Go duration of whole seconds or a sum of its units (`90s`, `1m30s`, `500ms` counts as 0).
fn duration_seconds(value: &str) -> Result<u64, ApiError> {
    let bad = || {
        ApiError::bad_request(format!(
            "invalid timeout specified in the request URL - time: invalid duration {value:?}"
        ))
    };
    if value == "0" || value.is_empty() {
        return Ok(0);
    }
    let (mut total, mut rest) = (0.0, value);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(bad()),
            };
        rest = &rest[unit..];
    }
    Ok(total as u64)
}

/// What may only be said once verb and body are known.
///
/// # Errors
/// 422 for `force` on a patch that is no apply.
pub(super) fn check(options: &Options, verb: Verb, apply: bool) -> Result<(), ApiError> {
    let mut errors = ErrorList::new();
    if verb == Verb::Patch && options.force.is_some() && !apply {
        let path = FieldPath::new("force");
        errors.push(FieldError::forbidden(&path, "may not be specified for non-apply patch"));
    }
    if verb == Verb::Patch && apply && options.field_manager.is_none() {
        errors.push(FieldError::required(&FieldPath::new("fieldManager"), "is required for apply patch"));
    }
    if let Some(manager) = options.field_manager.as_deref() {
        let path = FieldPath::new("fieldManager");
        if manager.len() > 128 {
            errors.push(FieldError::too_long(&path, 128));
        }
        if manager.chars().any(char::is_control) {
            errors.push(FieldError::invalid(&path, manager, "should contain only printable characters"));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", kind_of(verb), "", &errors)) }
}

fn kind_of(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
        Verb::Get => "GetOptions",
        Verb::List | Verb::Watch => "ListOptions",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_core::ManualClock;

    fn query(text: &str, subresource: Option<&str>) -> Result<Query, ApiError> {
        parse(text, subresource, &ManualClock::new("2026-01-01T00:01:00Z".parse().unwrap()))
    }

    #[test]
    fn values_are_read_as_upstream_reads_them() {
        let q = query("labelSelector=a%3Db%2Cc&limit=500&watch=1&allowWatchBookmarks=true&timeoutSeconds=7&dryRun=All&unknown=1", None)
            .unwrap();
        assert!(q.watch && q.options.allow_watch_bookmarks && q.options.dry_run);
        assert_eq!(q.options.label_selector.as_deref(), Some("a=b,c"));
        assert_eq!((q.options.limit, q.options.timeout_seconds), (Some(500), Some(7)));
        let q = query("command=sh&command=-c&stdin=true&stdout=0&tty&container=c", Some("exec")).unwrap();
        let exec = q.options.exec.unwrap();
        assert_eq!(exec.command, ["sh", "-c"]);
        assert!(exec.stdin && !exec.stdout && exec.tty);
        assert_eq!(q.options.container.as_deref(), Some("c"));
        let q = query("follow=true&tailLines=5&sinceSeconds=60&container=c", Some("log")).unwrap();
        let log = q.options.log.unwrap();
        assert_eq!((log.follow, log.tail_lines), (true, Some(5)));
        assert_eq!(log.since.unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(query("timeout=1m30s", None).unwrap().timeout_seconds, Some(90));
        assert_eq!(query("ports=80,8080", None).unwrap().options.ports, [80, 8080]);
    }

    #[test]
    fn bad_values_are_refused() {
        let check = |text: &str, subresource: Option<&str>, code: u16, message: &str| {
            let e = query(text, subresource).unwrap_err();
            assert_eq!(e.code(), code, "{text}");
            assert!(e.message().contains(message), "{text}: {e}");
        };
        check("limit=abc", None, 400, "strconv.ParseInt: parsing \"abc\": invalid syntax");
        check("timeoutSeconds=99999999999999999999", None, 400, "value out of range");
        check("dryRun=Some", None, 422, "dryRun: Unsupported value: \"Some\": supported values: \"All\"");
        check("fieldValidation=x", None, 422, "fieldValidation");
        check("tailLines=-1", Some("log"), 422, "must be greater than or equal to 0");
        check("sinceTime=x", Some("log"), 400, "RFC 3339");
        check("timeout=1y", None, 400, "invalid duration");
        check("ports=0", None, 400, "unable to parse");
    }

    #[test]
    fn patches_need_their_own_options() {
        let check = |text: &str, apply: bool, want: Option<u16>| {
            let options = query(text, None).unwrap().options;
            assert_eq!(super::check(&options, Verb::Patch, apply).err().map(|e| e.code()), want, "{text}");
        };
        check("force=true", false, Some(422));
        check("force=true", true, Some(422));
        check("force=true&fieldManager=me", true, None);
        check("fieldManager=%07", false, Some(422));
    }
}
