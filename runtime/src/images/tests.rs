//! Images in, images out, and bad ones refused.

use super::store::ImageStore;
use super::{EMPTY_LAYER, ImageBuilder};
use crate::Reason;
use kubewright_core::SystemClock;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

async fn store(dir: &Path) -> ImageStore {
    ImageStore::open(dir, Arc::new(SystemClock)).await.unwrap()
}

fn hello() -> ImageBuilder {
    let image = ImageBuilder::new().content("/etc/motd", "hello\n", 0o644).link("/motd", "etc/motd");
    image.entrypoint(["/bin/cat"]).cmd(["/motd"]).env("A", "1").user("7:8").working_dir("/srv")
}

fn layers(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir.join("layers")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// A tar of a directory's files.
fn tar_of(dir: &Path) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", dir).unwrap();
    archive.into_inner().unwrap()
}

#[tokio::test]
async fn an_image_is_built_found_kept_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let images = store(dir.path()).await;
    let id = images.build(hello(), "localhost/hello:1").await.unwrap();
    assert_eq!(
        images.build(hello(), "localhost/again:1").await.unwrap(),
        id,
        "the same files give the same image"
    );
    drop(images);
    let images = store(dir.path()).await;
    for name in ["localhost/hello:1", "localhost/again:1", &id, id.trim_start_matches("sha256:")] {
        assert_eq!(images.find(name).unwrap().id, id, "{name}");
    }
    let view = images.find(&id).unwrap().view();
    assert_eq!((view.uid, view.repo_tags.len(), view.repo_digests.len()), (Some(7), 2, 2));
    assert_eq!(images.find(&view.repo_digests[0]).unwrap().id, id);
    let layer = images.find(&id).unwrap().layers.remove(0);
    let motd = images.layers_dir().join(layer).join("motd");
    assert_eq!(fs::read_to_string(motd).unwrap(), "hello\n");
    images.remove(&id).await.unwrap();
    assert!(images.find(&id).is_none());
    let empty = BTreeSet::from([EMPTY_LAYER.to_owned(), format!("{EMPTY_LAYER}.json")]);
    assert_eq!(layers(dir.path()), empty);
    assert!(!dir.path().join("new").exists());
}

#[tokio::test]
async fn a_name_moves_to_the_image_that_had_it_last() {
    let dir = tempfile::tempdir().unwrap();
    let images = store(dir.path()).await;
    let old = images.build(hello(), "localhost/x").await.unwrap();
    let new = images.build(hello().env("B", "2"), "localhost/x").await.unwrap();
    assert_ne!(old, new);
    assert_eq!(images.find("localhost/x:latest").unwrap().id, new);
    assert!(images.find(&old).unwrap().names.is_empty());
}

#[tokio::test]
async fn layouts_and_archives_are_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    hello().write_layout(&layout).unwrap();
    let images = store(&dir.path().join("images")).await;
    let id = images.import(&layout, Some("a:1")).await.unwrap().remove(0);
    let archive = dir.path().join("image.tar");
    fs::write(&archive, tar_of(&layout)).unwrap();
    let packed = zstd::encode_all(tar_of(&layout).as_slice(), 1).unwrap();
    assert_eq!(images.import(&archive, Some("b:1")).await.unwrap(), vec![id.clone()]);
    assert_eq!(
        images.import_reader(std::io::Cursor::new(packed), Some("c:1")).await.unwrap(),
        vec![id.clone()]
    );
    let address = format!("file://{}", archive.display());
    assert_eq!(images.pull(&address, None).await.unwrap(), id);
    assert_eq!(images.find(&address).unwrap().id, id);
    assert_eq!(images.import(Path::new("/no/such"), None).await.unwrap_err().reason(), Reason::NotFound);
    fs::write(&archive, "no image").unwrap();
    assert_eq!(images.import(&archive, None).await.unwrap_err().reason(), Reason::Invalid);
}

#[tokio::test]
async fn an_archive_of_docker_save_is_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved");
    fs::create_dir(&saved).unwrap();
    let layer = tar_of(&saved);
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(&layer)));
    fs::write(saved.join("layer.tar"), layer).unwrap();
    let config =
        format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}},"config":{{"Cmd":["x"]}}}}"#);
    fs::write(saved.join("config.json"), config).unwrap();
    let manifest = r#"[{"Config":"config.json","RepoTags":["me/it:2"],"Layers":["layer.tar"]}]"#;
    fs::write(saved.join("manifest.json"), manifest).unwrap();
    let images = store(&dir.path().join("images")).await;
    images.import_reader(std::io::Cursor::new(tar_of(&saved)), None).await.unwrap();
    assert_eq!(images.find("me/it:2").unwrap().config.cmd.unwrap(), ["x"]);
    let outside = manifest.replace("config.json", "../../secret");
    fs::write(saved.join("manifest.json"), outside).unwrap();
    fs::write(dir.path().join("secret"), "{}").unwrap();
    assert_eq!(images.import(&saved, None).await.unwrap_err().reason(), Reason::Invalid);
}

#[tokio::test]
async fn a_changed_layer_is_refused_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    hello().write_layout(&layout).unwrap();
    let blobs: Vec<PathBuf> =
        fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let largest = blobs.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(largest).unwrap();
    let at = bytes.windows(5).position(|window| window == b"hello").unwrap();
    bytes[at] = b'j';
    fs::write(largest, bytes).unwrap();
    let images = store(&dir.path().join("images")).await;
    assert_eq!(images.import(&layout, None).await.unwrap_err().reason(), Reason::Invalid);
    assert!(images.list().is_empty());
    assert_eq!(layers(&dir.path().join("images")).len(), 2);
}

/// A registry of one image, in as few words as HTTP allows.
fn serve(layout: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            let authorized =
                headers.iter().any(|line| line.eq_ignore_ascii_case("authorization: Basic dTpw"));
            let index: serde_json::Value =
                serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
            let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
            let (status, digest) = match path.rsplit_once('/') {
                _ if !authorized => (401, None),
                Some(("/v2/me/it/manifests", "1")) => (200, Some(manifest)),
                Some(("/v2/me/it/blobs", digest)) => (200, Some(digest.to_owned())),
                Some((_, "v2" | "")) => (200, None),
                _ => (404, None),
            };
            let body = digest.as_ref().map(|digest| {
                fs::read(layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))).unwrap()
            });
            let (body, digest) = (body.unwrap_or_default(), digest.unwrap_or_default());
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nContent-Type: {}\r\nDocker-Content-Digest: {digest}\r\n\
                 WWW-Authenticate: Basic realm=\"x\"\r\nConnection: close\r\n\r\n",
                body.len(),
                super::manifest::MANIFEST_TYPE,
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    address
}

#[tokio::test]
async fn a_registry_is_pulled_from() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    hello().write_layout(&layout).unwrap();
    let images = store(&dir.path().join("images")).await;
    let address = serve(layout);
    let auth = |password: &str| {
        Some(crate::port::AuthConfig {
            username: "u".to_owned(),
            password: password.to_owned(),
            ..crate::port::AuthConfig::default()
        })
    };
    let name = format!("{address}/me/it:1");
    let id = images.pull(&name, auth("p")).await.unwrap();
    let found = images.find(&name).unwrap();
    assert_eq!((found.id.as_str(), found.layers.len()), (id.as_str(), 1));
    assert!(found.digests.iter().all(|digest| digest.starts_with(&format!("{address}/me/it@sha256:"))));
    assert_eq!(images.pull(&name, auth("wrong")).await.unwrap_err().reason(), Reason::ImagePull);
    let missing = images.pull(&format!("{address}/me/other:1"), auth("p")).await.unwrap_err();
    assert_eq!(missing.reason(), Reason::NotFound, "{missing}");
    assert_eq!(images.pull("localhost/none:1", None).await.unwrap_err().reason(), Reason::NotFound);
}
