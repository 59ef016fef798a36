//! One version of one object in the cache, in every shape that it is served in.

use crate::conversion::is_of_version;
use crate::encode;
use crate::kinds::Served;
use crate::pipeline;
use kubewright_core::resource::{FieldValue, Origin, SelectableField};
use kubewright_core::{ApiError, ApiObject, KindDescriptor};
use parking_lot::Mutex;
use serde_json::Value;
use smol_str::SmolStr;
use std::ops::Deref;
use std::sync::Arc;

/// An object in one shape, with the texts of that shape's selectable fields in the order of the descriptor.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) object: Arc<ApiObject>,
    pub(crate) fields: Box<[SmolStr]>,
}

/// One version of one object.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As the storage version.
    pub(crate) shape: Shape,
    /// As it is served, where its definition has defaults that it was stored without.
    defaulted: Option<Arc<Shape>>,
    /// In other served versions, by `apiVersion`; filled when somebody asks.
    views: Mutex<Vec<(String, Arc<Shape>)>>,
}

/// A shape that is either the entry's own or a converted one.
pub(crate) enum ShapeRef<'a> {
    Own(&'a Shape),
    Converted(Arc<Shape>),
}

impl Deref for ShapeRef<'_> {
    type Target = Shape;

    fn deref(&self) -> &Shape {
        match self {
            ShapeRef::Own(shape) => shape,
            ShapeRef::Converted(shape) => shape,
        }
    }
}

impl Entry {
    pub(crate) fn new(object: ApiObject, fields: Box<[SmolStr]>) -> Self {
        let shape = Shape { object: Arc::new(object), fields };
        Entry { shape, defaulted: None, views: Mutex::new(Vec::new()) }
    }

    /// The same object under a definition that changed: what it was stored without is defaulted for those who read it.
    pub(crate) fn under(&self, kind: &KindDescriptor) -> Result<Entry, ApiError> {
        let object = &self.shape.object;
        let value = match (kind.origin, kind.selectable_fields.is_empty()) {
            (Origin::BuiltIn, true) => Value::Null,
            _ => object.value()?,
        };
        let copy =
            ApiObject::from_parts(object.bytes().clone(), object.header().clone(), object.resource_version());
        let mut entry = Entry::new(copy, field_texts(&kind.selectable_fields, &value));
        if kind.origin != Origin::Custom {
            return Ok(entry);
        }
        if !is_of_version(object.bytes(), kind) {
            entry.defaulted.clone_from(&self.defaulted);
            return Ok(entry);
        }
        let mut defaulted = value.clone();
        pipeline::default(kind, &mut defaulted);
        if defaulted != value {
            let fields = field_texts(&kind.selectable_fields, &defaulted);
            let object = Arc::new(encode::object(&defaulted, object.resource_version())?);
            entry.defaulted = Some(Arc::new(Shape { object, fields }));
        }
        Ok(entry)
    }

    /// The same object under another resource version.
    pub(crate) fn restamped(&self, revision: u64) -> Result<Entry, ApiError> {
        let object = &self.shape.object;
        let bytes = encode::restamped(object.bytes(), revision)?;
        let object = ApiObject::from_parts(bytes, object.header().clone(), revision);
        Ok(Entry::new(object, self.shape.fields.clone()))
    }

    /// The object as a kind serves it; a conversion is done once for all who ask.
    pub(crate) fn shape(&self, kind: &Served) -> Result<ShapeRef<'_>, ApiError> {
        if self.is_own(kind) {
            return Ok(ShapeRef::Own(self.defaulted.as_deref().unwrap_or(&self.shape)));
        }
        let key = kind.descriptor.api_version();
        if let Some((_, shape)) = self.views.lock().iter().find(|(k, _)| *k == key) {
            return Ok(ShapeRef::Converted(shape.clone()));
        }
        if kind.descriptor.conversion.is_some() {
            let why =
                format!("an object of {} was not converted before it was looked at", kind.descriptor.kind);
            return Err(ApiError::internal(why));
        }
        let mut value = self.shape.object.value()?;
        match &kind.descriptor.stored_as {
            Some(view) => (view.from_stored)(&mut value),
            // Stored when another version was the storage version.
            None => {
                value["apiVersion"] = Value::from(key.as_str());
                pipeline::default(&kind.descriptor, &mut value);
            }
        }
        self.keep(kind, &value).map(ShapeRef::Converted)
    }

    /// Whether the object is stored in the version of the kind.
    fn is_own(&self, kind: &Served) -> bool {
        match kind.descriptor.origin {
            Origin::BuiltIn => kind.descriptor.stored_as.is_none(),
            Origin::Custom => is_of_version(self.shape.object.bytes(), &kind.descriptor),
        }
    }

    /// Whether [`Entry::shape`] needs nobody else for this kind.
    pub(crate) fn shows(&self, kind: &Served) -> bool {
        let key = || kind.descriptor.api_version();
        self.is_own(kind) || self.views.lock().iter().any(|(k, _)| *k == key())
    }

    /// Keeps the object as it is in another version.
    pub(crate) fn keep(&self, kind: &Served, value: &Value) -> Result<Arc<Shape>, ApiError> {
        let fields = field_texts(&kind.descriptor.selectable_fields, value);
        let object = Arc::new(encode::object(value, self.shape.object.resource_version())?);
        let shape = Arc::new(Shape { object, fields });
        self.views.lock().push((kind.descriptor.api_version(), shape.clone()));
        Ok(shape)
    }
}

/// The texts of an object's selectable fields.
pub(crate) fn field_texts(fields: &[SelectableField], object: &Value) -> Box<[SmolStr]> {
    fields
        .iter()
        .map(|field| match &field.value {
            FieldValue::Computed(text) => SmolStr::new(text(object)),
            FieldValue::Path(path) => match path.first(object) {
                None | Some(Value::Null) => SmolStr::default(),
                Some(Value::String(text)) => SmolStr::new(text),
                Some(other) => SmolStr::new(other.to_string()),
            },
        })
        .collect()
}
