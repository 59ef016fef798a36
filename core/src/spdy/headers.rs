//! Blocks of headers: length-prefixed pairs, compressed with one stream of state for each direction.

use super::dictionary::dictionary;
use super::{Headers, SpdyError};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// A block may grow to this many bytes; Kubernetes' are some dozens.
const BLOCK_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Encoder(Compress);

impl Encoder {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        // Only a stream that has begun already refuses a dictionary.
        let _ = compress.set_dictionary(&dictionary());
        Encoder(compress)
    }

    pub(super) fn encode(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, SpdyError> {
        let mut plain = Vec::with_capacity(128);
        plain.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        for (name, value) in headers {
            for text in [&name.to_ascii_lowercase(), *value] {
                plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
                plain.extend_from_slice(text.as_bytes());
            }
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let mut rest = &plain[..];
        loop {
            out.reserve(256);
            let before = self.0.total_in();
            let done = self.0.compress_vec(rest, &mut out, FlushCompress::Sync);
            done.map_err(|_| SpdyError("headers could not be compressed"))?;
            rest = &rest[(self.0.total_in() - before) as usize..];
            // With room left in the output, the flush is complete.
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
        }
    }
}

pub(super) struct Decoder(Decompress);

impl Decoder {
    pub(super) fn new() -> Self {
        Decoder(Decompress::new(true))
    }

    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        let plain = self.inflate(block)?;
        let mut rest = &plain[..];
        let count = number(&mut rest)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = text(&mut rest)?;
            headers.push((name, text(&mut rest)?));
        }
        Ok(headers)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, SpdyError> {
        const BAD: SpdyError = SpdyError("headers are not compressed as the protocol says");
        let mut out = Vec::with_capacity(512);
        loop {
            out.reserve(512);
            let before = self.0.total_in();
            let result = self.0.decompress_vec(block, &mut out, FlushDecompress::Sync);
            block = &block[(self.0.total_in() - before) as usize..];
            match result {
                Err(e) if e.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| BAD)?;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(BAD),
                Ok(_) if block.is_empty() && out.len() < out.capacity() => return Ok(out),
                Ok(Status::BufError) if out.len() < out.capacity() => return Err(BAD),
                Ok(_) => {}
            }
            if out.len() > BLOCK_BYTES_MAX {
                return Err(SpdyError("headers are too long"));
            }
        }
    }
}

const SHORT: SpdyError = SpdyError("headers end in the middle");

fn number(rest: &mut &[u8]) -> Result<u32, SpdyError> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head))
}

fn text(rest: &mut &[u8]) -> Result<String, SpdyError> {
    let length = number(rest)? as usize;
    let (head, tail) = rest.split_at_checked(length).ok_or(SHORT)?;
    *rest = tail;
    String::from_utf8(head.to_vec()).map_err(|_| SpdyError("a header is no UTF-8"))
}
