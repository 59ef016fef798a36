//! Images: their names, where they come from, and where they are kept unpacked.
//!
//! An image comes from a registry, from an OCI layout directory, or from an archive of one (or of `docker save`), plain or
//! compressed; [`ImageBuilder`] makes one on the spot. Each layer is unpacked once, into a directory named by its digest, in the
//! form that overlayfs reads; the packed layers are not kept.

mod builder;
mod elf;
mod layer;
mod manifest;
mod reference;
mod registry;
mod source;
mod store;

pub use builder::ImageBuilder;
pub use reference::Reference;
pub use store::ImageStore;

pub(crate) use layer::merge as merge_layers;
pub(crate) use store::{EMPTY_LAYER, StoredImage};

#[cfg(test)]
mod tests;
