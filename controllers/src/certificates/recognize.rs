//! What each of Kubernetes' own signers signs, in upstream's words (`pkg/apis/certificates/helpers.go`).

use super::RequestFacts;
use std::collections::BTreeSet;

pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(super) const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// Whether a signer is one of these, and what it has against the request.
pub(super) fn check(signer: &str, facts: &RequestFacts, usages: &[String]) -> Option<Result<(), String>> {
    Some(match signer {
        CLIENT => client_usages(usages),
        KUBELET_CLIENT => kubelet_client(facts, usages),
        KUBELET_SERVING => kubelet_serving(facts, usages),
        // Nothing is asked of what nobody knows.
        LEGACY => Ok(()),
        _ => return None,
    })
}

fn client_usages(usages: &[String]) -> Result<(), String> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|u| !allowed.contains(&u.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if usages.iter().any(|u| u == "client auth") {
        return Ok(());
    }
    Err("missing required usage for client certificate: client auth".to_owned())
}

fn of_nodes(facts: &RequestFacts) -> Result<(), String> {
    if facts.organizations == ["system:nodes"] {
        return Ok(());
    }
    Err("subject organization is not system:nodes".to_owned())
}

fn named_as_node(facts: &RequestFacts) -> Result<(), String> {
    if facts.common_name.starts_with("system:node:") {
        return Ok(());
    }
    Err("subject common name does not begin with system:node:".to_owned())
}

/// Key encipherment is for RSA keys only, so it may be left out.
fn exactly(usages: &[String], purpose: &'static str) -> Result<(), String> {
    let has: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let full = BTreeSet::from([purpose, "digital signature", "key encipherment"]);
    let short = BTreeSet::from([purpose, "digital signature"]);
    if has == full || has == short {
        return Ok(());
    }
    let wanted: Vec<&str> = full.into_iter().collect();
    Err(format!("usages did not match [{}]", wanted.join(" ")))
}

pub(super) fn kubelet_client(facts: &RequestFacts, usages: &[String]) -> Result<(), String> {
    of_nodes(facts)?;
    for (count, what) in [
        (facts.dns_names, "DNS"),
        (facts.email_addresses, "Email"),
        (facts.ip_addresses, "IP"),
        (facts.uris, "URI"),
    ] {
        if count > 0 {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    named_as_node(facts)?;
    exactly(usages, "client auth")
}

fn kubelet_serving(facts: &RequestFacts, usages: &[String]) -> Result<(), String> {
    of_nodes(facts)?;
    if facts.dns_names + facts.ip_addresses == 0 {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    for (count, what) in [(facts.email_addresses, "Email"), (facts.uris, "URI")] {
        if count > 0 {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    exactly(usages, "server auth")?;
    named_as_node(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signer_has_its_rules() {
        let node = RequestFacts {
            common_name: "system:node:n".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            ..RequestFacts::default()
        };
        let serving = RequestFacts { dns_names: 1, ..node.clone() };
        let stranger = RequestFacts { common_name: "x".to_owned(), ..node.clone() };
        let check_one = |signer: &str, facts: &RequestFacts, usages: &[&str], want: Option<&str>| {
            let usages: Vec<String> = usages.iter().map(|u| (*u).to_owned()).collect();
            let want = want.map_or(Ok(()), |why| Err(why.to_owned()));
            assert_eq!(check(signer, facts, &usages), Some(want), "{signer} {facts:?}");
        };
        let client = ["client auth", "digital signature"];
        check_one(CLIENT, &stranger, &client, None);
        check_one(
            CLIENT,
            &stranger,
            &["server auth"],
            Some("invalid usage for client certificate: server auth"),
        );
        check_one(
            CLIENT,
            &stranger,
            &["digital signature"],
            Some("missing required usage for client certificate: client auth"),
        );
        check_one(KUBELET_CLIENT, &node, &client, None);
        check_one(KUBELET_CLIENT, &node, &["client auth", "digital signature", "key encipherment"], None);
        check_one(
            KUBELET_CLIENT,
            &node,
            &["client auth"],
            Some("usages did not match [client auth digital signature key encipherment]"),
        );
        check_one(KUBELET_CLIENT, &serving, &client, Some("DNS subjectAltNames are not allowed"));
        check_one(
            KUBELET_CLIENT,
            &stranger,
            &client,
            Some("subject common name does not begin with system:node:"),
        );
        check_one(
            KUBELET_CLIENT,
            &RequestFacts::default(),
            &client,
            Some("subject organization is not system:nodes"),
        );
        check_one(KUBELET_SERVING, &serving, &["server auth", "digital signature"], None);
        check_one(
            KUBELET_SERVING,
            &node,
            &["server auth", "digital signature"],
            Some("DNS or IP subjectAltName is required"),
        );
        check_one(LEGACY, &stranger, &[], None);
        assert_eq!(check("example.dev/own", &node, &[]), None);
    }
}
