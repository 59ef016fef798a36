//! Structural schemas: what the fields of a kind are, compiled once and walked on every write.
//!
//! A built-in kind's schema comes from a table of facts and shares its parts with every other kind that contains them; a custom kind's comes
//! from its CustomResourceDefinition; a host's own type brings one through `schemars`.

mod decl;
mod defaults;
mod expression_checks;
mod expressions;
mod facts;
mod formats;
mod host;
mod node;
mod path;
mod prune;
mod publish;
mod rules;
mod structural;
mod types;
mod validate;

pub use host::from_schemars;
pub use node::{ListType, MergeFacts, Node};
pub use publish::PublishedSchema;
pub use types::TypeMismatch;

pub(crate) use formats::accepts as accepts_format;

#[cfg(test)]
mod expression_tests;
#[cfg(test)]
mod tests;

use crate::field::ErrorList;
use node::Type;
use path::Path;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What the check of an object found.
#[derive(Debug, Default)]
pub struct Checked {
    /// What keeps it from being written.
    pub errors: ErrorList,
    /// What was wrong before and did not change.
    pub warnings: Vec<String>,
}

/// A kind's compiled schema.
pub struct Schema {
    root: Node,
    source: Source,
}

/// Where a schema comes from, which decides how it is published and which checks apply.
enum Source {
    /// A built-in kind; the prose comes from its Rust type, where one is known.
    Facts { definition: &'static facts::Definition, prose: Option<fn() -> Value> },
    /// A Rust type of the host: decode errors as for a built-in kind.
    Host { document: Value },
    /// A CustomResourceDefinition.
    Custom { document: Value },
    /// Nothing is known.
    Open,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Facts { definition, .. } => write!(f, "Schema({definition:?})"),
            Source::Host { .. } => f.write_str("Schema(host type)"),
            Source::Custom { .. } => f.write_str("Schema(custom)"),
            Source::Open => f.write_str("Schema(open)"),
        }
    }
}

impl Default for Schema {
    /// A schema that knows nothing and keeps everything.
    fn default() -> Self {
        Schema { root: Node { preserve: true, ..Node::default() }, source: Source::Open }
    }
}

impl Schema {
    /// The schema of a Rust type: from the table of facts for the types of `k8s-openapi`, else from the type's own JSON Schema.
    ///
    /// Cheap: what the schema consists of is compiled at first use and shared.
    ///
    /// # Panics
    /// Where the JSON Schema of a host's own type cannot be made structural (an untagged enum of objects, for instance): a mistake in the program.
    pub fn of<K: k8s_openapi::Resource + schemars::JsonSchema>() -> Arc<Schema> {
        if let Some(definition) =
            facts::by_kind(K::GROUP, K::VERSION, K::KIND).filter(|d| d.full_name() == K::schema_name())
        {
            let source = Source::Facts { definition, prose: Some(publish::prose::<K>) };
            return Arc::new(Schema { root: Node::of(Type::Ref(definition)), source });
        }
        match Self::of_host_type::<K>() {
            Ok(schema) => Arc::new(schema),
            Err(errors) => {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                panic!("the schema of {} is not structural: {}", K::KIND, errors.join("; "))
            }
        }
    }

    /// The schema of a host's own type, from its JSON Schema.
    ///
    /// # Errors
    /// What keeps it from being structural.
    pub fn of_host_type<K: schemars::JsonSchema>() -> Result<Schema, ErrorList> {
        let document = from_schemars::<K>();
        let root = structural::compile_root(&document)?;
        Ok(Schema { root, source: Source::Host { document } })
    }

    /// The schema of a built-in kind by its name, also where no Rust type is at hand.
    pub fn builtin(group: &str, version: &str, kind: &str) -> Option<Arc<Schema>> {
        let definition = facts::by_kind(group, version, kind)?;
        let source = Source::Facts { definition, prose: None };
        Some(Arc::new(Schema { root: Node::of(Type::Ref(definition)), source }))
    }

    /// The schema of a built-in definition by its OpenAPI name (`io.k8s.api.core.v1.PodSpec`).
    pub fn definition(name: &str) -> Option<Arc<Schema>> {
        let definition = facts::by_name(name)?;
        let source = Source::Facts { definition, prose: None };
        Some(Arc::new(Schema { root: Node::of(Type::Ref(definition)), source }))
    }

    /// The OpenAPI names of all built-in definitions.
    pub fn definition_names() -> impl Iterator<Item = String> {
        facts::all().map(facts::Definition::full_name)
    }

    /// Compiles the structural schema of a CustomResourceDefinition's version (`openAPIV3Schema`).
    ///
    /// # Errors
    /// Upstream's errors, with paths that start at the schema itself.
    pub fn from_openapi(document: &Value) -> Result<Schema, ErrorList> {
        let root = structural::compile_root(document)?;
        Ok(Schema { root, source: Source::Custom { document: document.clone() } })
    }

    /// The document that a custom or host kind's schema was compiled from.
    pub fn document(&self) -> Option<&Value> {
        match &self.source {
            Source::Host { document } | Source::Custom { document } => Some(document),
            Source::Facts { .. } | Source::Open => None,
        }
    }

    /// The top of the tree.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Takes out the fields that the schema does not know; gives their paths (`spec.containers[0].foo`).
    ///
    /// Call [`Schema::check_types`] first for built-in kinds: what has the wrong type is left as it is.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        prune::prune(&self.root, object, &Path::ROOT, &mut unknown);
        unknown
    }

    /// Fills in the defaults that the schema states; a second call changes nothing.
    ///
    /// Of a custom object, each `null` that its schema does not allow goes first. Built-in kinds have their defaults in their strategy.
    pub fn apply_defaults(&self, object: &mut Value) {
        if matches!(self.source, Source::Custom { .. }) {
            defaults::drop_nulls(&self.root, object);
        }
        if self.root.has_defaults {
            defaults::apply(&self.root, object);
        }
    }

    /// Checks the types of a built-in or host kind's object. Of a custom kind only the metadata is checked: [`Schema::validate`] does the rest.
    ///
    /// # Errors
    /// The first mismatch, in the words of Go's decoder; upstream answers 400 with it.
    pub fn check_types(&self, object: &Value) -> Result<(), TypeMismatch> {
        match &self.source {
            Source::Facts { definition, .. } => {
                types::check(&self.root, object, &Path::ROOT, definition.short_name())
            }
            Source::Host { .. } => types::check(&self.root, object, &Path::ROOT, ""),
            Source::Custom { .. } | Source::Open => {
                let meta = facts::by_name(facts::OBJECT_META).map(|d| Node::of(Type::Ref(d)));
                match (meta, object.get("metadata")) {
                    (Some(node), Some(value)) => {
                        types::check(&node, value, &Path::ROOT.field("metadata"), "ObjectMeta")
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// Checks an object against the types and rules of a custom or host kind's schema, list sets and list maps included.
    ///
    /// Built-in kinds state no rules in their schema: of them this finds nothing.
    pub fn validate(&self, object: &Value) -> ErrorList {
        match self.source {
            Source::Custom { .. } | Source::Host { .. } => validate::validate(&self.root, object),
            Source::Facts { .. } | Source::Open => ErrorList::new(),
        }
    }

    /// Checks a changed object as [`Schema::validate`] does, but for what stood in it before: errors of values that did not change are
    /// tolerated, and named as warnings where they come from expressions. Without an old object it is the check of a new one.
    ///
    /// The expressions of the schema run only where nothing else is wrong that could mislead them.
    pub fn validate_change(&self, object: &Value, old: Option<&Value>) -> Checked {
        if !matches!(self.source, Source::Custom { .. } | Source::Host { .. }) {
            return Checked::default();
        }
        let mut errors = validate::validate_change(&self.root, object, old);
        let mut warnings = Vec::new();
        if self.root.rules_below {
            match expression_checks::blocked(&errors) {
                Some(error) => errors.push(error),
                None => {
                    let said = expressions::evaluate(&self.root, object, old, &Path::ROOT);
                    errors.extend(said.errors);
                    warnings = said.tolerated;
                }
            }
        }
        Checked { errors, warnings }
    }

    /// What objects of the kind are to expressions about writes of them.
    pub fn declaration(&self) -> crate::cel::Decl {
        decl::whole(&self.root)
    }

    /// Checks what a definition states beyond its structure: its expressions compile and cost no more than they may, and its defaults
    /// keep to the schema.
    pub fn check_definition(&self) -> ErrorList {
        match self.source {
            Source::Custom { .. } => expression_checks::check(&self.root),
            _ => ErrorList::new(),
        }
    }

    /// The schema for publishing as OpenAPI v3, prose included. References are `#/components/schemas/<name>`;
    /// [`Schema::definitions`] gives what they lead to.
    pub fn openapi_v3(&self) -> Value {
        publish::openapi_v3(self).schema
    }

    /// The schema's OpenAPI name, and every definition that it refers to.
    pub fn published(&self) -> PublishedSchema {
        publish::openapi_v3(self)
    }

    /// Every definition that [`Schema::openapi_v3`] refers to, by name.
    pub fn definitions(&self) -> BTreeMap<String, Value> {
        publish::openapi_v3(self).definitions
    }
}
