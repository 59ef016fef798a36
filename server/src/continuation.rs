//! The tokens by which a list goes on, in upstream's form.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use kubewright_core::{ApiError, Reason};
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Continuation {
    v: String,
    /// The revision of the first page; -1 goes on with what is there now.
    rv: i64,
    /// The first key of the next page.
    start: String,
}

impl Continuation {
    /// Goes on after a key, at a revision.
    pub(crate) fn after(revision: u64, last: &[u8]) -> Self {
        let start = format!("{}\0", String::from_utf8_lossy(last));
        let rv = i64::try_from(revision).unwrap_or(i64::MAX);
        Continuation { v: VERSION.to_owned(), rv, start }
    }

    pub(crate) fn encode(&self) -> String {
        // A struct of texts and a number always serializes.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// # Errors
    /// 400 for a token that this server did not make.
    pub(crate) fn decode(token: &str) -> Result<Self, ApiError> {
        let invalid = || ApiError::bad_request("continue key is not valid");
        let trimmed = token.trim_end_matches('=');
        let bytes = URL_SAFE_NO_PAD.decode(trimmed).or_else(|_| STANDARD_NO_PAD.decode(trimmed));
        let token: Continuation =
            serde_json::from_slice(&bytes.map_err(|_| invalid())?).map_err(|_| invalid())?;
        let traverses = token.start.split('/').any(|part| part == "..");
        if token.v != VERSION || token.rv == 0 || token.rv < -1 || token.start.is_empty() || traverses {
            return Err(invalid());
        }
        Ok(token)
    }

    pub(crate) fn start(&self) -> &[u8] {
        self.start.as_bytes()
    }

    /// The revision to list at; `None` for the newest.
    pub(crate) fn revision(&self) -> Option<u64> {
        u64::try_from(self.rv).ok()
    }

    /// 410 for a token whose revision is forgotten, with a token that goes on all the same.
    pub(crate) fn expired(&self) -> ApiError {
        let on = Continuation { rv: -1, ..self.clone() };
        let message = "The provided continue parameter is too old to display a consistent list result. You can start a \
             new list without the continue parameter, or use the continue token in this response to retrieve the \
             remainder of the results. Continuing with the provided token results in an inconsistent list - objects \
             that were created, modified, or deleted between the time the first chunk was returned and now may show \
             up in the list.";
        let mut status = ApiError::new(Reason::Expired, message).status().clone();
        status.metadata.continue_ = Some(on.encode());
        ApiError::from_status(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_others_are_refused() {
        let token = Continuation::after(7, b"ns/a");
        assert_eq!(Continuation::decode(&token.encode()).unwrap(), token);
        assert_eq!((token.start(), token.revision()), (&b"ns/a\0"[..], Some(7)));
        let expired = token.expired();
        let on = expired.status().metadata.continue_.clone().unwrap();
        assert_eq!(Continuation::decode(&on).unwrap().revision(), None);
        for bad in ["", "!", "e30", &URL_SAFE_NO_PAD.encode(r#"{"v":"x","rv":1,"start":"a"}"#)] {
            assert_eq!(Continuation::decode(bad).unwrap_err().code(), 400, "{bad}");
        }
    }
}
