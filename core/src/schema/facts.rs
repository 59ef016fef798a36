//! The facts about the built-in kinds that no crate carries: list types, merge keys, formats, required fields.
//!
//! `data/kubernetes-1.36.facts` holds them without prose. It is drawn by `cargo run -p kubewright-core --example facts` from the OpenAPI v2
//! document that a Kubernetes 1.36 API server publishes. Only an index is made at first use; a definition is compiled when it is first needed.

use super::node::{ListType, MergeFacts, Node, Struct, Type, seal};
use rustc_hash::FxHashMap;
use std::fmt;
use std::sync::{LazyLock, OnceLock};

const TABLE: &str = include_str!("../../data/kubernetes-1.36.facts");
/// What the names of most definitions start with; the table leaves it out.
const PREFIX: &str = "io.k8s.api.";
/// The definition of every object's metadata.
pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The fields of a JSON schema that hold schemas or something else, which the OpenAPI document does not tell.
const SCHEMAS: [&str; 3] = ["additionalItems", "additionalProperties", "items"];

/// A built-in definition, `io.k8s.api.core.v1.PodSpec`.
pub(crate) struct Definition {
    name: &'static str,
    lines: &'static str,
    flags: &'static str,
    node: OnceLock<Node>,
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Definition({})", self.name)
    }
}

struct Index {
    /// In the order of the table, which is sorted by short name.
    definitions: Vec<Definition>,
    by_name: FxHashMap<&'static str, usize>,
    /// `group/version/kind` to definition.
    by_kind: FxHashMap<&'static str, usize>,
}

static INDEX: LazyLock<Index> = LazyLock::new(index);

fn index() -> Index {
    let mut out =
        Index { definitions: Vec::new(), by_name: FxHashMap::default(), by_kind: FxHashMap::default() };
    for block in TABLE.split("\n=").skip(1) {
        let (head, lines) = block.split_once('\n').unwrap_or((block, ""));
        let mut words = head.split(' ');
        let name = words.next().unwrap_or("");
        let at = out.definitions.len();
        out.by_name.insert(name, at);
        for kind in words.clone().filter(|w| w.contains('/')) {
            out.by_kind.insert(kind, at);
        }
        let flags = head.get(name.len()..).unwrap_or("");
        out.definitions.push(Definition { name, lines, flags, node: OnceLock::new() });
    }
    out
}

/// The definition of this full name.
pub(crate) fn by_name(name: &str) -> Option<&'static Definition> {
    let index: &'static Index = &INDEX;
    let short = name.strip_prefix(PREFIX).unwrap_or(name);
    index.by_name.get(short).map(|&i| &index.definitions[i])
}

/// The definition of a kind.
pub(crate) fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Definition> {
    let index: &'static Index = &INDEX;
    index.by_kind.get(format!("{group}/{version}/{kind}").as_str()).map(|&i| &index.definitions[i])
}

/// All definitions.
pub(crate) fn all() -> impl Iterator<Item = &'static Definition> {
    let index: &'static Index = &INDEX;
    index.definitions.iter()
}

impl Definition {
    /// The name as in the OpenAPI document.
    pub(crate) fn full_name(&self) -> String {
        if self.name.starts_with("io.") { self.name.to_owned() } else { format!("{PREFIX}{}", self.name) }
    }

    /// The type's own name, `PodSpec`.
    pub(crate) fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// The name that Go prints, `v1.PodSpec`.
    pub(crate) fn go_name(&self) -> &'static str {
        let mut dots = self.name.rmatch_indices('.').map(|(i, _)| i);
        let start = dots.nth(1).map_or(0, |i| i + 1);
        &self.name[start..]
    }

    /// The kinds that this is the schema of.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        self.flags.split(' ').filter_map(|w| {
            let mut parts = w.splitn(3, '/');
            Some((parts.next()?, parts.next()?, parts.next()?))
        })
    }

    /// The compiled form.
    pub(crate) fn node(&'static self) -> &'static Node {
        self.node.get_or_init(|| self.compile())
    }

    fn compile(&'static self) -> Node {
        let atomic_map = self.flags.split(' ').any(|w| w == "atomic");
        let merge = atomic_map.then(|| Box::new(MergeFacts { atomic_map, ..MergeFacts::default() }));
        let mut s = Struct { name: self.short_name().into(), ..Struct::default() };
        for line in self.lines.lines() {
            let mut words = line.split(' ');
            let Some(name) = words.next().filter(|n| !n.is_empty()) else { continue };
            let mut ty = parse_type(words.next().unwrap_or("*"));
            if self.short_name() == "JSONSchemaProps" && SCHEMAS.contains(&name) {
                ty = Type::ObjectOr(self);
            }
            let (name, required) = name.strip_suffix('!').map_or((name, false), |n| (n, true));
            if required {
                s.required.push(name.into());
            }
            s.fields.insert(name.into(), Node { ty, merge: parse_merge(words), ..Node::default() });
        }
        seal(&mut s);
        Node { ty: Type::Struct(Box::new(s)), merge, ..Node::default() }
    }
}

fn parse_type(text: &'static str) -> Type {
    let inner = |t: &'static str| Box::new(Node::of(parse_type(&t[1..t.len() - 1])));
    match text.as_bytes().first() {
        Some(b'[') => Type::List(inner(text)),
        Some(b'{') => Type::Map(inner(text)),
        Some(b'@') => by_name(&text[1..]).map_or(Type::Any, Type::Ref),
        Some(b's') => Type::String,
        Some(b'b') => Type::Boolean,
        Some(b'i') => Type::Int32,
        Some(b'l') => Type::Int64,
        Some(b'd') => Type::Number,
        Some(b'y') => Type::Bytes,
        Some(b't') => Type::Time,
        Some(b'u') => Type::MicroTime,
        Some(b'q') => Type::Quantity,
        Some(b'x') => Type::IntOrString,
        Some(b'o') => Type::Map(Box::new(Node::of(Type::Any))),
        _ => Type::Any,
    }
}

fn parse_merge<'a>(words: impl Iterator<Item = &'a str>) -> Option<Box<MergeFacts>> {
    let mut facts = MergeFacts::default();
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("atomic", _) => facts.said_atomic = true,
            ("set", _) => facts.list = ListType::Set,
            ("map", keys) => {
                facts.list = ListType::Map;
                facts.keys = keys.split(',').map(Box::from).collect();
            }
            ("atomicmap", _) => facts.atomic_map = true,
            ("key", key) => facts.patch_key = Some(key.into()),
            ("merge", _) => facts.patch_merge = true,
            ("retain", _) => facts.retain_keys = true,
            _ => {}
        }
    }
    (facts != MergeFacts::default()).then(|| Box::new(facts))
}
