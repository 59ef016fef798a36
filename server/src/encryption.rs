//! `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`: which resources are encrypted at rest, with which keys.
//!
//! It says which store keys are meant; `EncryptedStore` does the work.

use crate::keys::PREFIX;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::fmt;

/// Why a configuration is not usable: every mistake, each with its field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptionConfigurationError(pub Vec<String>);

impl fmt::Display for EncryptionConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the encryption configuration is invalid: {}", self.0.join("; "))
    }
}

impl std::error::Error for EncryptionConfigurationError {}

/// How the objects under some store keys are encrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionRule {
    /// Beginnings of the store keys that it is for.
    pub prefixes: Vec<String>,
    /// Beginnings that an earlier rule is for, and this one therefore not.
    pub except: Vec<String>,
    /// The keys; the first one writes. None at all leaves everything as it is.
    pub keys: Vec<EncryptionSecret>,
    /// Values are written in the clear (`identity` comes first); what the keys wrote is still read.
    pub writes_plain: bool,
    /// Values in the clear are read (`identity` comes somewhere).
    pub reads_plain: bool,
}

/// In which way a key encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncryptionProvider {
    /// `aesgcm`.
    AesGcm,
    /// `aescbc`.
    AesCbc,
    /// `secretbox`.
    SecretBox,
}

/// A key of a provider.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncryptionSecret {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub provider: EncryptionProvider,
    /// The key itself: 16, 24 or 32 bytes, for `secretbox` 32.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for EncryptionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionSecret({:?} of {:?})", self.name, self.provider)
    }
}

impl fmt::Debug for EncryptionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.keys.iter().map(|key| key.name.as_str()).collect();
        write!(f, "EncryptionRule({:?} by {names:?})", self.prefixes)
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    resources: Vec<Resources>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Resources {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Provider {
    aesgcm: Option<Keys>,
    identity: Option<serde_json::Value>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    kms: Option<Kms>,
}

impl Provider {
    /// The keys that it has itself.
    fn keys(&self) -> impl Iterator<Item = (EncryptionProvider, &'static str, &Keys)> {
        let all = [
            (EncryptionProvider::AesGcm, "aesgcm", &self.aesgcm),
            (EncryptionProvider::AesCbc, "aescbc", &self.aescbc),
            (EncryptionProvider::SecretBox, "secretbox", &self.secretbox),
        ];
        all.into_iter().filter_map(|(provider, name, keys)| Some((provider, name, keys.as_ref()?)))
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Kms {
    api_version: String,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Key {
    name: String,
    secret: String,
}

/// The rules of a configuration, in YAML or JSON. A resource goes by the first rule that names it.
///
/// # Errors
/// Every mistake in it; `kms` is told as not supported.
pub fn encryption_rules(text: &str) -> Result<Vec<EncryptionRule>, EncryptionConfigurationError> {
    let document: Document =
        serde_saphyr::from_str(text).map_err(|e| EncryptionConfigurationError(vec![e.to_string()]))?;
    let mut wrong = Vec::new();
    if document.api_version != "apiserver.config.k8s.io/v1" || document.kind != "EncryptionConfiguration" {
        let (version, kind) = (&document.api_version, &document.kind);
        wrong.push(format!("apiVersion, kind: {version:?} {kind:?} is no EncryptionConfiguration"));
    }
    if document.resources.is_empty() {
        wrong.push("resources: Required value: at least one resource must be specified".to_owned());
    }
    let mut rules: Vec<EncryptionRule> = Vec::new();
    for (i, of) in document.resources.iter().enumerate() {
        let except = rules.iter().flat_map(|r| r.prefixes.clone()).collect();
        rules.push(rule(of, except, &format!("resources[{i}]"), &mut wrong));
    }
    if wrong.is_empty() { Ok(rules) } else { Err(EncryptionConfigurationError(wrong)) }
}

fn rule(of: &Resources, except: Vec<String>, path: &str, wrong: &mut Vec<String>) -> EncryptionRule {
    if of.resources.is_empty() {
        wrong.push(format!("{path}.resources: Required value: at least one resource must be specified"));
    }
    if of.providers.is_empty() {
        wrong.push(format!("{path}.providers: Required value: at least one provider must be specified"));
    }
    let prefixes: Vec<String> = of.resources.iter().map(|r| prefix(r)).collect();
    let mut rule =
        EncryptionRule { prefixes, except, keys: Vec::new(), writes_plain: false, reads_plain: false };
    for (i, provider) in of.providers.iter().enumerate() {
        let at = format!("{path}.providers[{i}]");
        let given = provider.keys().count()
            + usize::from(provider.identity.is_some())
            + usize::from(provider.kms.is_some());
        if given != 1 {
            wrong.push(format!("{at}: Required value: exactly one provider must be specified"));
        }
        if let Some(kms) = &provider.kms {
            wrong.push(match kms.api_version.as_str() {
                "v2" => format!("{at}.kms: Forbidden: not implemented: use aesgcm, aescbc or secretbox"),
                _ => format!("{at}.kms.apiVersion: Forbidden: KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead."),
            });
        }
        if provider.identity.is_some() {
            rule.reads_plain = true;
            rule.writes_plain |= i == 0;
        }
        for (of, name, keys) in provider.keys() {
            let at = format!("{at}.{name}.keys");
            if keys.keys.is_empty() {
                wrong.push(format!("{at}: Required value: at least one key must be specified"));
            }
            for (j, key) in keys.keys.iter().enumerate() {
                rule.keys.extend(secret(of, key, &rule.keys, &format!("{at}[{j}]"), wrong));
            }
        }
    }
    rule
}

/// A key, where it is good.
fn secret(
    provider: EncryptionProvider,
    key: &Key,
    before: &[EncryptionSecret],
    at: &str,
    wrong: &mut Vec<String>,
) -> Option<EncryptionSecret> {
    let mistakes = wrong.len();
    if before.iter().any(|other| other.name == key.name && other.provider == provider) {
        wrong.push(format!("{at}.name: Duplicate value: {:?}", key.name));
    }
    if key.name.is_empty() || key.name.contains(':') || key.name.len() > 64 {
        wrong.push(format!("{at}.name: Invalid value: {:?}: 1 to 64 bytes without a colon", key.name));
    }
    let Ok(bytes) = STANDARD.decode(&key.secret) else {
        wrong.push(format!("{at}.secret: Invalid value: secret must be base64 encoded"));
        return None;
    };
    let sizes: &[usize] = if provider == EncryptionProvider::SecretBox { &[32] } else { &[16, 24, 32] };
    if !sizes.contains(&bytes.len()) {
        wrong.push(format!(
            "{at}.secret: Invalid value: secret is not of the expected length, got {}, expected one of {sizes:?}",
            bytes.len()
        ));
    }
    (wrong.len() == mistakes).then(|| EncryptionSecret { name: key.name.clone(), provider, bytes })
}

/// `secrets`, `deployments.apps`, `*.apps`, `*.` for the core group, `*.*` for everything.
fn prefix(resource: &str) -> String {
    match resource.split_once('.') {
        None => format!("{PREFIX}core/{resource}/"),
        Some(("*", "*")) => PREFIX.to_owned(),
        Some(("*", "")) => format!("{PREFIX}core/"),
        Some(("*", group)) => format!("{PREFIX}{group}/"),
        Some((resource, group)) => format!("{PREFIX}{group}/{resource}/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_and_its_mistakes_told_together() {
        let secret = STANDARD.encode([7_u8; 32]);
        let good = format!(
            r#"
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets, widgets.example.dev]
  providers:
  - aesgcm: {{keys: [{{name: new, secret: {secret}}}, {{name: old, secret: {secret}}}]}}
  - secretbox: {{keys: [{{name: new, secret: {secret}}}]}}
  - aescbc: {{keys: [{{name: short, secret: AAAAAAAAAAAAAAAAAAAAAA==}}]}}
  - identity: {{}}
- resources: ["*.apps", "*."]
  providers:
  - identity: {{}}
  - aesgcm: {{keys: [{{name: new, secret: {secret}}}]}}
- resources: ["*.*"]
  providers: [{{identity: {{}}}}]
"#
        );
        let rules = encryption_rules(&good).unwrap();
        assert_eq!(rules[0].prefixes, ["/registry/core/secrets/", "/registry/example.dev/widgets/"]);
        let names: Vec<&str> = rules[0].keys.iter().map(|k| k.name.as_str()).collect();
        assert_eq!(
            (names, rules[0].writes_plain, rules[0].reads_plain),
            (vec!["new", "old", "new", "short"], false, true)
        );
        assert_eq!(rules[1].prefixes, ["/registry/apps/", "/registry/core/"]);
        assert_eq!(rules[1].except, rules[0].prefixes);
        assert!(rules[1].writes_plain && rules[2].keys.is_empty() && rules[2].except.len() == 4);
        assert!(!format!("{rules:?}").contains("7, 7"), "keys stay out of logs");
        let check = |text: &str, wanted: &[&str]| {
            let wrong = encryption_rules(text).unwrap_err().0.join("\n");
            assert!(wanted.iter().all(|w| wrong.contains(w)), "{wrong}");
        };
        check("kind: Pod", &["is no EncryptionConfiguration", "resources: Required"]);
        check("resources: [{providers: [{rot13: {}}]}]", &["rot13"]);
        check(
            r#"
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aescbc: {keys: []}
  - kms: {apiVersion: v1, name: k, endpoint: "unix:///k"}
  - secretbox: {keys: [{name: c, secret: AAAA}]}
  - aesgcm: {keys: [{name: a, secret: AAAA}, {name: "b:c", secret: "%"}]}
  - {}
- {}
"#,
            &[
                "providers[0].aescbc.keys: Required value: at least one key",
                "providers[1].kms.apiVersion: Forbidden: KMSv1 is deprecated",
                "providers[2].secretbox.keys[0].secret: Invalid value: secret is not of the expected length, got 3, expected one of [32]",
                "aesgcm.keys[0].secret: Invalid value: secret is not of the expected length, got 3, expected one of [16, 24, 32]",
                "keys[1].secret: Invalid value: secret must be base64",
                "keys[1].name: Invalid",
                "providers[4]: Required value: exactly one",
                "resources[1].resources: Required",
                "resources[1].providers: Required",
            ],
        );
    }
}
