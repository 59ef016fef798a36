//! A kind of one's own and its controller: derive, reconcile, status, a finalizer, children.
//!
//! A `Website` wants a ConfigMap with its page and as many copies as `spec.copies` says; when it goes, something outside is cleaned up first.

use k8s_openapi::api::core::v1::ConfigMap;
use kubewright::client::{Api, DeleteOptions};
use kubewright::core::{ApiError, ContentType, ObjectMeta, Resource};
use kubewright::reconcile::{Action, Context, Controller, Reconciler, owner};
use kubewright::store::MemoryStore;
use kubewright::{ControlPlane, bundles, parts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

#[derive(Serialize, Deserialize, Clone, Debug, JsonSchema, Resource)]
#[resource(group = "example.com", version = "v1", short_names("web"), namespaced, status)]
#[resource(column(name = "Copies", path = ".spec.copies", type = "integer"))]
struct Website {
    metadata: ObjectMeta,
    spec: WebsiteSpec,
    status: Option<WebsiteStatus>,
}

#[derive(Serialize, Deserialize, Clone, Debug, JsonSchema)]
struct WebsiteSpec {
    /// What visitors read.
    page: String,
    #[schemars(range(min = 1, max = 5))]
    copies: u32,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
struct WebsiteStatus {
    copies: u32,
}

const FINALIZER: &str = "example.com/dns-record";

struct Websites;

impl Reconciler<Website> for Websites {
    type Error = ApiError;

    async fn reconcile(&self, site: Arc<Website>, cx: &Context) -> Result<Action, ApiError> {
        if site.metadata.deletion_timestamp.is_some() {
            println!("removing the DNS record of {}", site.name());
            cx.remove_finalizer(&*site, FINALIZER).await?;
            return Ok(Action::Done);
        }
        cx.ensure_finalizer(&*site, FINALIZER).await?;
        let namespace = site.namespace().unwrap_or_default();
        let wanted: Vec<String> = (0..site.spec.copies).map(|n| format!("{}-{n}", site.name())).collect();
        let children = cx.informers().of::<ConfigMap>().list_in(namespace);
        let ours: Vec<_> = children.iter().filter(|m| owner::is_controlled_by(&m.metadata, &*site)).collect();
        let maps = cx.api::<ConfigMap>(namespace);
        for name in wanted.iter().filter(|name| !ours.iter().any(|m| m.name() == *name)) {
            let map = json!({"metadata": {"name": name, "ownerReferences": [owner::controller_ref(&*site)]},
                "data": {"index.html": site.spec.page}});
            maps.create(&serde_json::from_value(map).map_err(ApiError::internal)?).await?;
        }
        for extra in ours.iter().filter(|m| !wanted.iter().any(|name| m.name() == name)) {
            maps.delete(extra.name(), &DeleteOptions::default()).await?;
        }
        let status = WebsiteStatus { copies: site.spec.copies };
        cx.patch_status(&*site, &site.status, &Some(status)).await?;
        Ok(Action::Done)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plane = ControlPlane::builder()
        .with(parts::store(MemoryStore::new()))
        .with(bundles::kinds())
        .with(bundles::controllers())
        .with(parts::kind::<Website>())
        .with(Controller::for_kind::<Website>("websites").owns::<ConfigMap>().with(Websites))
        .build()?
        .start()
        .await?;
    let sites = Api::<Website>::namespaced(plane.client().clone(), "default");
    let maps = Api::<ConfigMap>::namespaced(plane.client().clone(), "default");
    let count = async || -> Result<usize, ApiError> {
        let all = maps.list(Default::default()).await?.items;
        Ok(all.iter().filter(|m| m.name().starts_with("home-")).count())
    };
    let site =
        json!({"metadata": {"name": "home"}, "spec": {"page": "welcome", "copies": 3}, "status": null});
    sites.create(&serde_json::from_value(site)?).await?;
    until("three copies", async || Ok(count().await? == 3)).await?;
    maps.delete("home-1", &DeleteOptions::default()).await?;
    until("the lost copy is back", async || Ok(maps.get_opt("home-1").await?.is_some())).await?;
    let too_many = sites.patch("home", ContentType::MergePatch, json!({"spec": {"copies": 9}})).await;
    println!("refused: {}", too_many.expect_err("the schema allows five"));
    sites.patch("home", ContentType::MergePatch, json!({"spec": {"copies": 1}})).await?;
    until("one copy", async || Ok(count().await? == 1)).await?;
    sites.delete("home", &DeleteOptions::default()).await?;
    until("nothing is left", async || Ok(count().await? == 0 && sites.get_opt("home").await?.is_none()))
        .await?;
    plane.shutdown().await?;
    Ok(())
}

/// Asks until it is so.
async fn until(
    what: &str,
    check: impl AsyncFn() -> Result<bool, ApiError>,
) -> Result<(), Box<dyn std::error::Error>> {
    for _ in 0..1000 {
        if check().await? {
            println!("{what}");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("never: {what}").into())
}
