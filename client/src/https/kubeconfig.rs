//! Kubeconfig files.

use super::config::{Config, ConfigError, Credentials, read, server};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    current_context: Option<String>,
    clusters: Option<Vec<NamedCluster>>,
    users: Option<Vec<NamedUser>>,
    contexts: Option<Vec<NamedContext>>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    #[serde(default)]
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    #[serde(default)]
    context: Context,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
    insecure_skip_tls_verify: bool,
    proxy_url: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(alias = "tokenFile")]
    token_file: Option<String>,
    username: Option<String>,
    exec: Option<Value>,
    auth_provider: Option<Value>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
    as_groups: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
struct Context {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    user: String,
    namespace: Option<String>,
}

pub(super) fn load(files: &[PathBuf], context: Option<&str>) -> Result<Config, ConfigError> {
    let mut found = Vec::new();
    for path in files {
        if path.exists() {
            let file: File = serde_saphyr::from_str(&read(path)?)
                .map_err(|e| ConfigError::new(format!("{}: {e}", path.display())))?;
            found.push((path.parent().unwrap_or(Path::new("")).to_owned(), file));
        }
    }
    if found.is_empty() {
        let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        return Err(ConfigError::new(format!("there is no kubeconfig at {}", names.join(", "))));
    }
    let current = || found.iter().find_map(|(_, f)| f.current_context.as_deref().filter(|c| !c.is_empty()));
    let name =
        context.or_else(current).ok_or_else(|| ConfigError::new("the kubeconfig has no current context"))?;
    let context = find(&found, |f| f.contexts.as_deref(), |c| c.name == name)
        .map(|(_, c)| &c.context)
        .ok_or_else(|| ConfigError::new(format!("the kubeconfig has no context {name:?}")))?;
    let (folder, cluster) = find(&found, |f| f.clusters.as_deref(), |c| c.name == context.cluster)
        .map(|(folder, c)| (folder, &c.cluster))
        .ok_or_else(|| ConfigError::new(format!("the kubeconfig has no cluster {:?}", context.cluster)))?;
    let mut config = of_cluster(cluster, folder)?;
    if let Some(namespace) = context.namespace.as_ref().filter(|n| !n.is_empty()) {
        namespace.clone_into(&mut config.namespace);
    }
    if !context.user.is_empty() {
        let (folder, named) = find(&found, |f| f.users.as_deref(), |u| u.name == context.user)
            .ok_or_else(|| ConfigError::new(format!("the kubeconfig has no user {:?}", context.user)))?;
        add_user(&mut config, &named.name, &named.user, folder)?;
    }
    Ok(config)
}

/// The first entry that fits, with the folder of its file.
fn find<'a, T>(
    files: &'a [(PathBuf, File)],
    list: impl Fn(&'a File) -> Option<&'a [T]>,
    fits: impl Fn(&T) -> bool,
) -> Option<(&'a Path, &'a T)> {
    files.iter().find_map(|(folder, file)| {
        list(file)?.iter().find(|entry| fits(entry)).map(|entry| (folder.as_path(), entry))
    })
}

fn of_cluster(cluster: &Cluster, folder: &Path) -> Result<Config, ConfigError> {
    if cluster.proxy_url.as_ref().is_some_and(|p| !p.is_empty()) {
        return Err(ConfigError::new("proxy-url is not supported"));
    }
    let mut config = Config::new(server(&cluster.server)?);
    let (data, file) = (&cluster.certificate_authority_data, &cluster.certificate_authority);
    config.certificate_authority_pem =
        pem("certificate-authority", data.as_deref(), file.as_deref(), folder)?;
    config.tls_server_name = cluster.tls_server_name.clone().filter(|n| !n.is_empty());
    config.insecure_skip_tls_verify = cluster.insecure_skip_tls_verify;
    Ok(config)
}

fn add_user(config: &mut Config, name: &str, user: &User, folder: &Path) -> Result<(), ConfigError> {
    let certificate = pem(
        "client-certificate",
        user.client_certificate_data.as_deref(),
        user.client_certificate.as_deref(),
        folder,
    )?;
    let key = pem("client-key", user.client_key_data.as_deref(), user.client_key.as_deref(), folder)?;
    let token = user.token.clone().filter(|t| !t.is_empty());
    let token_file = user.token_file.as_ref().filter(|t| !t.is_empty());
    config.credentials = match (certificate, key, token, token_file) {
        (Some(certificate_pem), Some(key_pem), ..) => Credentials::Certificate { certificate_pem, key_pem },
        (Some(_), None, ..) | (None, Some(_), ..) => {
            return Err(ConfigError::new(format!("the user {name:?} has only one of certificate and key")));
        }
        (None, None, _, Some(file)) => Credentials::TokenFile(folder.join(file)),
        (None, None, Some(token), None) => Credentials::Token(token),
        (None, None, None, None) => {
            let wants = [
                (user.exec.is_some(), "an exec plugin"),
                (user.auth_provider.is_some(), "an auth provider"),
                (user.username.is_some(), "a password"),
            ];
            if let Some((_, what)) = wants.iter().find(|(wanted, _)| *wanted) {
                return Err(ConfigError::new(format!(
                    "the user {name:?} needs {what}, which is not supported"
                )));
            }
            Credentials::None
        }
    };
    config.impersonate = user.impersonate.clone().filter(|u| !u.is_empty());
    config.impersonate_groups = user.as_groups.clone().unwrap_or_default();
    Ok(())
}

/// What stands in the file itself, in base64, or in another one beside it.
pub(super) fn pem(
    field: &str,
    data: Option<&str>,
    file: Option<&str>,
    folder: &Path,
) -> Result<Option<String>, ConfigError> {
    if let Some(data) = data.filter(|d| !d.is_empty()) {
        let bytes = STANDARD.decode(data.trim()).ok();
        let text = bytes.and_then(|b| String::from_utf8(b).ok());
        return text.map(Some).ok_or_else(|| ConfigError::new(format!("{field}-data is no base64 of PEM")));
    }
    file.filter(|f| !f.is_empty()).map(|file| read(&folder.join(file))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn config(users: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             clusters:\n- name: c\n  cluster:\n    server: https://127.0.0.1:6443\n    certificate-authority: ca.pem\n\
             contexts:\n- name: a\n  context: {{cluster: c, user: u, namespace: n}}\n- name: b\n  context: {{cluster: none}}\n\
             users:\n- name: u\n  user: {users}\n"
        )
    }

    #[test]
    fn files_are_read_and_merged() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "ca.pem", "authority");
        let first =
            write(folder.path(), "first", "contexts:\n- name: a\n  context: {cluster: c, user: other}\n");
        let second = write(folder.path(), "second", &config("{token: t}"));
        let third = write(
            folder.path(),
            "third",
            "users:\n- name: other\n  user: {token: o, as: joe, as-groups: [g]}\n",
        );
        let c = Config::from_kubeconfig(&[folder.path().join("absent"), second.clone()], None).unwrap();
        assert_eq!(c.certificate_authority_pem.as_deref(), Some("authority"));
        assert_eq!((c.credentials, c.namespace.as_str()), (Credentials::Token("t".to_owned()), "n"));
        let c = Config::from_kubeconfig(&[first, second, third], None).unwrap();
        assert_eq!(
            (c.impersonate.as_deref(), c.impersonate_groups.as_slice()),
            (Some("joe"), &["g".to_owned()][..])
        );
        assert_eq!(c.credentials, Credentials::Token("o".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "ca.pem", "authority");
        let check = |users: &str, context: Option<&str>, want: &str| {
            let file = write(folder.path(), "config", &config(users));
            let e = Config::from_kubeconfig(&[file], context).unwrap_err().to_string();
            assert!(e.contains(want), "{e}");
        };
        check("{exec: {command: x}}", None, "needs an exec plugin");
        check("{auth-provider: {name: x}}", None, "needs an auth provider");
        check("{username: x, password: y}", None, "needs a password");
        check("{client-certificate-data: '!'}", None, "client-certificate-data is no base64");
        check("{client-certificate: absent.pem}", None, "absent.pem");
        check("{client-key-data: YQ==}", None, "only one of certificate and key");
        check("{}", Some("z"), "no context \"z\"");
        check("{}", Some("b"), "no cluster \"none\"");
        check("[", None, "config");
        let e = Config::from_kubeconfig(&[folder.path().join("absent")], None).unwrap_err();
        assert!(e.to_string().contains("there is no kubeconfig at"), "{e}");
        assert!(server("ftp://x").is_err() && server("").is_err() && server("localhost:1").is_ok());
    }

    #[test]
    fn a_pod_finds_its_cluster() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Config::in_cluster_at(folder.path(), "10.0.0.1", "443").is_err());
        for (name, text) in [("ca.crt", "authority"), ("token", "t\n"), ("namespace", "here")] {
            write(folder.path(), name, text);
        }
        let c = Config::in_cluster_at(folder.path(), "fd00::1", "443").unwrap();
        assert_eq!((c.server.to_string().as_str(), c.namespace.as_str()), ("https://[fd00::1]:443/", "here"));
    }
}
