//! `ImageService` over the socket.

use super::errors::{told, told_as};
use super::{CriClient, gone_is_fine, read, wire, within, write};
use crate::port::{AuthConfig, FilesystemUsage, Image};
use crate::{Error, ImageService, Reason};
use futures::future::BoxFuture;

impl ImageService for CriClient {
    fn list_images(&self) -> BoxFuture<'_, Result<Vec<Image>, Error>> {
        Box::pin(async move {
            let request = wire::ListImagesRequest::default();
            let answer =
                within(self.timeouts.call, self.images().list_images(request)).await.map_err(told)?;
            Ok(answer.images.into_iter().map(read::image).collect())
        })
    }

    fn image_status(&self, image: &str) -> BoxFuture<'_, Result<Option<Image>, Error>> {
        let request = wire::ImageStatusRequest { image: Some(write::image(image)), verbose: false };
        Box::pin(async move {
            let answer = gone_is_fine(within(self.timeouts.call, self.images().image_status(request)).await)?;
            Ok(answer.image.map(read::image))
        })
    }

    fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> BoxFuture<'_, Result<String, Error>> {
        let request = wire::PullImageRequest {
            image: Some(write::image(image)),
            auth: auth.map(write::auth),
            sandbox_config: None,
        };
        Box::pin(async move {
            let answer = within(self.timeouts.pull, self.images().pull_image(request)).await;
            Ok(answer.map_err(told_as(Reason::ImagePull))?.image_ref)
        })
    }

    fn remove_image(&self, image: &str) -> BoxFuture<'_, Result<(), Error>> {
        let request = wire::RemoveImageRequest { image: Some(write::image(image)) };
        Box::pin(async move {
            gone_is_fine(within(self.timeouts.call, self.images().remove_image(request)).await)?;
            Ok(())
        })
    }

    fn image_fs_info(&self) -> BoxFuture<'_, Result<Vec<FilesystemUsage>, Error>> {
        Box::pin(async move {
            let request = wire::ImageFsInfoRequest {};
            let answer =
                within(self.timeouts.call, self.images().image_fs_info(request)).await.map_err(told)?;
            Ok(answer.image_filesystems.into_iter().map(read::filesystem).collect())
        })
    }
}
