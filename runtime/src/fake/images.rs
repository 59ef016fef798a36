//! The images of a fake runtime: every name can be pulled, unless the configuration says otherwise.

use super::FakeRuntime;
use crate::images::Reference;
use crate::port::{AuthConfig, FilesystemUsage, Image, ImageService};
use crate::{Error, Reason};
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};

const SIZE_BYTES: u64 = 10_000_000;

impl FakeRuntime {
    fn find_image(&self, name: &str) -> Option<Image> {
        let state = self.inner.state.lock();
        let by_name =
            Reference::parse(name).ok().and_then(|name| state.images.get(&name.to_string()).cloned());
        by_name.or_else(|| {
            let mut all = state.images.values();
            all.find(|image| image.id == name || image.repo_digests.iter().any(|digest| digest == name))
                .cloned()
        })
    }

    pub(super) fn image_ref(&self, name: &str) -> Option<String> {
        let image = self.find_image(name)?;
        Some(image.repo_digests.first().cloned().unwrap_or(image.id))
    }
}

fn made_from(reference: &Reference) -> Image {
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(reference.to_string())));
    Image {
        id: digest.clone(),
        repo_tags: reference.tag.iter().map(|_| reference.to_string()).collect(),
        repo_digests: vec![format!("{}@{digest}", reference.name())],
        size_bytes: SIZE_BYTES,
        ..Image::default()
    }
}

impl ImageService for FakeRuntime {
    fn list_images(&self) -> BoxFuture<'_, Result<Vec<Image>, Error>> {
        Box::pin(async move {
            self.inner.check_faults("ListImages")?;
            Ok(self.inner.state.lock().images.values().cloned().collect())
        })
    }

    fn image_status(&self, image: &str) -> BoxFuture<'_, Result<Option<Image>, Error>> {
        let image = image.to_owned();
        Box::pin(async move {
            self.inner.check_faults("ImageStatus")?;
            Ok(self.find_image(&image))
        })
    }

    fn pull_image(&self, image: &str, _auth: Option<AuthConfig>) -> BoxFuture<'_, Result<String, Error>> {
        let image = image.to_owned();
        Box::pin(async move {
            self.inner.check_faults("PullImage")?;
            let reference = Reference::parse(&image)?;
            self.inner.wait(self.inner.config.pull_latency).await;
            if self.inner.config.unpullable.iter().any(|prefix| image.starts_with(prefix)) {
                return Err(Error::new(Reason::NotFound, format!("{reference}: not found")));
            }
            let made = made_from(&reference);
            let id = made.id.clone();
            self.inner.state.lock().images.insert(reference.to_string(), made);
            Ok(id)
        })
    }

    fn remove_image(&self, image: &str) -> BoxFuture<'_, Result<(), Error>> {
        let image = image.to_owned();
        Box::pin(async move {
            self.inner.check_faults("RemoveImage")?;
            if let Some(found) = self.find_image(&image) {
                self.inner.state.lock().images.retain(|_, other| other.id != found.id);
            }
            Ok(())
        })
    }

    fn image_fs_info(&self) -> BoxFuture<'_, Result<Vec<FilesystemUsage>, Error>> {
        Box::pin(async move {
            self.inner.check_faults("ImageFsInfo")?;
            let count = self.inner.state.lock().images.len() as u64;
            let (timestamp, mountpoint) = (self.inner.now(), "/fake".to_owned());
            let used_bytes = count * SIZE_BYTES;
            Ok(vec![FilesystemUsage { timestamp, mountpoint, used_bytes, inodes_used: count }])
        })
    }
}
