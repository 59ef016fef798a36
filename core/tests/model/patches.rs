//! JSON merge patches against the `json-patch` crate, which is another's reading of the same RFC.

use super::check;
use super::documents::document;
use kubewright_core::patch;
use proptest::prelude::*;

#[test]
fn merge_patches_follow_the_rfc() {
    check(1_000, (document(), document()), |(object, change)| {
        let (mut ours, mut theirs) = (object.clone(), object);
        patch::merge_patch(&mut ours, &change);
        json_patch::merge(&mut theirs, &change);
        prop_assert_eq!(ours, theirs);
        Ok(())
    });
}
