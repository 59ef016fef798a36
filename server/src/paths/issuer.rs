//! `/.well-known/openid-configuration` and `/openid/v1/jwks`: how others check the tokens of service accounts.

use super::{encoded, raw};
use crate::ports::PublishedKeys;
use crate::server::Shared;
use kubewright_core::{ApiError, ApiResponse};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

const KEYS_PATH: &str = "/openid/v1/jwks";

fn published(shared: &Shared) -> Result<PublishedKeys, ApiError> {
    let issuer = shared.tokens.load_full().ok_or_else(ApiError::no_such_path)?;
    issuer.published()?.ok_or_else(ApiError::no_such_path)
}

/// Who issues, and where the keys are.
pub(super) fn configuration(shared: &Shared) -> Result<ApiResponse, ApiError> {
    let advertise = (**shared.advertise.load()).unwrap_or((Ipv4Addr::LOCALHOST.into(), 6443));
    let document = metadata(&published(shared)?, advertise.into());
    Ok(keepable(raw("application/json", encoded(&document)?)))
}

fn metadata(published: &PublishedKeys, at: SocketAddr) -> Value {
    let keys = published.keys["keys"].as_array();
    let algorithms: BTreeSet<&str> = keys.into_iter().flatten().filter_map(|k| k["alg"].as_str()).collect();
    json!({
        "issuer": published.issuer,
        "jwks_uri": format!("https://{at}{KEYS_PATH}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    })
}

/// The keys themselves.
pub(super) fn keys(shared: &Shared) -> Result<ApiResponse, ApiError> {
    Ok(keepable(raw("application/jwk-set+json", encoded(&published(shared)?.keys)?)))
}

/// Anybody may keep it for an hour, as upstream says.
fn keepable(mut answer: ApiResponse) -> ApiResponse {
    answer.max_age_seconds = Some(3600);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_each_algorithm_once() {
        let keys = json!({"keys": [{"alg": "RS256"}, {"alg": "ES256"}, {"alg": "ES256"}, {}]});
        let published = PublishedKeys { issuer: "https://issuer".to_owned(), keys };
        let told = metadata(&published, "127.0.0.1:6443".parse().expect("an address"));
        assert_eq!(told["id_token_signing_alg_values_supported"], json!(["ES256", "RS256"]));
        assert_eq!(told["jwks_uri"], "https://127.0.0.1:6443/openid/v1/jwks");
        assert_eq!(told["issuer"], "https://issuer");
    }
}
