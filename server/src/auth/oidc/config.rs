//! `AuthenticationConfiguration` of `apiserver.config.k8s.io`: issuers of tokens, what their claims mean, and where strangers may go.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Why a configuration is not usable: every mistake, each with its field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationError(pub Vec<String>);

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the authentication configuration is invalid: {}", self.0.join("; "))
    }
}

impl std::error::Error for ConfigurationError {}

/// Who is let in by tokens of others, and what strangers may see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthenticationConfiguration {
    /// The issuers of tokens.
    pub issuers: Vec<OidcIssuer>,
    /// Whether callers without credentials are let in; `None` where the configuration does not say.
    pub anonymous: Option<bool>,
    /// The paths that they may ask for; all when empty.
    pub anonymous_paths: Vec<String>,
}

/// An OpenID Connect provider and what its tokens mean here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OidcIssuer {
    /// Its name, an `https` URL, as its tokens have it.
    pub url: String,
    /// Where its discovery document is, if not below its name.
    pub discovery_url: Option<String>,
    /// The authorities of its certificate, as PEM; the system's without any.
    pub authorities_pem: Option<String>,
    /// Whom a token has to be meant for: one of these.
    pub audiences: Vec<String>,
    /// The claim that names the user.
    pub username_claim: String,
    /// What is put before the user's name.
    pub username_prefix: String,
    /// The claim with the user's groups, where there is one.
    pub groups_claim: Option<String>,
    /// What is put before each group.
    pub groups_prefix: String,
    /// The claim with the user's uid, where there is one.
    pub uid_claim: Option<String>,
    /// Claims that a token must have with these values.
    pub required_claims: BTreeMap<String, String>,
    /// The signature algorithms that are taken.
    pub algorithms: BTreeSet<String>,
}

/// All that can be checked.
const ALGORITHMS: [&str; 9] =
    ["ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];

impl OidcIssuer {
    /// What upstream's plain flags make of an issuer and a client id: RS256 only, users by `sub`, with the issuer before the name.
    pub fn new(url: &str, client_id: &str) -> Self {
        OidcIssuer {
            url: url.to_owned(),
            audiences: vec![client_id.to_owned()],
            username_claim: "sub".to_owned(),
            username_prefix: format!("{url}#"),
            algorithms: BTreeSet::from(["RS256".to_owned()]),
            ..OidcIssuer::default()
        }
    }

    /// Every mistake of it, below a path.
    pub(super) fn check(&self, path: &str, wrong: &mut Vec<String>) {
        for (field, url) in [("url", Some(&self.url)), ("discoveryURL", self.discovery_url.as_ref())] {
            let Some(url) = url else { continue };
            let at = format!("{path}.issuer.{field}");
            match url.parse::<http::Uri>() {
                Err(e) => wrong.push(format!("{at}: Invalid value: {url:?}: {e}")),
                Ok(uri) if uri.scheme_str() != Some("https") || uri.host().is_none() => {
                    wrong.push(format!("{at}: Invalid value: {url:?}: URL scheme must be https"));
                }
                Ok(uri) if uri.query().is_some() => {
                    wrong.push(format!("{at}: Invalid value: {url:?}: URL must not contain a query"));
                }
                Ok(_) => {}
            }
        }
        if self.discovery_url.as_deref() == Some(self.url.as_str()) {
            wrong.push(format!(
                "{path}.issuer.discoveryURL: Invalid value: discoveryURL must be different from URL"
            ));
        }
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            wrong.push(format!("{path}.issuer.audiences: Required value: at least one audience is required"));
        }
        if self.username_claim.is_empty() {
            wrong.push(format!("{path}.claimMappings.username: Required value: claim is required"));
        }
        for algorithm in &self.algorithms {
            if !ALGORITHMS.contains(&algorithm.as_str()) {
                wrong.push(format!(
                    "{path}: Unsupported value: {algorithm:?} is no signature algorithm that is checked"
                ));
            }
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    jwt: Vec<Jwt>,
    anonymous: Option<Anonymous>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Anonymous {
    enabled: bool,
    conditions: Vec<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Condition {
    path: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Jwt {
    issuer: Issuer,
    claim_validation_rules: Vec<ClaimRule>,
    claim_mappings: Mappings,
    user_validation_rules: Vec<serde_json::Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Issuer {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    certificate_authority: Option<String>,
    audiences: Vec<String>,
    audience_match_policy: Option<String>,
    egress_selector_type: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ClaimRule {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Mappings {
    username: Mapping,
    groups: Mapping,
    uid: Mapping,
    extra: Vec<serde_json::Value>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Mapping {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

impl AuthenticationConfiguration {
    /// A configuration out of its YAML or JSON.
    ///
    /// # Errors
    /// Every mistake in it; expressions (CEL) are told as not supported.
    pub fn parse(text: &str) -> Result<Self, ConfigurationError> {
        let document: Document =
            serde_saphyr::from_str(text).map_err(|e| ConfigurationError(vec![e.to_string()]))?;
        let mut wrong = Vec::new();
        let versions = ["v1", "v1beta1", "v1alpha1"].map(|v| format!("apiserver.config.k8s.io/{v}"));
        if document.kind != "AuthenticationConfiguration" || !versions.contains(&document.api_version) {
            let (version, kind) = (&document.api_version, &document.kind);
            wrong.push(format!("apiVersion, kind: {version:?} {kind:?} is no AuthenticationConfiguration"));
        }
        let mut issuers: Vec<OidcIssuer> = Vec::new();
        for (i, jwt) in document.jwt.iter().enumerate() {
            let path = format!("jwt[{i}]");
            let issuer = jwt.issuer(&path, &mut wrong);
            issuer.check(&path, &mut wrong);
            if issuers.iter().any(|other| other.url == issuer.url) {
                wrong.push(format!("{path}.issuer.url: Duplicate value: {:?}", issuer.url));
            }
            issuers.push(issuer);
        }
        let anonymous = document.anonymous.unwrap_or(Anonymous { enabled: true, conditions: Vec::new() });
        if !anonymous.enabled && !anonymous.conditions.is_empty() {
            wrong.push("anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined".to_owned());
        }
        let paths: Vec<String> = anonymous.conditions.into_iter().map(|c| c.path).collect();
        if !wrong.is_empty() {
            return Err(ConfigurationError(wrong));
        }
        Ok(AuthenticationConfiguration {
            issuers,
            anonymous: Some(anonymous.enabled),
            anonymous_paths: paths,
        })
    }
}

impl Jwt {
    fn issuer(&self, path: &str, wrong: &mut Vec<String>) -> OidcIssuer {
        let mut lacks =
            |field: &str| wrong.push(format!("{path}.{field}: Forbidden: not implemented: expressions"));
        let mappings = &self.claim_mappings;
        for (field, mapping) in
            [("username", &mappings.username), ("groups", &mappings.groups), ("uid", &mappings.uid)]
        {
            if !mapping.expression.is_empty() {
                lacks(&format!("claimMappings.{field}.expression"));
            }
        }
        if !mappings.extra.is_empty() {
            lacks("claimMappings.extra");
        }
        if !self.user_validation_rules.is_empty() {
            lacks("userValidationRules");
        }
        let mut required = BTreeMap::new();
        for (i, rule) in self.claim_validation_rules.iter().enumerate() {
            if !rule.expression.is_empty() || !rule.message.is_empty() {
                lacks(&format!("claimValidationRules[{i}].expression"));
            }
            required.insert(rule.claim.clone(), rule.required_value.clone());
        }
        let source = &self.issuer;
        if source.egress_selector_type.as_deref().is_some_and(|t| !t.is_empty()) {
            lacks("issuer.egressSelectorType");
        }
        let policy = source.audience_match_policy.as_deref().unwrap_or("");
        if !matches!(policy, "" | "MatchAny") || (source.audiences.len() > 1 && policy.is_empty()) {
            wrong.push(format!(
                "{path}.issuer.audienceMatchPolicy: Invalid value: {policy:?}: audienceMatchPolicy must be MatchAny for multiple audiences"
            ));
        }
        if !mappings.username.claim.is_empty() && mappings.username.prefix.is_none() {
            let why =
                "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
            wrong.push(format!("{path}.claimMappings.username.prefix: Required value: {why}"));
        }
        if !mappings.groups.claim.is_empty() && mappings.groups.prefix.is_none() {
            let why =
                "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
            wrong.push(format!("{path}.claimMappings.groups.prefix: Required value: {why}"));
        }
        let some = |text: &String| Some(text.clone()).filter(|t| !t.is_empty());
        OidcIssuer {
            url: source.url.clone(),
            discovery_url: source.discovery_url.clone(),
            authorities_pem: source.certificate_authority.clone().filter(|pem| !pem.is_empty()),
            audiences: source.audiences.clone(),
            username_claim: mappings.username.claim.clone(),
            username_prefix: mappings.username.prefix.clone().unwrap_or_default(),
            groups_claim: some(&mappings.groups.claim),
            groups_prefix: mappings.groups.prefix.clone().unwrap_or_default(),
            uid_claim: some(&mappings.uid.claim),
            required_claims: required,
            algorithms: ALGORITHMS.map(str::to_owned).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_and_its_mistakes_told_together() {
        let good = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: "https://issuer.example", audiences: [a, b], audienceMatchPolicy: MatchAny}
  claimValidationRules: [{claim: hd, requiredValue: example.dev}]
  claimMappings:
    username: {claim: email, prefix: "oidc:"}
    groups: {claim: roles, prefix: ""}
    uid: {claim: sub}
anonymous: {enabled: true, conditions: [{path: /livez}, {path: /readyz}]}
"#;
        let config = AuthenticationConfiguration::parse(good).unwrap();
        let issuer = &config.issuers[0];
        assert_eq!((issuer.username_claim.as_str(), issuer.username_prefix.as_str()), ("email", "oidc:"));
        assert_eq!(issuer.required_claims["hd"], "example.dev");
        assert_eq!((config.anonymous, config.anonymous_paths.len()), (Some(true), 2));
        let check = |text: &str, wanted: &[&str]| {
            let wrong = AuthenticationConfiguration::parse(text).unwrap_err().0.join("\n");
            assert!(wanted.iter().all(|w| wrong.contains(w)), "{wrong}");
        };
        check("kind: Pod", &["is no AuthenticationConfiguration"]);
        check("jwt: [{issuer: {urk: x}}]", &["urk"]);
        check(
            r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: "http://issuer.example", audiences: [a, b]}
  claimMappings: {username: {claim: email}, extra: [{key: a}]}
- issuer: {url: "http://issuer.example"}
  claimMappings: {username: {expression: claims.sub}}
anonymous: {enabled: false, conditions: [{path: /livez}]}
"#,
            &[
                "jwt[0].issuer.url: Invalid value: \"http://issuer.example\": URL scheme must be https",
                "jwt[0].issuer.audienceMatchPolicy",
                "jwt[0].claimMappings.username.prefix: Required",
                "jwt[0].claimMappings.extra: Forbidden",
                "jwt[1].issuer.url: Duplicate",
                "jwt[1].issuer.audiences: Required",
                "jwt[1].claimMappings.username.expression: Forbidden",
                "anonymous.conditions",
            ],
        );
    }
}
