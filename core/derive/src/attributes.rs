//! Reads `#[resource(...)]`, with errors that point at the word that is wrong.

use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::{DeriveInput, Error, LitInt, LitStr, Path, Token, parenthesized};

/// Everything that `#[resource(...)]` says, with the rest filled in.
pub(crate) struct Attributes {
    pub(crate) core: Path,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) status: bool,
    pub(crate) scale: Option<Scale>,
    pub(crate) columns: Vec<Column>,
    pub(crate) selectable: Vec<String>,
    pub(crate) strategy: Option<Path>,
}

#[derive(Default)]
pub(crate) struct Scale {
    pub(crate) spec_replicas: String,
    pub(crate) status_replicas: String,
    pub(crate) label_selector: Option<String>,
}

#[derive(Default)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) data_type: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i32,
}

const WORDS: &str = "`group`, `version`, `kind`, `plural`, `singular`, `short_names`, `categories`, `namespaced`, `status`, `scale`, `column`, `selectable`, `strategy`, `crate`";

impl Attributes {
    pub(crate) fn parse(input: &DeriveInput) -> syn::Result<Self> {
        let mut a = Attributes {
            core: default_core()?,
            group: String::new(),
            version: String::new(),
            kind: input.ident.to_string(),
            plural: String::new(),
            singular: String::new(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: false,
            status: false,
            scale: None,
            columns: Vec::new(),
            selectable: Vec::new(),
            strategy: None,
        };
        for attribute in input.attrs.iter().filter(|a| a.path().is_ident("resource")) {
            attribute.parse_nested_meta(|meta| a.word(&meta))?;
        }
        a.complete(input)
    }

    fn word(&mut self, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
        let Some(word) = meta.path.get_ident().map(ToString::to_string) else {
            return Err(meta.error(format!("expected one of {WORDS}")));
        };
        match word.as_str() {
            "group" => self.group = text(meta)?,
            "version" => {
                self.version = checked(meta, is_label, "a version is a lower-case word like \"v1\"")?
            }
            "kind" => self.kind = checked(meta, is_kind, "a kind is an identifier in upper camel case")?,
            "plural" => self.plural = checked(meta, is_label, "a plural is a lower-case word")?,
            "singular" => self.singular = checked(meta, is_label, "a singular is a lower-case word")?,
            "short_names" => self.short_names.extend(texts(meta)?),
            "categories" => self.categories.extend(texts(meta)?),
            "namespaced" => self.namespaced = true,
            "status" => self.status = true,
            "scale" => self.scale = Some(scale(meta)?),
            "column" => self.columns.push(column(meta)?),
            "selectable" => self.selectable.extend(texts(meta)?),
            "strategy" => self.strategy = Some(path(meta)?),
            "crate" => self.core = path(meta)?,
            other => return Err(meta.error(format!("unknown word `{other}`, expected one of {WORDS}"))),
        }
        Ok(())
    }

    fn complete(mut self, input: &DeriveInput) -> syn::Result<Self> {
        let missing = |what: &str| {
            let why = format!("#[resource({what} = \"...\")] is missing");
            Err(Error::new_spanned(&input.ident, why))
        };
        if self.group.is_empty() {
            return missing("group");
        }
        if self.version.is_empty() {
            return missing("version");
        }
        if self.singular.is_empty() {
            self.singular = self.kind.to_lowercase();
        }
        if self.plural.is_empty() {
            self.plural = plural(&self.singular);
        }
        Ok(self)
    }
}

/// The library under the name that the deriving package knows it by: itself, or through the facade.
fn default_core() -> syn::Result<Path> {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").map(|d| format!("{d}/Cargo.toml"));
    let text = manifest.ok().and_then(|p| std::fs::read_to_string(p).ok()).unwrap_or_default();
    let direct = text.contains("kubewright-core") || !text.contains("kubewright");
    syn::parse_str(if direct { "::kubewright_core" } else { "::kubewright::core" })
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.as_bytes()[0].is_ascii_lowercase()
        && !text.ends_with('-')
}

fn is_kind(text: &str) -> bool {
    text.as_bytes().first().is_some_and(u8::is_ascii_uppercase)
        && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn plural(singular: &str) -> String {
    if ["s", "x", "z", "ch", "sh"].iter().any(|end| singular.ends_with(end)) {
        format!("{singular}es")
    } else if let Some(stem) = singular.strip_suffix('y').filter(|s| !s.ends_with(['a', 'e', 'i', 'o', 'u']))
    {
        format!("{stem}ies")
    } else {
        format!("{singular}s")
    }
}

fn text(meta: &ParseNestedMeta<'_>) -> syn::Result<String> {
    Ok(meta.value()?.parse::<LitStr>()?.value())
}

fn checked(meta: &ParseNestedMeta<'_>, good: impl Fn(&str) -> bool, why: &str) -> syn::Result<String> {
    let literal = meta.value()?.parse::<LitStr>()?;
    if good(&literal.value()) { Ok(literal.value()) } else { Err(Error::new(literal.span(), why)) }
}

fn path(meta: &ParseNestedMeta<'_>) -> syn::Result<Path> {
    meta.value()?.parse::<LitStr>()?.parse()
}

fn texts(meta: &ParseNestedMeta<'_>) -> syn::Result<Vec<String>> {
    let content;
    parenthesized!(content in meta.input);
    let list = Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?;
    Ok(list.iter().map(LitStr::value).collect())
}

fn json_path(meta: &ParseNestedMeta<'_>) -> syn::Result<String> {
    let literal = meta.value()?.parse::<LitStr>()?;
    let text = literal.value();
    let balanced = text.matches('[').count() == text.matches(']').count();
    if text.starts_with('.') && text.len() > 1 && balanced {
        Ok(text)
    } else {
        Err(Error::new(literal.span(), "a path is a JSON path like \".spec.size\""))
    }
}

fn scale(meta: &ParseNestedMeta<'_>) -> syn::Result<Scale> {
    let mut scale = Scale::default();
    meta.parse_nested_meta(|m| {
        if m.path.is_ident("spec_replicas") {
            scale.spec_replicas = json_path(&m)?;
        } else if m.path.is_ident("status_replicas") {
            scale.status_replicas = json_path(&m)?;
        } else if m.path.is_ident("label_selector") {
            scale.label_selector = Some(json_path(&m)?);
        } else {
            return Err(m.error("expected `spec_replicas`, `status_replicas` or `label_selector`"));
        }
        Ok(())
    })?;
    if scale.spec_replicas.is_empty() || scale.status_replicas.is_empty() {
        return Err(
            meta.error("scale needs `spec_replicas = \".spec...\"` and `status_replicas = \".status...\"`")
        );
    }
    Ok(scale)
}

fn column(meta: &ParseNestedMeta<'_>) -> syn::Result<Column> {
    const TYPES: &[&str] = &["string", "integer", "number", "boolean", "date"];
    let mut column = Column { data_type: "string".to_owned(), ..Column::default() };
    meta.parse_nested_meta(|m| {
        let word = m.path.get_ident().map(ToString::to_string).unwrap_or_default();
        match word.as_str() {
            "name" => column.name = text(&m)?,
            "path" => column.path = json_path(&m)?,
            "type" => {
                let why = "a column's type is string, integer, number, boolean or date";
                column.data_type = checked(&m, |v| TYPES.contains(&v), why)?;
            }
            "format" => column.format = text(&m)?,
            "description" => column.description = text(&m)?,
            "priority" => column.priority = m.value()?.parse::<LitInt>()?.base10_parse()?,
            _ => {
                return Err(m.error("expected `name`, `path`, `type`, `format`, `description` or `priority`"));
            }
        }
        Ok(())
    })?;
    if column.name.is_empty() || column.path.is_empty() {
        return Err(meta.error("a column needs `name = \"...\"` and `path = \".spec...\"`"));
    }
    Ok(column)
}
