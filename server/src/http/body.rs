//! The body of a response: known bytes, a list spliced from its items, or a stream.

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};
use kubewright_core::{ApiError, ApiObject, ObjectList};
use std::fmt;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Small items are copied together into chunks of about this size; one TLS record holds 16 KiB, so a few fit.
const CHUNK_BYTES: usize = 64 * 1024;
/// An item of at least this size is sent as it stands in the cache, uncopied.
const UNCOPIED_BYTES_MIN: usize = 32 * 1024;

/// The body of every response of [`super::HttpService`].
///
/// # Cancel safety
/// Dropping it ends the watch or log behind it.
pub struct Body(Kind);

enum Kind {
    Full(Bytes),
    List(Box<ListBody>),
    Gzip(Box<Gzip>),
    Stream(BoxStream<'static, Result<Bytes, ApiError>>),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Body(Kind::Full(Bytes::new()))
    }

    /// These bytes.
    pub fn full(bytes: Bytes) -> Self {
        Body(Kind::Full(bytes))
    }

    /// Chunks as they come.
    pub fn stream(stream: BoxStream<'static, Result<Bytes, ApiError>>) -> Self {
        Body(Kind::Stream(stream))
    }

    /// A list, whose items are spliced in as they are.
    pub(super) fn list(list: ObjectList) -> Self {
        Body(Kind::List(Box::new(ListBody::new(list))))
    }

    /// How many bytes are left, where that is known.
    pub(super) fn len(&self) -> Option<u64> {
        match &self.0 {
            Kind::Full(bytes) => Some(bytes.len() as u64),
            Kind::List(list) => Some(list.left),
            Kind::Gzip(_) | Kind::Stream(_) => None,
        }
    }

    /// The same bytes, compressed while they are sent; a stream stays as it is.
    pub(super) fn gzip(self) -> Self {
        match self.0 {
            kind @ (Kind::Full(_) | Kind::List(_)) => Body(Kind::Gzip(Box::new(Gzip::new(Body(kind))))),
            other => Body(other),
        }
    }

    /// The chunks of a body whose length is known, at once; the body itself otherwise.
    pub(super) fn into_chunks(self) -> Result<Vec<Bytes>, Body> {
        match self.0 {
            Kind::Full(bytes) => Ok(vec![bytes]),
            Kind::List(mut list) => Ok(std::iter::from_fn(|| list.next_chunk()).collect()),
            other => Err(Body(other)),
        }
    }

    fn next_known_chunk(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Kind::Full(bytes) if bytes.is_empty() => None,
            Kind::Full(bytes) => Some(std::mem::take(bytes)),
            Kind::List(list) => list.next_chunk(),
            Kind::Gzip(_) | Kind::Stream(_) => None,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = ApiError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ApiError>>> {
        let chunk = match &mut self.0 {
            Kind::Full(_) | Kind::List(_) => self.next_known_chunk().map(Ok),
            Kind::Gzip(gzip) => gzip.next_chunk().transpose(),
            Kind::Stream(stream) => std::task::ready!(stream.as_mut().poll_next(cx)),
        };
        Poll::Ready(chunk.map(|c| c.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.len() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.len().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len() {
            Some(n) => write!(f, "Body({n} bytes)"),
            None => f.write_str("Body(stream)"),
        }
    }
}

/// How much is compressed between two chunks, so that no poll takes long.
const GZIP_STEP_BYTES: usize = 64 * 1024;

/// A body of known bytes, compressed step by step.
struct Gzip {
    source: Body,
    /// What the source gave and was not yet compressed.
    pending: Bytes,
    /// `None` once the trailer went out.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Gzip {
    fn new(source: Body) -> Self {
        // Upstream's level too: the speed matters more than the last bytes.
        let encoder = GzEncoder::new(Vec::with_capacity(GZIP_STEP_BYTES / 4), Compression::new(1));
        Gzip { source, pending: Bytes::new(), encoder: Some(encoder) }
    }

    fn next_chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        while let Some(encoder) = &mut self.encoder {
            if self.pending.is_empty() {
                self.pending = self.source.next_known_chunk().unwrap_or_default();
            }
            if self.pending.is_empty() {
                let rest = self.encoder.take().map(GzEncoder::finish).transpose();
                return rest.map(|r| r.map(Bytes::from)).map_err(ApiError::internal);
            }
            let step = self.pending.split_to(self.pending.len().min(GZIP_STEP_BYTES));
            encoder.write_all(&step).map_err(ApiError::internal)?;
            if encoder.get_ref().len() >= GZIP_STEP_BYTES / 8 {
                return Ok(Some(Bytes::from(std::mem::take(encoder.get_mut()))));
            }
        }
        Ok(None)
    }
}

/// `{"kind":"PodList",...,"items":[` + items with commas + `]}`.
struct ListBody {
    prefix: Bytes,
    items: std::vec::IntoIter<Arc<ApiObject>>,
    /// Whether an item went out already, so that the next one needs a comma.
    started: bool,
    /// A large item that waits behind the copied ones.
    waiting: Option<Bytes>,
    finished: bool,
    left: u64,
}

impl ListBody {
    fn new(list: ObjectList) -> Self {
        let prefix = list_prefix(&list);
        let items: u64 = list.items.iter().map(|o| o.bytes().len() as u64).sum();
        let commas = list.items.len().saturating_sub(1) as u64;
        let left = prefix.len() as u64 + items + commas + SUFFIX.len() as u64;
        ListBody {
            prefix,
            items: list.items.into_iter(),
            started: false,
            waiting: None,
            finished: false,
            left,
        }
    }

    fn next_chunk(&mut self) -> Option<Bytes> {
        let chunk = match self.waiting.take() {
            Some(bytes) => bytes,
            None => self.copied_chunk()?,
        };
        self.left -= chunk.len() as u64;
        Some(chunk)
    }

    fn copied_chunk(&mut self) -> Option<Bytes> {
        if self.finished {
            return None;
        }
        let size = (self.left as usize).min(CHUNK_BYTES + UNCOPIED_BYTES_MIN);
        let mut out = BytesMut::with_capacity(size);
        out.put(std::mem::take(&mut self.prefix));
        while out.len() < CHUNK_BYTES {
            let Some(item) = self.items.next() else {
                out.put_slice(SUFFIX);
                self.finished = true;
                break;
            };
            if self.started {
                out.put_u8(b',');
            }
            self.started = true;
            if item.bytes().len() >= UNCOPIED_BYTES_MIN {
                self.waiting = Some(item.bytes().clone());
                break;
            }
            out.put_slice(item.bytes());
        }
        Some(out.freeze())
    }
}

const SUFFIX: &[u8] = b"]}";

fn list_prefix(list: &ObjectList) -> Bytes {
    let mut out = Vec::with_capacity(160);
    out.extend_from_slice(b"{\"kind\":");
    json_text(&mut out, &list.kind);
    out.extend_from_slice(b",\"apiVersion\":");
    json_text(&mut out, &list.api_version);
    out.extend_from_slice(b",\"metadata\":{\"resourceVersion\":\"");
    out.extend_from_slice(list.resource_version.to_string().as_bytes());
    out.push(b'"');
    if let Some(token) = &list.continue_token {
        out.extend_from_slice(b",\"continue\":");
        json_text(&mut out, token);
    }
    if let Some(remaining) = list.remaining {
        out.extend_from_slice(b",\"remainingItemCount\":");
        out.extend_from_slice(remaining.to_string().as_bytes());
    }
    out.extend_from_slice(b"},\"items\":[");
    Bytes::from(out)
}

fn json_text(out: &mut Vec<u8>, text: &str) {
    // A text always encodes, and a Vec takes all.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use std::io::Read;

    fn list(sizes: &[usize]) -> ObjectList {
        let item = |(i, size): (usize, &usize)| {
            let value = json!({"kind": "X", "metadata": {"name": i.to_string()}, "data": "x".repeat(*size)});
            Arc::new(ApiObject::from_value(&value).unwrap())
        };
        ObjectList {
            api_version: "v1".to_owned(),
            kind: "XList".to_owned(),
            resource_version: 7,
            continue_token: Some("a\"b".to_owned()),
            remaining: Some(3),
            items: sizes.iter().enumerate().map(item).collect(),
        }
    }

    #[tokio::test]
    async fn a_list_is_spliced_with_its_exact_length() {
        let mut sizes = vec![10; 5000];
        sizes[17] = 100_000;
        sizes[18] = 40_000;
        for sizes in [&[][..], &[5], &[100_000], &[40_000, 40_000, 1], &[1, 40_000], &sizes] {
            let body = Body::list(list(sizes));
            let length = body.size_hint().exact().unwrap();
            let bytes = body.collect().await.unwrap().to_bytes();
            assert_eq!(bytes.len() as u64, length);
            let zipped = Body::list(list(sizes)).gzip().collect().await.unwrap().to_bytes();
            let mut unzipped = Vec::new();
            flate2::read::GzDecoder::new(&zipped[..]).read_to_end(&mut unzipped).unwrap();
            assert_eq!(unzipped, bytes);
            let value: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(value["metadata"]["continue"], "a\"b");
            let items = value["items"].as_array().unwrap();
            assert_eq!(items.len(), sizes.len());
            assert!(items.iter().zip(sizes).all(|(i, s)| i["data"].as_str().unwrap().len() == *s));
        }
    }
}
