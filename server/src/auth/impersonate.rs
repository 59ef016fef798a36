//! `kubectl --as`: acting as someone else, for those who may.

use super::authenticator::{AUTHENTICATED, UNAUTHENTICATED};
use super::authorizer::{Attributes, Authorizer, Decision};
use http::{HeaderMap, HeaderName};
use kubewright_core::{ApiError, UserInfo};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// Replaces the user of a request by the one its `Impersonate-*` headers name.
#[derive(Clone)]
pub struct Impersonation {
    authorizer: Arc<dyn Authorizer>,
}

impl Impersonation {
    /// Asks this authorizer who may impersonate whom.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Impersonation { authorizer }
    }

    /// The user that a request of `user` acts as.
    ///
    /// # Errors
    /// 403 where `user` may not impersonate one of the identities, 400 for groups without a user.
    pub async fn apply(&self, user: Arc<UserInfo>, headers: &HeaderMap) -> Result<Arc<UserInfo>, ApiError> {
        let Some(wanted) = Wanted::of(headers)? else { return Ok(user) };
        let service_account =
            wanted.user.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':'));
        match service_account {
            Some((namespace, name)) => self.check(&user, "", "serviceaccounts", "", namespace, name).await?,
            None => self.check(&user, "", "users", "", "", &wanted.user).await?,
        }
        for group in &wanted.groups {
            self.check(&user, "", "groups", "", "", group).await?;
        }
        if let Some(uid) = &wanted.uid {
            self.check(&user, "authentication.k8s.io", "uids", "", "", uid).await?;
        }
        for (key, values) in &wanted.extra {
            for value in values {
                self.check(&user, "authentication.k8s.io", "userextras", key, "", value).await?;
            }
        }
        Ok(Arc::new(wanted.into_user()))
    }

    /// Whether the headers name somebody to act as.
    pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
        headers.contains_key(USER)
    }

    /// Without an authorizer nobody may impersonate.
    ///
    /// # Errors
    /// 403 where the headers ask for it.
    pub(crate) fn refuse(user: Arc<UserInfo>, headers: &HeaderMap) -> Result<Arc<UserInfo>, ApiError> {
        match Wanted::of(headers)? {
            None => Ok(user),
            Some(wanted) => {
                let attributes = attributes(&user, "", "users", "", "", &wanted.user);
                Err(attributes.forbidden("impersonation is not enabled"))
            }
        }
    }

    async fn check(
        &self,
        user: &UserInfo,
        group: &str,
        resource: &str,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), ApiError> {
        let attributes = attributes(user, group, resource, subresource, namespace, name);
        match self.authorizer.authorize(&attributes).await {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(attributes.forbidden(&reason)),
        }
    }
}

impl fmt::Debug for Impersonation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Impersonation")
    }
}

fn attributes<'a>(
    user: &'a UserInfo,
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
) -> Attributes<'a> {
    Attributes {
        user: Cow::Borrowed(user),
        verb: "impersonate",
        group,
        version: if group.is_empty() { "" } else { "v1" },
        resource,
        subresource,
        namespace,
        name,
        field_selector: None,
        path: None,
    }
}

/// Whom the headers name.
struct Wanted {
    user: String,
    groups: Vec<String>,
    uid: Option<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let texts = |name: &HeaderName| -> Vec<String> {
            headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
        };
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in headers {
            let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) else { continue };
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            extra.entry(key).or_default().extend(value.to_str().ok().map(str::to_owned));
        }
        let (user, groups, uid) = (texts(&USER).into_iter().next(), texts(&GROUP), texts(&UID).pop());
        match user.filter(|u| !u.is_empty()) {
            Some(user) => Ok(Some(Wanted { user, groups, uid, extra })),
            None if groups.is_empty() && uid.is_none() && extra.is_empty() => Ok(None),
            None => Err(ApiError::internal("requested impersonation without a user")),
        }
    }

    fn into_user(mut self) -> UserInfo {
        let service_account =
            self.user.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':'));
        if let Some((namespace, _)) = service_account.filter(|_| self.groups.is_empty()) {
            self.groups =
                vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        }
        let anonymous = self.user == "system:anonymous";
        let class = if anonymous { UNAUTHENTICATED } else { AUTHENTICATED };
        if !self.groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
            self.groups.push(class.to_owned());
        }
        UserInfo {
            username: Some(self.user),
            groups: Some(self.groups),
            uid: self.uid,
            extra: Some(self.extra).filter(|e| !e.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::authenticator::authenticated;
    use super::*;
    use futures::future::BoxFuture;

    struct OnlyJane;

    impl Authorizer for OnlyJane {
        fn authorize<'a>(&'a self, a: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
            let yes = a.verb == "impersonate" && matches!(a.name, "jane" | "dev" | "robot");
            let no = Decision::NoOpinion(String::new());
            Box::pin(async move { if yes { Decision::Allow } else { no } })
        }
    }

    #[tokio::test]
    async fn headers_name_the_user() {
        let impersonation = Impersonation::new(Arc::new(OnlyJane));
        let check = async |headers: &[(&str, &str)], want: Result<(&str, &[&str]), u16>| {
            let map: HeaderMap =
                headers.iter().map(|(k, v)| (k.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect();
            let got = impersonation.apply(Arc::new(authenticated("admin", &[])), &map).await;
            match (got, want) {
                (Ok(user), Ok((name, groups))) => {
                    assert_eq!(user.username.as_deref(), Some(name));
                    assert_eq!(user.groups.as_deref().unwrap(), groups);
                }
                (Err(e), Err(code)) => assert_eq!(e.code(), code),
                (got, want) => panic!("{got:?} is not {want:?}"),
            }
        };
        check(&[], Ok(("admin", &["system:authenticated"]))).await;
        check(&[("impersonate-user", "jane")], Ok(("jane", &["system:authenticated"]))).await;
        check(
            &[("impersonate-user", "jane"), ("impersonate-group", "dev")],
            Ok(("jane", &["dev", "system:authenticated"])),
        )
        .await;
        check(
            &[("impersonate-user", "system:serviceaccount:a:robot")],
            Ok((
                "system:serviceaccount:a:robot",
                &["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"],
            )),
        )
        .await;
        check(&[("impersonate-user", "root")], Err(403)).await;
        check(&[("impersonate-group", "dev")], Err(500)).await;
    }
}
