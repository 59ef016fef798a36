//! Watches of ConfigMaps as several clients have them at once, and lists in chunks.

use super::site::{Site, in_process};
use serde_json::{Value, json};

const LABEL: &str = "watch-this-configmap";

async fn home(site: &Site) -> String {
    format!("{}/configmaps", site.namespace("watching").await)
}

fn map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {LABEL: label}}})
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

async fn mutate(site: &Site, maps: &str, name: &str, number: usize) -> Value {
    let patch = json!({"data": {"mutation": number.to_string()}});
    site.merge(&format!("{maps}/{name}"), patch).await.ok()
}

#[tokio::test]
async fn several_watchers_see_what_their_labels_select() {
    let site = in_process().await;
    let maps = home(&site).await;
    let select = |values: &str| format!("{maps}?labelSelector={LABEL}%20in%20({values})");
    let mut a = site.watch(&select("a")).await;
    let mut b = site.watch(&select("b")).await;
    let mut both = site.watch(&select("a,b")).await;
    site.make(&maps, map("m-a", "a")).await;
    for n in 1..3 {
        mutate(&site, &maps, "m-a", n).await;
    }
    site.delete(&format!("{maps}/m-a")).await.ok();
    site.make(&maps, map("m-b", "b")).await;
    site.delete(&format!("{maps}/m-b")).await.ok();
    let of_a = ["ADDED m-a", "MODIFIED m-a", "MODIFIED m-a", "DELETED m-a"];
    let of_b = ["ADDED m-b", "DELETED m-b"];
    a.expect(&of_a).await;
    b.expect(&of_b).await;
    both.expect(&of_a).await;
    both.expect(&of_b).await;
}

#[tokio::test]
async fn a_watch_starts_at_the_version_that_it_names() {
    let site = in_process().await;
    let maps = home(&site).await;
    site.make(&maps, map("m", "from")).await;
    let first = mutate(&site, &maps, "m", 1).await;
    mutate(&site, &maps, "m", 2).await;
    let gone = site.delete(&format!("{maps}/m")).await;
    gone.ok();
    let from = format!("{maps}?labelSelector={LABEL}%3Dfrom&resourceVersion={}", version(&first));
    let mut watch = site.watch(&from).await;
    let (what, object) = watch.next().await;
    assert_eq!((what.as_str(), &object["data"]["mutation"]), ("MODIFIED m", &json!("2")));
    let (what, last) = watch.next().await;
    assert_eq!((what.as_str(), &last["data"]["mutation"]), ("DELETED m", &json!("2")));
    let number = |o: &Value| version(o).parse::<u64>().unwrap();
    assert!(number(&last) > number(&object), "a deletion has a version of its own");
}

#[tokio::test]
async fn a_watch_goes_on_where_the_last_one_ended() {
    let site = in_process().await;
    let maps = home(&site).await;
    let mut first = site.watch(&format!("{maps}?labelSelector={LABEL}%3Dagain")).await;
    site.make(&maps, map("m", "again")).await;
    mutate(&site, &maps, "m", 1).await;
    let (what, _) = first.next().await;
    assert_eq!(what, "ADDED m");
    let (what, seen) = first.next().await;
    assert_eq!(what, "MODIFIED m");
    drop(first);
    mutate(&site, &maps, "m", 2).await;
    site.delete(&format!("{maps}/m")).await.ok();
    let on = format!("{maps}?labelSelector={LABEL}%3Dagain&resourceVersion={}", version(&seen));
    site.watch(&on).await.expect(&["MODIFIED m", "DELETED m"]).await;
}

#[tokio::test]
async fn what_leaves_a_selection_is_deleted_for_its_watchers() {
    let site = in_process().await;
    let maps = home(&site).await;
    let mut watch = site.watch(&format!("{maps}?labelSelector={LABEL}%3Dwanted")).await;
    site.make(&maps, map("m", "wanted")).await;
    mutate(&site, &maps, "m", 1).await;
    let label = |value: &str| json!({"metadata": {"labels": {LABEL: value}}});
    let path = format!("{maps}/m");
    let left = site.merge(&path, label("other")).await.ok();
    mutate(&site, &maps, "m", 2).await;
    site.merge(&path, label("wanted")).await.ok();
    mutate(&site, &maps, "m", 3).await;
    site.delete(&path).await.ok();
    watch.expect(&["ADDED m", "MODIFIED m"]).await;
    let (what, object) = watch.next().await;
    // As it was when it still was selected, at the version at which it no longer was.
    assert_eq!((what.as_str(), &object["metadata"]["labels"][LABEL]), ("DELETED m", &json!("wanted")));
    assert_eq!(version(&object), version(&left));
    let (what, object) = watch.next().await;
    assert_eq!((what.as_str(), &object["data"]["mutation"]), ("ADDED m", &json!("2")));
    watch.expect(&["MODIFIED m", "DELETED m"]).await;
}

#[tokio::test]
async fn watches_begun_at_any_event_agree_on_the_rest() {
    let site = in_process().await;
    let maps = home(&site).await;
    let mut first = site.watch(&format!("{maps}?resourceVersion=0")).await;
    let write = async {
        for n in 0..30 {
            let name = format!("m-{}", n % 5);
            match n % 3 {
                0 => drop(site.post(&maps, &map(&name, "x")).await),
                1 => drop(site.merge(&format!("{maps}/{name}"), json!({"data": {"n": n.to_string()}})).await),
                _ => drop(site.delete(&format!("{maps}/{name}")).await),
            }
        }
        site.make(&maps, map("last", "x")).await;
    };
    write.await;
    let mut told = Vec::new();
    let mut followers = Vec::new();
    loop {
        let (what, object) = first.next().await;
        let version = version(&object);
        followers.push((told.len() + 1, site.watch(&format!("{maps}?resourceVersion={version}")).await));
        told.push(format!("{what} {version}"));
        if what == "ADDED last" {
            break;
        }
    }
    for (from, mut watch) in followers {
        for want in &told[from..] {
            let (what, object) = watch.next().await;
            assert_eq!(&format!("{what} {}", version(&object)), want);
        }
    }
}

/// Makes pod templates `template-0000` and so on.
async fn templates(site: &Site, count: usize) -> String {
    let path = format!("{}/podtemplates", site.namespace("chunks").await);
    for n in 0..count {
        let template = json!({"metadata": {"name": format!("template-{n:04}")},
            "template": {"spec": {"containers": [{"name": "test", "image": "test2"}]}}});
        site.make(&path, template).await;
    }
    path
}

/// One page, which must begin at the `found`-th template; gives its token and its version.
async fn page(
    site: &Site,
    path: &str,
    limit: usize,
    token: &str,
    found: &mut usize,
    total: usize,
) -> (String, String) {
    let list = site.get(&format!("{path}?limit={limit}&continue={token}")).await.ok();
    let items = list["items"].as_array().unwrap();
    assert!(items.len() <= limit);
    for item in items {
        assert_eq!(item["metadata"]["name"], format!("template-{:04}", *found));
        *found += 1;
    }
    let meta = &list["metadata"];
    match meta["remainingItemCount"].as_u64() {
        Some(remaining) => assert_eq!(usize::try_from(remaining).unwrap() + *found, total),
        None => assert_eq!((*found, &meta["continue"]), (total, &Value::Null)),
    }
    (meta["continue"].as_str().unwrap_or("").to_owned(), version(&list))
}

#[tokio::test]
async fn lists_come_in_chunks_of_one_version() {
    let site = in_process().await;
    let path = templates(&site, 40).await;
    let (mut token, mut found) = (String::new(), 0);
    let mut first = None;
    loop {
        let (next, at) = page(&site, &path, 7, &token, &mut found, 40).await;
        assert_eq!(first.get_or_insert_with(|| at.clone()), &at);
        token = next;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(found, 40);
    let whole = site.get(&format!("{path}?limit=41")).await.ok();
    assert_eq!(
        (whole["items"].as_array().unwrap().len(), &whole["metadata"]["continue"]),
        (40, &Value::Null)
    );
}

#[tokio::test]
async fn a_list_goes_on_when_its_version_is_forgotten() {
    let site = in_process().await;
    let path = templates(&site, 40).await;
    let mut found = 0;
    let (token, first) = page(&site, &path, 4, "", &mut found, 40).await;
    // Nothing of the kind changes, yet the version goes.
    site.make("/api/v1/namespaces", json!({"metadata": {"name": "another"}})).await;
    site.server.compact(first.parse::<u64>().unwrap() + 1).await.unwrap();
    let gone = site.get(&format!("{path}?limit=4&continue={token}")).await.refused(410, "Expired");
    let on = gone["metadata"]["continue"].as_str().expect("a token that goes on").to_owned();
    let (mut token, now) = page(&site, &path, 4, &on, &mut found, 40).await;
    assert_ne!(now, first);
    while !token.is_empty() {
        let (next, at) = page(&site, &path, 4, &token, &mut found, 40).await;
        assert_eq!(at, now);
        token = next;
    }
    assert_eq!(found, 40);
    site.get(&format!("{path}?resourceVersion={first}&resourceVersionMatch=Exact"))
        .await
        .refused(410, "Expired");
}
