//! Which level of which version a namespace asks for, by its labels.

use kubewright_core::{ErrorList, FieldError, FieldPath};
use std::fmt;

pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a level forbids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Privileged,
    /// Known ways out of a container.
    Baseline,
    /// Everything that is not hardened.
    Restricted,
}

/// A version of the policy: that of Kubernetes 1.x, or the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// The newest that is known.
    #[default]
    Latest,
    /// That of Kubernetes 1.x.
    Minor(u32),
}

impl Version {
    /// Whether the rule of a version 1.`minor` counts.
    pub(super) fn reaches(self, minor: u32) -> bool {
        match self {
            Version::Latest => true,
            Version::Minor(own) => own >= minor,
        }
    }
}

/// A level in a version, `restricted:v1.30`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelVersion {
    /// How much is forbidden.
    pub level: Level,
    /// As of when.
    pub version: Version,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })?;
        match self.version {
            Version::Latest => f.write_str(":latest"),
            Version::Minor(minor) => write!(f, ":v1.{minor}"),
        }
    }
}

/// What is refused, noted and warned of in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What is refused.
    pub enforce: LevelVersion,
    /// What is noted for the audit log.
    pub audit: LevelVersion,
    /// What the client is warned of.
    pub warn: LevelVersion,
}

fn level(text: &str) -> Option<Level> {
    Some(match text {
        "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        _ => return None,
    })
}

fn version(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(Version::Latest);
    }
    let digits = text.strip_prefix("v1.")?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain && !digits.is_empty() { digits.parse().ok().map(Version::Minor) } else { None }
}

impl Policy {
    /// The policy that labels ask for, beginning with `self`, and what is wrong with the labels. A wrong one refuses the most, and warns of
    /// and notes nothing.
    pub(super) fn labelled<'a>(self, label: impl Fn(&str) -> Option<&'a str>) -> (Policy, ErrorList) {
        let (mut policy, mut errors) = (self, ErrorList::new());
        let path = FieldPath::new("metadata.labels");
        let modes =
            [("enforce", Level::Restricted), ("audit", Level::Privileged), ("warn", Level::Privileged)];
        for (mode, fallback) in modes {
            let mut wrong = |key: &str, text: &str, why: &str| {
                errors.push(FieldError::invalid(&path.key(key), text, why));
            };
            let slot = match mode {
                "enforce" => &mut policy.enforce,
                "audit" => &mut policy.audit,
                _ => &mut policy.warn,
            };
            let key = format!("{PREFIX}{mode}");
            if let Some(text) = label(&key) {
                slot.level = level(text).unwrap_or_else(|| {
                    wrong(&key, text, "must be one of privileged, baseline, restricted");
                    fallback
                });
            }
            let key = format!("{PREFIX}{mode}-version");
            if let Some(text) = label(&key) {
                slot.version = version(text).unwrap_or_else(|| {
                    wrong(&key, text, "must be \"latest\" or \"v1.x\"");
                    Version::Latest
                });
            }
        }
        (policy, errors)
    }

    /// Whether nothing is asked for.
    pub(super) fn is_idle(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|l| l.level == Level::Privileged)
    }
}
