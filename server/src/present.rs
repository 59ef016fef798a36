//! Objects in the representation that the client accepts.

use crate::handlers::Call;
use crate::kinds::Served;
use kubewright_core::{
    ApiError, ApiObject, ApiResponse, ObjectList, Representation, ResponseBody, WatchEvent, WatchEventType,
};
use std::sync::Arc;

/// One object.
pub(crate) fn object(call: &Call, code: u16, object: Arc<ApiObject>) -> Result<ApiResponse, ApiError> {
    match call.representation {
        Representation::Object => Ok(ApiResponse::new(code, ResponseBody::Object(object))),
        _ => Err(ApiError::not_implemented("tables")),
    }
}

/// A collection.
pub(crate) fn list(call: &Call, list: ObjectList) -> Result<ApiResponse, ApiError> {
    match call.representation {
        Representation::Object => Ok(ApiResponse::new(200, ResponseBody::List(list))),
        _ => Err(ApiError::not_implemented("tables")),
    }
}

/// How the events of a watch look.
pub(crate) struct EventShape {
    pub(crate) representation: Representation,
}

impl EventShape {
    pub(crate) fn of(call: &Call) -> Self {
        EventShape { representation: call.representation }
    }

    /// An event in the representation asked for.
    pub(crate) fn event(
        &mut self,
        kind: &Served,
        event: WatchEventType,
        object: Arc<ApiObject>,
    ) -> Result<WatchEvent, ApiError> {
        let _ = kind;
        match self.representation {
            Representation::Object => Ok(WatchEvent { event, object }),
            _ => Err(ApiError::not_implemented("tables")),
        }
    }
}
