//! API objects and the seams between Kubewright's crates, with no I/O.
//!
//! This crate knows what an object, a kind, a request and an error are. It knows no store, no socket, no runtime and no
//! clock: it takes values and gives back values, so that benches, simulators and tests need no server.
//!
//! ```
//! use kubewright_core::{ApiRequest, GroupVersionResource, Verb};
//!
//! let pods = GroupVersionResource::new("", "v1", "pods");
//! let request = ApiRequest::resource(Verb::Get, pods, Some("default"), Some("web-0")).subresource("status");
//! assert_eq!(request.verb.as_str(), "get");
//! ```

pub mod api;
pub mod cel;
pub mod clock;
pub mod declare;
pub mod field;
pub mod json;
pub mod jsonpath;
pub mod label_map;
pub mod managed;
pub mod meta;
pub mod node_api;
pub mod notes;
pub mod object;
pub mod passage;
pub mod patch;
pub mod quantity;
pub mod quota;
pub mod registry;
pub mod request;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod spdy;
pub mod status;
pub mod streams;

pub use clock::{Clock, Entropy, ManualClock, SharedClock, SystemClock};
pub use field::{ErrorList, FieldError, FieldPath};
pub use jsonpath::JsonPath;
pub use k8s_openapi;
pub use k8s_openapi::api::authentication::v1::UserInfo;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
pub use kubewright_derive::Resource;
pub use label_map::LabelMap;
pub use notes::{FlowNote, Notes, Origin};
pub use object::{ApiObject, Header, WatchEvent, WatchEventType};
pub use quantity::Quantity;
pub use registry::Registry;
pub use request::{
    ApiRequest, ApiResponse, ContentType, GroupVersionKind, GroupVersionResource, ObjectList, Options,
    Representation, RequestBody, ResponseBody, Target, Verb, WatchStream,
};
pub use resource::{Described, KindDescriptor, Resource, Scope, Strategy};
pub use schema::Schema;
pub use schemars;
pub use selector::{FieldSelector, Selector};
pub use status::{ApiError, Reason};
