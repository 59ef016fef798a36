//! Content negotiation: which representation of an answer the `Accept` header asks for.

use kubewright_core::{ApiError, Reason, Representation};

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    #[default]
    Json,
    Yaml,
}

impl Format {
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
        }
    }
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Negotiated {
    pub(super) format: Format,
    pub(super) representation: Representation,
    /// `pretty=1` as a parameter of the media type.
    pub(super) pretty: bool,
}

/// Picks the first acceptable clause, by falling q value and then by order.
///
/// # Errors
/// 406 where the server has none of the representations.
pub(super) fn negotiate(accept: &str) -> Result<Negotiated, ApiError> {
    if accept.is_empty() || accept == "*/*" || accept == "application/json" {
        return Ok(Negotiated::default());
    }
    let mut best: Option<(u16, Negotiated)> = None;
    for clause in accept.split(',') {
        let Some((q, found)) = clause_of(clause) else { continue };
        if q > 0 && best.as_ref().is_none_or(|(top, _)| q > *top) {
            best = Some((q, found));
        }
    }
    best.map(|(_, found)| found).ok_or_else(not_acceptable)
}

fn clause_of(clause: &str) -> Option<(u16, Negotiated)> {
    let mut parts = clause.split(';').map(str::trim);
    let format = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        _ => return None,
    };
    let (mut q, mut pretty) = (1000, false);
    let (mut shape, mut group, mut version) = (None, None, None);
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("q", value)) => q = quality(value)?,
            Some(("as", value)) => shape = Some(value),
            Some(("g", value)) => group = Some(value),
            Some(("v", value)) => version = Some(value),
            Some(("pretty", value)) => pretty = value == "1",
            _ => {}
        }
    }
    let representation = match (shape, group, version) {
        (None, ..) => Representation::Object,
        (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Representation::Table,
        (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => {
            Representation::PartialObjectMetadata
        }
        // Discovery reads the header itself; for everything else the clause asks for what does not exist.
        _ => return None,
    };
    Some((q, Negotiated { format, representation, pretty }))
}

/// A q value in thousandths; `None` where it is malformed.
fn quality(text: &str) -> Option<u16> {
    let value: f32 = text.parse().ok()?;
    (0.0..=1.0).contains(&value).then_some((value * 1000.0) as u16)
}

fn not_acceptable() -> ApiError {
    ApiError::new(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/yaml",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_clause_wins() {
        let check = |accept: &str, want: Option<(Format, Representation)>| {
            let got = negotiate(accept).ok().map(|n| (n.format, n.representation));
            assert_eq!(got, want, "{accept}");
        };
        let json = |r| Some((Format::Json, r));
        check("", json(Representation::Object));
        check("*/*", json(Representation::Object));
        check("application/yaml", Some((Format::Yaml, Representation::Object)));
        check("application/yaml;q=0.5, application/json", json(Representation::Object));
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            json(Representation::Table),
        );
        check(
            "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            json(Representation::Object),
        );
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
            json(Representation::PartialObjectMetadata),
        );
        check("application/vnd.kubernetes.protobuf,application/json", json(Representation::Object));
        check("application/vnd.kubernetes.protobuf", None);
        check("application/json;as=Nonsense;g=meta.k8s.io;v=v1", None);
        check("text/html,*/*;q=0.8", json(Representation::Object));
        check("application/json;q=0", None);
        check("application/json;q=x", None);
    }
}
