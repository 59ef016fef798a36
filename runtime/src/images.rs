//! Images: their names, where they come from, and where they are kept unpacked.

mod reference;

pub use reference::Reference;
