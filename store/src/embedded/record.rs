//! How a value stands on disk: its two revisions, big-endian, and then its bytes.

use crate::{Error, KeyValue, Reason};
use bytes::Bytes;

/// The length of what stands before a value.
pub(crate) const HEADER_LEN: usize = 16;

/// What stands before the value of this item.
pub(crate) fn header(item: &KeyValue) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&item.create_revision.to_be_bytes());
    header[8..].copy_from_slice(&item.mod_revision.to_be_bytes());
    header
}

/// The item that a record holds.
pub(crate) fn decode(key: Bytes, record: &[u8]) -> Result<KeyValue, Error> {
    let split = record.split_first_chunk::<8>().and_then(|(create, rest)| {
        let (modified, value) = rest.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*create), u64::from_be_bytes(*modified), value))
    });
    let Some((create_revision, mod_revision, value)) = split else {
        return Err(Error::new(Reason::Corrupt, format!("the record of key {key:?} is cut short")));
    };
    Ok(KeyValue { key, value: Bytes::copy_from_slice(value), create_revision, mod_revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_back_its_item() {
        let item = KeyValue {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"value"),
            create_revision: 3,
            mod_revision: u64::MAX,
        };
        let mut record = header(&item).to_vec();
        record.extend_from_slice(&item.value);
        assert_eq!(decode(item.key.clone(), &record).ok(), Some(item));
        for len in 0..HEADER_LEN {
            let reason = decode(Bytes::new(), &record[..len]).err().map(|e| e.reason());
            assert_eq!(reason, Some(Reason::Corrupt), "{len} bytes");
        }
    }
}
