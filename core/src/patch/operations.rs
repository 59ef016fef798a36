//! JSON patch (RFC 6902) as upstream's library reads it: negative indices count from the end, a `test` for null passes where nothing
//! is, a `replace` of a missing field sets it.
//!
//! A patch is a program that a stranger wrote: what it copies, shifts and nests is bounded, whatever the order of its steps.

use serde_json::{Map, Value};
use std::io::Write;

/// How many bytes of JSON all the copies of a patch may make, as upstream.
const COPIED_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// How many values may be looked at or shifted in a list by all the steps of a patch: about a tenth of a second.
const WORK_MAX: usize = 20_000_000;

/// Why a patch stopped.
#[derive(Debug)]
pub(super) enum Stopped {
    /// It does not apply.
    Refused(String),
    /// It asks for too much.
    TooLarge(String),
}

fn refused<T>(why: String) -> Result<T, Stopped> {
    Err(Stopped::Refused(why))
}

/// Runs all operations; on an error the document is in the middle of them.
pub(super) fn run(document: &mut Value, operations: &[Value]) -> Result<(), Stopped> {
    let mut run = Run { document, copied: 0, work: 0 };
    for operation in operations {
        run.step(&Operation(operation))?;
    }
    Ok(())
}

/// One operation, as it was sent.
struct Operation<'a>(&'a Value);

impl<'a> Operation<'a> {
    fn text(&self, field: &str) -> Result<&'a str, Stopped> {
        let what = || {
            let kind = self.0.get("op").and_then(Value::as_str).unwrap_or("unknown");
            Stopped::Refused(format!("{kind} operation failed to decode {field}: missing value"))
        };
        self.0.get(field).and_then(Value::as_str).ok_or_else(what)
    }

    fn value(&self) -> Option<&'a Value> {
        self.0.get("value")
    }
}

struct Run<'a> {
    document: &'a mut Value,
    copied: u64,
    work: usize,
}

impl Run<'_> {
    fn step(&mut self, operation: &Operation<'_>) -> Result<(), Stopped> {
        match operation.0.get("op").and_then(Value::as_str) {
            Some("add") => {
                let value = operation.value().cloned().unwrap_or(Value::Null);
                self.add("add", operation.text("path")?, value)
            }
            Some("remove") => self.remove("remove", operation.text("path")?).map(drop),
            Some("replace") => self.replace(operation),
            Some("move") => {
                let value = self.remove("move", operation.text("from")?)?;
                self.add("move", operation.text("path")?, value)
            }
            Some("copy") => {
                let value = self.get("copy", operation.text("from")?)?.cloned().unwrap_or(Value::Null);
                let to = operation.text("path")?;
                self.count_copy(&value)?;
                self.add("copy", to, value)
            }
            Some("test") => self.test(operation),
            other => refused(format!("Unexpected kind: {}", other.unwrap_or("unknown"))),
        }
    }

    /// What stands at a path: nothing where an object has no such field.
    fn get(&self, what: &str, path: &str) -> Result<Option<&Value>, Stopped> {
        let Some((parent, key)) = parent(self.document, path) else { return missing(what, path) };
        match parent {
            Value::Object(map) => Ok(map.get(&key)),
            Value::Array(list) => Ok(list.get(index(&key, list.len(), what, path)?)),
            _ => missing(what, path),
        }
    }

    fn test(&mut self, operation: &Operation<'_>) -> Result<(), Stopped> {
        let path = operation.text("path")?;
        let wanted = operation.value().unwrap_or(&Value::Null);
        let same = if path.is_empty() {
            *self.document == *wanted
        } else {
            self.get("test", path)?.unwrap_or(&Value::Null) == wanted
        };
        if same { Ok(()) } else { refused(format!("testing value {path} failed: test failed")) }
    }

    fn replace(&mut self, operation: &Operation<'_>) -> Result<(), Stopped> {
        let path = operation.text("path")?;
        let value = operation.value().cloned().unwrap_or(Value::Null);
        if path.is_empty() {
            if !(value.is_object() || value.is_array()) {
                return refused("replace operation value must be object or array".to_owned());
            }
            *self.document = value;
            return Ok(());
        }
        self.check_depth(path, &value)?;
        let Some((parent, key)) = parent_mut(self.document, path) else { return missing("replace", path) };
        match parent {
            Value::Object(map) => drop(map.insert(key, value)),
            Value::Array(list) => {
                let at = index(&key, list.len(), "replace", path)?;
                list[at] = value;
            }
            _ => return missing("replace", path),
        }
        Ok(())
    }

    fn add(&mut self, what: &str, path: &str, value: Value) -> Result<(), Stopped> {
        self.check_depth(path, &value)?;
        let Some((parent, key)) = parent_mut(self.document, path) else { return missing(what, path) };
        let shifted = match parent {
            Value::Object(map) => {
                map.insert(key, value);
                0
            }
            Value::Array(list) if key == "-" => {
                list.push(value);
                0
            }
            Value::Array(list) => {
                // One place more than there are items: after the last.
                let at = index(&key, list.len() + 1, what, path)?;
                list.insert(at, value);
                list.len() - at
            }
            _ => return missing(what, path),
        };
        self.count(shifted)
    }

    fn remove(&mut self, what: &str, path: &str) -> Result<Value, Stopped> {
        let Some((parent, key)) = parent_mut(self.document, path) else { return missing(what, path) };
        let (value, shifted) = match parent {
            Value::Object(map) => (take(map, &key, what, path)?, 0),
            Value::Array(list) => {
                let at = index(&key, list.len(), what, path)?;
                (list.remove(at), list.len() - at)
            }
            _ => return missing(what, path),
        };
        self.count(shifted)?;
        Ok(value)
    }

    fn count(&mut self, work: usize) -> Result<(), Stopped> {
        self.work = self.work.saturating_add(work);
        if self.work > WORK_MAX {
            return Err(Stopped::TooLarge("the JSON patch takes too much work".to_owned()));
        }
        Ok(())
    }

    fn count_copy(&mut self, value: &Value) -> Result<(), Stopped> {
        let mut counter = Counter(0);
        // Counting does not fail.
        let _ = serde_json::to_writer(&mut counter, value);
        self.copied += counter.0;
        if self.copied > COPIED_BYTES_MAX {
            let why = format!(
                "Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit {COPIED_BYTES_MAX}",
                self.copied
            );
            return Err(Stopped::TooLarge(why));
        }
        Ok(())
    }

    /// Every later pass over the document recurses: none becomes deeper than one that is parsed.
    fn check_depth(&mut self, path: &str, value: &Value) -> Result<(), Stopped> {
        let above = path.bytes().filter(|b| *b == b'/').count();
        let mut seen = 0;
        let fits =
            crate::json::DEPTH_MAX.checked_sub(above).is_some_and(|left| within(value, left, &mut seen));
        self.count(seen)?;
        if fits {
            Ok(())
        } else {
            Err(Stopped::TooLarge("the result of the JSON patch is nested too deep".to_owned()))
        }
    }
}

/// Whether a value has at most so many levels of lists and objects.
fn within(value: &Value, left: usize, seen: &mut usize) -> bool {
    *seen += 1;
    match value {
        Value::Array(list) => left > 0 && list.iter().all(|v| within(v, left - 1, seen)),
        Value::Object(map) => left > 0 && map.values().all(|v| within(v, left - 1, seen)),
        _ => true,
    }
}

fn take(map: &mut Map<String, Value>, key: &str, what: &str, path: &str) -> Result<Value, Stopped> {
    match map.remove(key) {
        Some(value) => Ok(value),
        // Upstream moves what is not there as null, and then can't take it away.
        None => refused(format!(
            "error in {what} for path: '{path}': Unable to remove nonexistent key: {key}: missing value"
        )),
    }
}

fn missing<T>(what: &str, path: &str) -> Result<T, Stopped> {
    refused(format!("{what} operation does not apply: doc is missing path: {path:?}: missing value"))
}

/// The container and the last step of a path.
fn parent<'v>(document: &'v Value, path: &str) -> Option<(&'v Value, String)> {
    let (above, key) = steps(path)?;
    let mut at = document;
    for step in above {
        at = match at {
            Value::Object(map) => map.get(&decoded(step))?,
            Value::Array(list) => list.get(place(&decoded(step), list.len())?)?,
            _ => return None,
        };
    }
    Some((at, decoded(key)))
}

fn parent_mut<'v>(document: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    let (above, key) = steps(path)?;
    let mut at = document;
    for step in above {
        at = match at {
            Value::Object(map) => map.get_mut(&decoded(step))?,
            Value::Array(list) => {
                let at = place(&decoded(step), list.len())?;
                list.get_mut(at)?
            }
            _ => return None,
        };
    }
    Some((at, decoded(key)))
}

/// All steps of a path but the last, and the last.
fn steps(path: &str) -> Option<(impl Iterator<Item = &str>, &str)> {
    let (above, key) = path.rsplit_once('/')?;
    Some((above.split('/').skip(1), key))
}

fn decoded(step: &str) -> String {
    if step.contains('~') { step.replace("~1", "/").replace("~0", "~") } else { step.to_owned() }
}

/// A place of a list; negative ones count from its end.
fn place(key: &str, len: usize) -> Option<usize> {
    let at: i64 = key.parse().ok()?;
    let at = if at < 0 { i64::try_from(len).ok()?.checked_add(at)? } else { at };
    usize::try_from(at).ok().filter(|at| *at < len)
}

fn index(key: &str, len: usize, what: &str, path: &str) -> Result<usize, Stopped> {
    if let Some(at) = place(key, len) {
        return Ok(at);
    }
    let why = match key.parse::<i64>() {
        Ok(at) => format!("Unable to access invalid index: {at}: invalid index referenced"),
        Err(_) => format!("value was not a proper array index: '{key}'"),
    };
    refused(format!("error in {what} for path: '{path}': {why}"))
}

/// Counts the bytes written to it.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
