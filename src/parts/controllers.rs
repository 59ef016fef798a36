//! Controllers as parts of a control plane.

use super::Part;
use crate::plane::{Builder, LateController, PlaneContext};
use kubewright_reconcile::Controller;

impl Part for Controller {
    fn add(self, builder: &mut Builder) {
        let (name, kinds) = (self.name(), self.kinds().to_vec());
        builder.controllers.push(LateController { name, kinds, make: Box::new(move |_| Some(self)) });
    }
}

/// A controller that is made when the plane starts, out of what is known then. `None` leaves it out.
pub fn controller(
    name: &'static str,
    make: impl FnOnce(&PlaneContext) -> Option<Controller> + Send + 'static,
) -> impl Part {
    move |builder: &mut Builder| {
        builder.controllers.push(LateController { name, kinds: Vec::new(), make: Box::new(make) });
    }
}
