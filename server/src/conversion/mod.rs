//! Custom objects from one version into another, where a webhook does that.
//!
//! An object is kept in the version in which it was stored. Before a request looks at it in another one, [`Converter::prepare`] has all
//! the objects that it will look at converted, in as few calls as their number allows, and leaves the results with them; whoever asks
//! later for the same version of the same object asks no webhook.

mod review;

use crate::cache::Entry;
use crate::kinds::Served;
use crate::outbound::{Endpoint, Outbound};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kubewright_core::resource::ConversionWebhook;
use kubewright_core::{ApiError, Entropy, KindDescriptor};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How many objects one review holds at most.
const REVIEW_OBJECTS_MAX: usize = 250;
/// Upstream's limit of a call, which no definition can change.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Asks conversion webhooks.
pub(crate) struct Converter {
    outbound: Arc<Outbound>,
    entropy: Arc<Entropy>,
}

impl Converter {
    pub(crate) fn new(outbound: Arc<Outbound>, entropy: Arc<Entropy>) -> Self {
        Converter { outbound, entropy }
    }

    /// Makes sure that [`Entry::shape`] can show these objects as `kind`; nothing happens for kinds that no webhook converts.
    ///
    /// # Errors
    /// 500 with what went wrong on the way to the webhook, or with what it said.
    pub(crate) async fn prepare<'a>(
        &self,
        kind: &Served,
        entries: impl IntoIterator<Item = &'a Arc<Entry>>,
    ) -> Result<(), ApiError> {
        if kind.descriptor.conversion.is_none() {
            return Ok(());
        }
        let foreign: Vec<&Arc<Entry>> = entries.into_iter().filter(|e| !e.shows(kind)).collect();
        for some in foreign.chunks(REVIEW_OBJECTS_MAX) {
            let objects = some.iter().map(|e| e.shape.object.value()).collect::<Result<Vec<_>, _>>()?;
            let converted = self.convert(&kind.descriptor, objects).await?;
            for (entry, value) in some.iter().zip(converted) {
                entry.keep(kind, &value)?;
            }
        }
        Ok(())
    }

    /// The object in the version in which it is to be stored; `None` where it is in that already.
    ///
    /// # Errors
    /// As [`Converter::prepare`].
    pub(crate) async fn stored(&self, kind: &Served, object: &Value) -> Result<Option<Value>, ApiError> {
        let Some(view) = &kind.descriptor.stored_as else { return Ok(None) };
        if kind.descriptor.conversion.is_some() {
            return self.convert(&kind.storage, vec![object.clone()]).await.map(|mut all| all.pop());
        }
        let mut value = object.clone();
        (view.to_stored)(&mut value);
        Ok(Some(value))
    }

    /// An object of one kind as another kind that holds the same objects.
    ///
    /// # Errors
    /// As [`Converter::prepare`].
    pub(crate) async fn between(
        &self,
        from: &KindDescriptor,
        to: &KindDescriptor,
        object: &Value,
    ) -> Result<Value, ApiError> {
        if to.conversion.is_some() {
            let mut all = self.convert(to, vec![object.clone()]).await?;
            return all.pop().ok_or_else(|| ApiError::internal("a conversion gave nothing"));
        }
        let mut object = object.clone();
        if let Some(view) = &from.stored_as {
            (view.to_stored)(&mut object);
        }
        if let Some(view) = &to.stored_as {
            (view.from_stored)(&mut object);
        }
        Ok(object)
    }

    /// Converts objects of any versions of a kind into `to`, in order.
    async fn convert(&self, to: &KindDescriptor, mut objects: Vec<Value>) -> Result<Vec<Value>, ApiError> {
        let Some(webhook) = &to.conversion else { return Ok(objects) };
        let wanted = to.api_version();
        let foreign: Vec<usize> =
            (0..objects.len()).filter(|i| objects[*i]["apiVersion"] != wanted.as_str()).collect();
        let Some(first) = foreign.first() else { return Ok(objects) };
        let from = review::kind_of(&objects[*first]);
        let sent: Vec<&Value> = foreign.iter().map(|i| &objects[*i]).collect();
        let uid = self.entropy.uid();
        // Boxed, so that the many requests that ask no webhook carry no room for the call.
        let answer = Box::pin(self.ask(webhook, &uid, &wanted, &sent)).await;
        let answer = answer.map_err(|why| failed(format!("conversion webhook for {from} failed: {why}")))?;
        let converted = review::checked(&from, &wanted, &sent, answer).map_err(failed)?;
        for (i, mut value) in foreign.into_iter().zip(converted) {
            to.schema.prune(&mut value);
            to.schema.apply_defaults(&mut value);
            objects[i] = value;
        }
        Ok(objects)
    }

    async fn ask(
        &self,
        webhook: &ConversionWebhook,
        uid: &str,
        wanted: &str,
        objects: &[&Value],
    ) -> Result<Vec<Value>, String> {
        let version = review::version(&webhook.review_versions)?;
        let endpoint = Endpoint::of_client_config(&webhook.client_config)?;
        let document = review::request(version, uid, wanted, objects).map_err(|e| e.to_string())?;
        let client = self.outbound.client(&endpoint.destination).map_err(|e| e.to_string())?;
        let path = format!("{}?timeout={}s", endpoint.path, TIMEOUT.as_secs());
        let answer = client.post(&path, document, None, TIMEOUT, ANSWER_BYTES_MAX).await;
        let answer = answer.map_err(|e| format!("Post \"{}\": {e}", client.url(&path)))?;
        if !(200..300).contains(&answer.status) {
            return Err(crate::outbound::refused(&answer));
        }
        review::converted(version, uid, &answer.body)
    }
}

/// Upstream gives such errors no reason.
fn failed(message: String) -> ApiError {
    ApiError::from_status(Status {
        status: Some("Failure".to_owned()),
        code: Some(500),
        message: Some(message),
        ..Status::default()
    })
}

/// Whether stored bytes are of this version of a kind. They begin with it.
pub(crate) fn is_of_version(bytes: &[u8], kind: &KindDescriptor) -> bool {
    let rest = bytes.strip_prefix(br#"{"apiVersion":""#).and_then(|b| b.strip_prefix(kind.group.as_bytes()));
    let rest = rest.and_then(|b| b.strip_prefix(b"/")).and_then(|b| b.strip_prefix(kind.version.as_bytes()));
    rest.is_some_and(|b| b.first() == Some(&b'"'))
}
