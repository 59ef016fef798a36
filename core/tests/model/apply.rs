//! Server-side apply against a flat model: an object is a set of paths with values, a manager a set of paths.

use super::check;
use kubewright_core::managed::{FieldSet, FieldWrite, apply, track};
use kubewright_core::{ApiError, Schema};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Paths = BTreeMap<String, Value>;
type Owners = BTreeMap<(String, String), BTreeSet<String>>;

/// What one container says, as far as it says it.
#[derive(Clone, Debug)]
struct Container {
    image: Option<u8>,
    args: Option<u8>,
    env: BTreeMap<String, u8>,
}

type Containers = BTreeMap<String, Container>;

#[derive(Clone, Debug)]
enum Step {
    Apply { who: u8, force: bool, labels: BTreeMap<String, u8>, containers: Containers },
    Label { who: u8, label: String, value: Option<u8> },
    Image { who: u8, at: usize, value: u8 },
    Add { who: u8, name: String, container: Container },
    Remove { who: u8, at: usize },
}

fn container() -> impl Strategy<Value = Container> {
    (prop::option::of(0u8..3), prop::option::of(0u8..2), btree_map("[ef]", 0u8..2, 0..3))
        .prop_map(|(image, args, env)| Container { image, args, env })
}

fn step() -> impl Strategy<Value = Step> {
    let labels = btree_map("[xyz]", 0u8..2, 0..3);
    let containers = btree_map("[abc]", container(), 0..4);
    prop_oneof![
        5 => (0u8..3, any::<bool>(), labels, containers)
            .prop_map(|(who, force, labels, containers)| Step::Apply { who, force, labels, containers }),
        1 => (0u8..3, "[xyz]", prop::option::of(0u8..3)).prop_map(|(who, label, value)| Step::Label { who, label, value }),
        1 => (0u8..3, 0usize..3, 0u8..3).prop_map(|(who, at, value)| Step::Image { who, at, value }),
        1 => (0u8..3, "[abc]", container()).prop_map(|(who, name, container)| Step::Add { who, name, container }),
        1 => (0u8..3, 0usize..3).prop_map(|(who, at)| Step::Remove { who, at }),
    ]
}

fn written(name: &str, container: &Container) -> Value {
    let mut out = json!({"name": name});
    if let Some(image) = container.image {
        out["image"] = json!(format!("i{image}"));
    }
    if let Some(args) = container.args {
        out["args"] = json!([format!("{args}"), "x"]);
    }
    if !container.env.is_empty() {
        let env = container.env.iter().map(|(name, value)| json!({"name": name, "value": value.to_string()}));
        out["env"] = env.collect();
    }
    out
}

fn object(labels: &BTreeMap<String, u8>, containers: &Containers) -> Value {
    let mut out = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
    if !labels.is_empty() {
        let labels: Map<String, Value> =
            labels.iter().map(|(k, v)| (k.clone(), json!(v.to_string()))).collect();
        out["metadata"]["labels"] = Value::Object(labels);
    }
    if !containers.is_empty() {
        let list: Vec<Value> = containers.iter().map(|(name, c)| written(name, c)).collect();
        out["spec"] = json!({"template": {"spec": {"containers": list}}});
    }
    out
}

/// The paths of an object in the words of `FieldsV1`: scalars, atomic lists, and the items of keyed lists themselves.
fn flat(object: &Value) -> Paths {
    let mut out = Paths::new();
    let labels = object["metadata"]["labels"].as_object();
    for (name, value) in labels.into_iter().flatten() {
        out.insert(format!("f:metadata/f:labels/f:{name}"), value.clone());
    }
    let list = object["spec"]["template"]["spec"]["containers"].as_array();
    items("f:spec/f:template/f:spec/f:containers", list, &mut out);
    out
}

fn items(at: &str, list: Option<&Vec<Value>>, out: &mut Paths) {
    for item in list.into_iter().flatten() {
        let at = format!("{at}/k:{{\"name\":{}}}", item["name"]);
        out.insert(at.clone(), Value::Null);
        for (field, value) in item.as_object().into_iter().flatten() {
            match field.as_str() {
                "env" => items(&format!("{at}/f:env"), value.as_array(), out),
                _ => drop(out.insert(format!("{at}/f:{field}"), value.clone())),
            }
        }
    }
}

/// The paths of a manager: leaves, and items that are owned themselves.
fn owned(at: &str, fields: &Value, out: &mut BTreeSet<String>) {
    let map = fields.as_object().expect("an object");
    let item = at.rsplit('/').next().is_some_and(|last| last.starts_with("k:"));
    if map.is_empty() || (item && map.contains_key(".")) {
        out.insert(at.to_owned());
    }
    for (element, below) in map.iter().filter(|(e, _)| *e != ".") {
        let at = if at.is_empty() { element.clone() } else { format!("{at}/{element}") };
        owned(&at, below, out);
    }
}

fn owners(object: &Value) -> Owners {
    let mut out = Owners::new();
    for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let mut fields = BTreeSet::new();
        owned("", &entry["fieldsV1"], &mut fields);
        fields.retain(|f| f.starts_with("f:metadata/f:labels/f:") || f.contains("/k:"));
        let text = |field: &str| entry[field].as_str().expect("text").to_owned();
        if !fields.is_empty() {
            out.insert((text("manager"), text("operation")), fields);
        }
    }
    out
}

/// The model.
#[derive(Clone, Default)]
struct Model {
    live: Paths,
    owners: Owners,
}

impl Model {
    /// How many fields of others an apply would change, or what it makes.
    fn apply(&mut self, who: &str, applied: &Paths, force: bool) -> Result<(), usize> {
        let me = (who.to_owned(), "Apply".to_owned());
        let changed: BTreeSet<&String> = applied
            .iter()
            .filter(|(path, value)| self.live.get(*path) != Some(*value))
            .map(|(p, _)| p)
            .collect();
        let others = || self.owners.iter().filter(|(other, _)| **other != me);
        let conflicts: usize =
            others().map(|(_, paths)| paths.iter().filter(|p| changed.contains(p)).count()).sum();
        if conflicts > 0 && !force {
            return Err(conflicts);
        }
        for (other, paths) in &mut self.owners {
            if *other != me {
                paths.retain(|p| !changed.contains(p));
            }
        }
        let last = self.owners.remove(&me).unwrap_or_default();
        self.live.extend(applied.clone());
        let held: BTreeSet<String> = self.owners.values().flatten().cloned().collect();
        for path in last.iter().filter(|p| !applied.contains_key(*p) && !held.contains(*p)) {
            self.live.remove(path);
        }
        // What stood in an item that is gone is gone with it, whosever it was.
        self.drop_orphans();
        for paths in self.owners.values_mut() {
            paths.retain(|p| self.live.contains_key(p));
        }
        self.owners.insert(me, applied.keys().cloned().collect());
        self.owners.retain(|_, paths| !paths.is_empty());
        Ok(())
    }

    fn drop_orphans(&mut self) {
        let have: BTreeSet<String> = self.live.keys().cloned().collect();
        let gone = |path: &String| {
            path.match_indices('}').any(|(at, _)| path[..=at].ends_with('}') && !have.contains(&path[..=at]))
        };
        self.live.retain(|path, _| !gone(path));
    }

    fn update(&mut self, who: &str, new: Paths) {
        let changed: BTreeSet<String> =
            new.iter().filter(|(p, v)| self.live.get(*p) != Some(*v)).map(|(p, _)| p.clone()).collect();
        for paths in self.owners.values_mut() {
            paths.retain(|p| !changed.contains(p) && new.contains_key(p));
        }
        self.owners.entry((who.to_owned(), "Update".to_owned())).or_default().extend(changed);
        self.owners.retain(|_, paths| !paths.is_empty());
        self.live = new;
    }
}

/// The implementation, with one object.
struct World {
    schema: Arc<Schema>,
    live: Value,
}

impl World {
    fn write<T>(&self, manager: &str, run: impl FnOnce(&FieldWrite<'_>) -> T) -> T {
        let ignored = FieldSet::of(&["status"]);
        let (schema, now) = (&*self.schema, "2026-01-02T03:04:05Z");
        run(&FieldWrite { schema, api_version: "apps/v1", subresource: "", manager, now, ignored: &ignored })
    }

    fn apply(&mut self, who: &str, object: &Value, force: bool) -> Result<(), ApiError> {
        self.live = self.write(who, |w| apply(w, Some(&self.live), object, force))?;
        Ok(())
    }

    fn update(&mut self, who: &str, mut new: Value) {
        self.write(who, |w| track(w, Some(&self.live), &mut new));
        self.live = new;
    }
}

/// A world with an object that has one field which nobody touches.
fn start() -> (World, Model) {
    let schema = Schema::builtin("apps", "v1", "Deployment").unwrap();
    let mut first = object(&BTreeMap::from([("base".to_owned(), 0)]), &Containers::new());
    let world = World { schema, live: Value::Null };
    world.write("base", |w| track(w, None, &mut first));
    first["metadata"]["uid"] = json!("u");
    let world = World { live: first, ..world };
    let model = Model { live: flat(&world.live), owners: owners(&world.live) };
    (world, model)
}

fn containers(object: &mut Value) -> &mut Vec<Value> {
    let list = &mut object["spec"]["template"]["spec"]["containers"];
    if !list.is_array() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap()
}

/// The object after the edit of a step that is no apply; `None` where there is nothing to edit.
fn edited(live: &Value, step: &Step) -> Option<(u8, Value)> {
    let mut new = live.clone();
    let who = match step {
        Step::Apply { .. } => return None,
        Step::Label { who, label, value } => {
            match value {
                Some(value) => new["metadata"]["labels"][label] = json!(value.to_string()),
                None => drop(new["metadata"]["labels"].as_object_mut()?.remove(label)),
            }
            *who
        }
        Step::Image { who, at, value } => {
            let list = containers(&mut new);
            let at = at.checked_rem(list.len())?;
            list[at]["image"] = json!(format!("i{value}"));
            *who
        }
        Step::Add { who, name, container } => {
            let list = containers(&mut new);
            if list.iter().any(|c| c["name"] == *name) {
                return None;
            }
            list.push(written(name, container));
            *who
        }
        Step::Remove { who, at } => {
            let list = containers(&mut new);
            let at = at.checked_rem(list.len())?;
            list.remove(at);
            *who
        }
    };
    Some((who, new))
}

fn name(who: u8) -> String {
    format!("m{who}")
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let (mut world, mut model) = start();
    for step in steps {
        let before = world.live.clone();
        if let Step::Apply { who, force, labels, containers } = step {
            let applied = object(labels, containers);
            let wanted = model.apply(&name(*who), &flat(&applied), *force);
            match (world.apply(&name(*who), &applied, *force), wanted) {
                (Ok(()), Ok(())) => {
                    let once = world.live.clone();
                    let again = world.apply(&name(*who), &applied, false);
                    prop_assert!(again.is_ok(), "{:?}", again);
                    prop_assert_eq!(&world.live, &once, "the second apply of {:?} changes something", step);
                }
                (Err(e), Err(conflicts)) => {
                    let causes =
                        e.status().details.as_ref().and_then(|d| d.causes.as_ref()).map_or(0, Vec::len);
                    prop_assert_eq!((e.code(), causes), (409, conflicts), "{}", e);
                }
                (did, wanted) => prop_assert!(false, "{:?} gives {:?}, not {:?}", step, did, wanted),
            }
        } else if let Some((who, new)) = edited(&world.live, step) {
            model.update(&name(who), flat(&new));
            world.update(&name(who), new);
        }
        prop_assert_eq!(flat(&world.live), model.live.clone(), "{:?} on {}", step, before);
        prop_assert_eq!(owners(&world.live), model.owners.clone(), "{:?} on {}", step, before);
    }
    Ok(())
}

#[test]
fn applies_and_updates_agree_with_the_model() {
    check(400, vec(step(), 1..8), |steps| run(&steps));
}
