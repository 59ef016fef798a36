//! Discovery, aggregated and not, the version, and answers in other shapes.

use super::kinds::kinds;
use super::site::{Site, in_process};
use serde_json::{Value, json};

#[tokio::test]
async fn every_group_names_its_versions_and_prefers_one() {
    let site = in_process().await;
    let groups = site.get("/apis").await.ok();
    assert_eq!(groups["kind"], "APIGroupList");
    for group in groups["groups"].as_array().unwrap() {
        let name = group["name"].as_str().unwrap();
        let one = site.get(&format!("/apis/{name}")).await.ok();
        assert_eq!((&one["kind"], &one["name"]), (&json!("APIGroup"), &group["name"]));
        let versions = group["versions"].as_array().unwrap();
        assert_eq!(one["versions"], group["versions"]);
        let preferred = &one["preferredVersion"];
        assert!(versions.contains(preferred), "{name} prefers {preferred}");
        for version in versions {
            let wanted = version["groupVersion"].as_str().unwrap();
            let list = site.get(&format!("/apis/{wanted}")).await.ok();
            assert_eq!(
                (&list["kind"], list["groupVersion"].as_str()),
                (&json!("APIResourceList"), Some(wanted))
            );
            assert!(!list["resources"].as_array().unwrap().is_empty(), "{wanted}");
        }
    }
}

#[tokio::test]
async fn the_version_is_two_numbers() {
    let site = in_process().await;
    let version = site.get("/version").await.ok();
    for part in ["major", "minor"] {
        let text = version[part].as_str().unwrap();
        assert!(!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()), "{part} {text}");
    }
    for part in ["gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"]
    {
        assert!(version[part].is_string(), "{part} in {version}");
    }
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const AGGREGATED: &str = "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io";

async fn aggregated(site: &Site, path: &str) -> Vec<String> {
    let accept = format!(
        "{AGGREGATED},application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io,application/json"
    );
    let got = site.call("GET", path, &[("accept", &accept)], "").await;
    assert_eq!(
        got.header("content-type").replace(' ', ""),
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    assert!(got.header("etag").len() > 2, "an ETag");
    let same =
        site.call("GET", path, &[("accept", &accept), ("if-none-match", got.header("etag"))], "").await;
    assert_eq!((same.code, same.text.as_str()), (304, ""));
    let list = got.ok();
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
    );
    let mut found = Vec::new();
    for group in list["items"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            assert_eq!(version["freshness"], "Current");
            for resource in version["resources"].as_array().unwrap() {
                let name = group["metadata"]["name"].as_str().unwrap_or("");
                let slash = if name.is_empty() { "" } else { "/" };
                let plural = resource["resource"].as_str().unwrap();
                found.push(format!("{name}{slash}{}/{plural}", version["version"].as_str().unwrap()));
            }
        }
    }
    found
}

#[tokio::test]
async fn aggregated_discovery_tells_of_all_kinds_and_of_new_ones() {
    let site = in_process().await;
    let mut all = aggregated(&site, "/api").await;
    all.extend(aggregated(&site, "/apis").await);
    for kind in kinds() {
        assert!(all.iter().any(|found| found == kind.at), "{} in {all:?}", kind.at);
    }
    let definition = json!({"metadata": {"name": "news.fresh.example.com"}, "spec": {"group": "fresh.example.com", "scope": "Cluster",
        "names": {"plural": "news", "kind": "News"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    site.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    super::definitions::served(&site, "/apis/fresh.example.com/v1/news").await;
    assert!(aggregated(&site, "/apis").await.contains(&"fresh.example.com/v1/news".to_owned()));
    // Without the parameters it is the old document.
    let plain = site.call("GET", "/apis", &[("accept", "application/json")], "").await.ok();
    assert_eq!(plain["kind"], "APIGroupList");
}

#[tokio::test]
async fn tables_are_made_of_what_has_metadata() {
    let site = in_process().await;
    let home = site.namespace("tables").await;
    site.make(
        &format!("{home}/pods"),
        json!({"metadata": {"name": "pod-1"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .await;
    let one = site.call("GET", &format!("{home}/pods/pod-1"), &[("accept", TABLE)], "").await.ok();
    assert_eq!((&one["kind"], &one["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns = one["columnDefinitions"].as_array().unwrap();
    assert!(columns.len() > 2 && columns[0]["name"] == "Name");
    let rows = one["rows"].as_array().unwrap();
    assert_eq!((rows.len(), rows[0]["cells"].as_array().unwrap().len()), (1, columns.len()));
    assert_eq!(
        (&rows[0]["cells"][0], &rows[0]["object"]["kind"]),
        (&json!("pod-1"), &json!("PartialObjectMetadata"))
    );
    for n in 0..5 {
        let object = json!({"metadata": {"name": format!("template-000{n}")}, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}});
        site.make(&format!("{home}/podtemplates"), object).await;
    }
    let chunk = |token: &str| format!("{home}/podtemplates?limit=2&continue={token}");
    let first = site.call("GET", &chunk(""), &[("accept", TABLE)], "").await.ok();
    let names =
        |t: &Value| t["rows"].as_array().unwrap().iter().map(|r| r["cells"][0].clone()).collect::<Vec<_>>();
    assert_eq!(names(&first), ["template-0000", "template-0001"]);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = site.call("GET", &chunk(token), &[("accept", TABLE)], "").await.ok();
    assert_eq!(names(&second)[0], "template-0002");
    let nodes = site.call("GET", "/api/v1/nodes", &[("accept", TABLE)], "").await.ok();
    assert!(nodes["rows"].is_array() && nodes["metadata"]["resourceVersion"].is_string());

    // A review has no metadata: there is no table of it.
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let headers = [("accept", TABLE), ("content-type", "application/json")];
    let refused = site.call("POST", path, &headers, review.to_string()).await;
    refused.refused(406, "NotAcceptable");
}
