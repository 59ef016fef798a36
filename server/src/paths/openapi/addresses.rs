//! The paths beside resources that the v2 document tells of: discovery, the version and the token issuer's.

use super::super::catalogue::Catalogue;
use super::operations::{Dialect, Place, root};
use serde_json::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The definitions that these paths answer with.
pub(super) const ANSWERS: [&str; 5] = [
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroup",
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList",
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList",
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIVersions",
    "io.k8s.apimachinery.pkg.version.Info",
];

/// Adds the paths of a catalogue.
pub(super) fn write(dialect: &dyn Dialect, catalogue: &Catalogue, paths: &mut Map<String, Value>) {
    let meta = |kind: &str| Some(format!("{META}.{kind}"));
    let mut put = |path: &str, id: &str, tag: &str, gives: Option<String>| {
        let operation = json!({
            "operationId": id,
            "tags": [tag],
            "responses": {"200": dialect.answer("OK", gives.as_deref()), "401": {"description": "Unauthorized"}},
        });
        paths.insert(path.to_owned(), json!({"get": operation}));
    };
    put("/api/", "getCoreAPIVersions", "core", meta("APIVersions"));
    put("/apis/", "getAPIVersions", "apis", meta("APIGroupList"));
    put("/version/", "getCodeVersion", "version", Some("io.k8s.apimachinery.pkg.version.Info".to_owned()));
    let issuer = "getServiceAccountIssuerOpenID";
    put("/.well-known/openid-configuration/", &format!("{issuer}Configuration"), "WellKnown", None);
    put("/openid/v1/jwks/", &format!("{issuer}Keyset"), "openid", None);
    for group in &catalogue.groups {
        let place = Place::of(&group.name, "");
        if !group.name.is_empty() {
            let path = format!("/apis/{}/", group.name);
            put(&path, &format!("get{}APIGroup", place.word()), place.short(), meta("APIGroup"));
        }
        for version in &group.versions {
            let place = Place::of(&group.name, &version.name);
            let path = format!("/{}/", root(&group.name, &version.name));
            put(&path, &format!("get{}APIResources", place.word()), place.tag(), meta("APIResourceList"));
        }
    }
}
