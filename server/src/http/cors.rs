//! Which web pages of other origins may ask.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ORIGIN,
};
use http::{HeaderMap, HeaderValue};
use regex::Regex;

const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE, PATCH");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since",
);
const EXPOSED: HeaderValue = HeaderValue::from_static("Date");
const YES: HeaderValue = HeaderValue::from_static("true");

/// The origins that are allowed, as regular expressions (`//localhost(:|$)`); each is looked for anywhere in an origin.
#[derive(Clone, Debug, Default)]
pub struct AllowedOrigins(Vec<Regex>);

impl AllowedOrigins {
    /// Origins that one of these expressions is found in.
    ///
    /// # Errors
    /// Names the expression that is none.
    pub fn new<'a>(expressions: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let compiled = expressions.into_iter().map(|text| {
            if text.is_empty() {
                return Err("an empty expression would allow every origin; write .* to do that".to_owned());
            }
            Regex::new(text).map_err(|e| e.to_string())
        });
        compiled.collect::<Result<_, _>>().map(AllowedOrigins)
    }

    /// The origin of a request, where it is allowed.
    pub(super) fn of(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?;
        self.0.iter().any(|r| r.is_match(text)).then(|| origin.clone())
    }
}

/// Tells the browser that the page may see the answer.
pub(super) fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, YES);
}
