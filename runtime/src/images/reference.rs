//! Image names as pods' authors write them, and the whole names that they stand for.

use crate::{Error, Reason};
use std::fmt;

const DEFAULT_REGISTRY: &str = "docker.io";
const NAME_BYTES_MAX: usize = 255;

/// `registry/repository[:tag][@digest]`, with what was left out filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// `docker.io`, `localhost:5000`.
    pub registry: String,
    /// `library/nginx`.
    pub repository: String,
    /// `latest` where neither tag nor digest was given.
    pub tag: Option<String>,
    /// `sha256:...`.
    pub digest: Option<String>,
}

impl Reference {
    /// Reads a name.
    ///
    /// # Errors
    /// `Invalid` where it is no image name.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = || {
            Error::new(
                Reason::Invalid,
                format!("couldn't parse image name {text:?}: invalid reference format"),
            )
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(bad()),
            None => (text, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => {
                if !is_tag(tag) {
                    return Err(bad());
                }
                (path, Some(tag.to_owned()))
            }
            _ => (rest, None),
        };
        let (registry, repository) = match path.split_once('/') {
            Some((first, _)) if is_registry(first) && !is_host(first) => return Err(bad()),
            Some((first, rest)) if is_registry(first) => (first, rest.to_owned()),
            Some(_) => (DEFAULT_REGISTRY, path.to_owned()),
            None => (DEFAULT_REGISTRY, format!("library/{path}")),
        };
        if repository.len() > NAME_BYTES_MAX || !repository.split('/').all(is_component) {
            return Err(bad());
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
    }

    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Whether the registry is on this machine, so that plain HTTP will do.
    pub fn is_local(&self) -> bool {
        let host = self.registry.rsplit_once(':').map_or(self.registry.as_str(), |(host, _)| host);
        host == "localhost"
            || host == "[::1]"
            || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_registry(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':'])
}

fn is_host(text: &str) -> bool {
    let ends = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    ends && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
}

fn is_component(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = text.bytes().next().is_some_and(plain) && text.bytes().next_back().is_some_and(plain);
    ends && text.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || b".-".contains(&byte))
}

/// Whether the text is a digest of the one algorithm that is supported.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_or_refused() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let check = |text: &str, want: Option<&str>| {
            let got = Reference::parse(text).ok().map(|name| name.to_string());
            assert_eq!(got.as_deref(), want, "{text}");
        };
        check("nginx", Some("docker.io/library/nginx:latest"));
        check("nginx:1.25", Some("docker.io/library/nginx:1.25"));
        check("me/nginx", Some("docker.io/me/nginx:latest"));
        check("localhost:5000/a/b", Some("localhost:5000/a/b:latest"));
        check("registry.k8s.io/pause:3.10", Some("registry.k8s.io/pause:3.10"));
        check(&format!("a@{digest}"), Some(&format!("docker.io/library/a@{digest}")));
        check(&format!("a:1@{digest}"), Some(&format!("docker.io/library/a:1@{digest}")));
        for bad in ["", "UPPER", "a b", "a:", "a@sha256:1", "-a", "a//b", "a:b/../c", "../x", "/a"] {
            check(bad, None);
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        let local = |text: &str| Reference::parse(text).unwrap().is_local();
        assert!(local("localhost:5000/a") && local("127.0.0.1:5000/a") && local("localhost/a"));
        assert!(!local("a") && !local("registry.example.org/a") && !local("127.example.org:1/a"));
    }
}
