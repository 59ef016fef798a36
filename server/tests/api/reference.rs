//! The published API against Kubernetes 1.36's: every path, verb, parameter, definition, field and type of its generally available groups.
//!
//! `reference/kubernetes-1.36.txt` holds the facts of upstream's OpenAPI v2 document in short; `reference/differences.txt` says where this
//! server's differ, and this test keeps that list exact. Both are written anew by running it with `KUBEWRIGHT_REFERENCE` naming
//! upstream's document (`api/openapi-spec/swagger.json` of that release) as a file.

use super::common::{Plane, builder};
use super::openapi::document;
use kubewright_core::SystemClock;
use kubewright_core::api::{BuiltinOptions, builtin};
use kubewright_server::auth::{Access, SigningKey};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

const FACTS: &str = "tests/api/reference/kubernetes-1.36.txt";
const DIFFERENCES: &str = "tests/api/reference/differences.txt";

/// The facts of a document: under each heading (an operation or a definition) one line for each parameter or field.
type Facts = BTreeMap<String, BTreeSet<String>>;

/// Alpha and beta versions are off unless asked for, upstream too; and the files of a node's logs are no API of the server's.
fn counts(path: &str) -> bool {
    let version = path.split('/').nth(3).unwrap_or("");
    !version.contains("alpha")
        && !version.contains("beta")
        && !path.starts_with("/logs")
        && !path.contains("example")
}

fn facts(document: &Value) -> Facts {
    let mut facts = Facts::new();
    let mut reached = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| counts(path)) {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(_, o)| o.is_object()) {
            let kind = &operation["x-kubernetes-group-version-kind"];
            let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
            let about =
                format!("{}/{}/{}", text(&kind["group"]), text(&kind["version"]), text(&kind["kind"]));
            let heading = format!("{method} {path}");
            let lines = facts.entry(heading).or_default();
            lines.insert(format!("action {}", text(&operation["x-kubernetes-action"])));
            lines.insert(format!("kind {about}"));
            lines.insert(format!("id {}", text(&operation["operationId"])));
            for list in [&item["parameters"], &operation["parameters"]] {
                for parameter in list.as_array().into_iter().flatten() {
                    lines.insert(parameter_fact(parameter, document, &mut reached));
                }
            }
            for (code, answer) in operation["responses"].as_object().unwrap() {
                lines.insert(format!("answer {code} {}", type_of(&answer["schema"], &mut reached)));
            }
        }
    }
    while let Some(name) = reached.iter().find(|name| !facts.contains_key(*name)).cloned() {
        let lines = definition_facts(&document["definitions"][&name], &mut reached);
        facts.insert(name, lines);
    }
    facts
}

fn parameter_fact(parameter: &Value, document: &Value, reached: &mut BTreeSet<String>) -> String {
    let shared = parameter["$ref"].as_str().and_then(|r| document.pointer(r.strip_prefix('#')?));
    let parameter = shared.unwrap_or(parameter);
    let shape = if parameter["schema"].is_object() { &parameter["schema"] } else { parameter };
    let required = if parameter["required"] == true { " required" } else { "" };
    let (place, name) = (parameter["in"].as_str().unwrap(), parameter["name"].as_str().unwrap());
    format!("parameter {place} {name} {}{required}", type_of(shape, reached))
}

fn definition_facts(definition: &Value, reached: &mut BTreeSet<String>) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    lines.insert(format!("type {}", type_of(definition, reached)));
    for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
        // Delete options and watch events are listed with every group there is.
        if definition["x-kubernetes-group-version-kind"].as_array().is_some_and(|all| all.len() < 3) {
            lines.insert(
                format!("kind {}/{}/{}", kind["group"], kind["version"], kind["kind"]).replace('"', ""),
            );
        }
    }
    let required: BTreeSet<&str> =
        definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (field, schema) in definition["properties"].as_object().into_iter().flatten() {
        let mut line = format!("field {field} {}", type_of(schema, reached));
        if required.contains(field.as_str()) {
            line.push_str(" required");
        }
        for extension in ["list-type", "list-map-keys", "map-type", "patch-merge-key", "patch-strategy"] {
            let value = &schema[format!("x-kubernetes-{extension}")];
            if !value.is_null() {
                write!(line, " {extension}={value}").unwrap();
            }
        }
        lines.insert(line);
    }
    lines
}

/// A type in short, with the definitions that it names added to those reached.
fn type_of(schema: &Value, reached: &mut BTreeSet<String>) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.trim_start_matches("#/definitions/").to_owned();
        reached.insert(name.clone());
        return name;
    }
    let format = schema["format"].as_str().map(|f| format!("({f})")).unwrap_or_default();
    match schema["type"].as_str() {
        Some("array") => format!("[{}]", type_of(&schema["items"], reached)),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("{{{}}}", type_of(&schema["additionalProperties"], reached))
        }
        Some(other) => format!("{other}{format}"),
        None => "any".to_owned(),
    }
}

fn write_facts(facts: &Facts) -> String {
    let mut text = String::new();
    for (heading, lines) in facts {
        writeln!(text, "{heading}").unwrap();
        lines.iter().for_each(|line| writeln!(text, "\t{line}").unwrap());
    }
    text
}

fn read_facts(text: &str) -> Facts {
    let mut facts = Facts::new();
    let mut heading = String::new();
    for line in text.lines() {
        match line.strip_prefix('\t') {
            Some(fact) => drop(facts.entry(heading.clone()).or_default().insert(fact.to_owned())),
            None => {
                line.clone_into(&mut heading);
                facts.entry(heading.clone()).or_default();
            }
        }
    }
    facts
}

/// What only upstream has (`-`) and what only this server has (`+`).
fn differences(upstream: &Facts, ours: &Facts) -> String {
    let mut text = String::new();
    let headings: BTreeSet<&String> = upstream.keys().chain(ours.keys()).collect();
    for heading in headings {
        match (upstream.get(heading), ours.get(heading)) {
            (Some(_), None) => writeln!(text, "- {heading}").unwrap(),
            (None, Some(_)) => writeln!(text, "+ {heading}").unwrap(),
            (Some(upstream), Some(ours)) if upstream != ours => {
                writeln!(text, "  {heading}").unwrap();
                upstream.difference(ours).for_each(|fact| writeln!(text, "-\t{fact}").unwrap());
                ours.difference(upstream).for_each(|fact| writeln!(text, "+\t{fact}").unwrap());
            }
            _ => {}
        }
    }
    text
}

/// Every built-in kind, and the reviews.
async fn plane() -> Plane {
    let access = Access::rbac(SigningKey::generate().unwrap(), Arc::new(SystemClock));
    let kinds = builtin(&BuiltinOptions::default());
    let builder = kinds.into_iter().fold(builder(), |builder, kind| builder.kind(kind));
    Plane(access.install(builder).build().await.unwrap())
}

#[tokio::test]
async fn the_published_api_is_upstreams() {
    let ours = facts(&document(&plane().await, "/openapi/v2").await);
    if let Some(path) = std::env::var_os("KUBEWRIGHT_REFERENCE") {
        let upstream = facts(&serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap());
        std::fs::write(FACTS, write_facts(&upstream)).unwrap();
        std::fs::write(DIFFERENCES, differences(&upstream, &ours)).unwrap();
    }
    let upstream = read_facts(&std::fs::read_to_string(FACTS).unwrap());
    assert!(upstream.len() > 1000, "the facts are all there");
    let known = std::fs::read_to_string(DIFFERENCES).unwrap();
    let found = differences(&upstream, &ours);
    for line in found.lines().filter(|line| !known.lines().any(|k| k == *line)) {
        eprintln!("not known yet: {line}");
    }
    assert!(found == known, "the list of differences is no longer exact; see the head of this file");
}
