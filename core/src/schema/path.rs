//! Where a pass stands in an object: a chain on the stack, put into text only when there is something to say.

use crate::field::FieldPath;

/// One step, linked to the steps before it.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    pub(crate) const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    pub(crate) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    /// A key of a map whose keys are data.
    pub(crate) fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(key) }
    }

    pub(crate) fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// `spec.list[0].name` with every name after a dot, as strict decoding and validation by schema spell paths.
    pub(crate) fn dotted(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, true, true);
        out
    }

    /// `spec.list.name`: Go's decoder leaves out where in a list or map it stood.
    pub(crate) fn fields_only(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, false, false);
        out
    }

    /// The path for a [`crate::FieldError`].
    pub(crate) fn to_field(self) -> FieldPath {
        FieldPath::new(&self.dotted())
    }

    /// The path as a [`FieldPath`] spells it: keys of maps in brackets.
    pub(crate) fn to_spec(self) -> FieldPath {
        let parent = self.parent.map_or_else(FieldPath::root, |p| p.to_spec());
        match self.step {
            Step::Root => parent,
            Step::Field(name) => parent.child(name),
            Step::Key(key) => parent.key(key),
            Step::Index(i) => parent.index(i),
        }
    }

    fn write(&self, out: &mut String, indexes: bool, keys: bool) {
        if let Some(parent) = self.parent {
            parent.write(out, indexes, keys);
        }
        match self.step {
            Step::Field(name) => push_name(out, name),
            Step::Key(key) if keys => push_name(out, key),
            Step::Index(i) if indexes => {
                out.push('[');
                out.push_str(&i.to_string());
                out.push(']');
            }
            _ => {}
        }
    }
}

fn push_name(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(name);
}
