//! Credentials for registries, from the files of docker and podman.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::error::RegistryError;
use crate::reference::Reference;

/// How long a credential helper may take: it may ask a person.
const HELPER_PATIENCE: Duration = Duration::from_secs(60);

/// Credentials for a repository.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// None: `looked_in` are the files that have none for this registry.
    Anonymous {
        /// The files.
        looked_in: Vec<PathBuf>,
    },
    /// A user's.
    Basic {
        /// Its name.
        user: String,
        /// Its password, or a token of the registry.
        password: String,
        /// Where they come from.
        source: String,
    },
}

/// The parts of docker's `config.json` and podman's `auth.json` that matter.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

/// What a credential helper prints.
#[derive(Deserialize)]
struct HelperReply {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// What a file says about a repository.
#[derive(Debug, PartialEq, Eq)]
enum StoredLogin {
    Nothing,
    Basic {
        user: String,
        password: String,
    },
    /// The helper's name.
    Helper(String),
}

impl Credentials {
    /// Finds the credentials for a repository: in `$REGISTRY_AUTH_FILE`, else in `$DOCKER_CONFIG/config.json`, else in
    /// `$XDG_RUNTIME_DIR/containers/auth.json` and then in `~/.docker/config.json`.
    pub(crate) async fn find(reference: &Reference) -> Result<Self, RegistryError> {
        let looked_in = files(|name| std::env::var_os(name));
        for path in &looked_in {
            if let Some(found) = Self::find_in(path, reference).await? {
                return Ok(found);
            }
        }
        Ok(Self::Anonymous { looked_in })
    }

    /// Those in a file, if it has any for the repository.
    async fn find_in(path: &Path, reference: &Reference) -> Result<Option<Self>, RegistryError> {
        let failed = |reason: String| RegistryError::Credentials {
            file: path.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        match said(&text, reference).map_err(failed)? {
            StoredLogin::Nothing => Ok(None),
            StoredLogin::Basic { user, password } => Ok(Some(Self::Basic {
                user,
                password,
                source: path.display().to_string(),
            })),
            StoredLogin::Helper(helper) => {
                let found = ask(&helper, &helper_key(reference)).await;
                let found =
                    found.map_err(|reason| failed(format!("{}: {reason}", program(&helper))))?;
                Ok(found.map(|HelperReply { user, secret }| Self::Basic {
                    user,
                    password: secret,
                    source: program(&helper),
                }))
            }
        }
    }

    /// Whose they are, for errors.
    pub(crate) fn who(&self) -> String {
        match self {
            Self::Anonymous { looked_in } if looked_in.is_empty() => {
                "no credentials: `docker login` or `podman login` writes them to a file, which DOCKER_CONFIG (a directory) or REGISTRY_AUTH_FILE \
                 names"
                    .into()
            }
            Self::Anonymous { looked_in } => {
                let files = looked_in.iter().map(|file| file.display().to_string());
                format!(
                    "no credentials: there are none for this registry in {}",
                    files.collect::<Vec<_>>().join(" or ")
                )
            }
            Self::Basic { user, source, .. } => {
                format!("the credentials of {user:?} from {source}")
            }
        }
    }
}

/// The files in which credentials are looked for, in this order. A file that `REGISTRY_AUTH_FILE` names must exist; the others may be
/// missing. Without such a variable, podman's is read before docker's, as podman does.
fn files(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let named = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(file) = named("REGISTRY_AUTH_FILE") {
        return vec![file.into()];
    }
    let below = |folder: &str, file: &str| Some(Path::new(&named(folder)?).join(file));
    let files = match named("DOCKER_CONFIG") {
        Some(_) => vec![below("DOCKER_CONFIG", "config.json")],
        None => vec![
            below("XDG_RUNTIME_DIR", "containers/auth.json"),
            below("HOME", ".docker/config.json"),
        ],
    };
    let files = files.into_iter().flatten();
    files.filter(|file| file.exists()).collect()
}

fn said(text: &str, reference: &Reference) -> Result<StoredLogin, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let names = names(reference);
    let helper = |names: &[String]| {
        let mut found = names.iter().filter_map(|name| file.helpers.get(name));
        found.next().cloned()
    };
    if let Some(helper) = helper(&names) {
        return Ok(StoredLogin::Helper(helper));
    }
    let entries: BTreeMap<_, _> = file
        .auths
        .iter()
        .map(|(key, entry)| (plain(key), entry))
        .collect();
    let mut found = names
        .iter()
        .filter_map(|name| entries.get(name.as_str()).map(|entry| (name, entry)));
    let found = found.find(|(_, entry)| !entry.auth.is_empty() || !entry.identity_token.is_empty());
    let Some((name, entry)) = found else {
        return Ok(file.store.map_or(StoredLogin::Nothing, StoredLogin::Helper));
    };
    if entry.auth.is_empty() || !entry.identity_token.is_empty() {
        return Err(format!(
            "the entry of {name} has an identity token, which this program cannot use: log in with a user and a password or an access token"
        ));
    }
    let malformed = || format!("`auth` of {name} is not USER:PASSWORD in Base64");
    let decoded = STANDARD.decode(&entry.auth).map_err(|_| malformed())?;
    let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
    // Docker ends passwords with zeros.
    let (user, password) = decoded.split_once(':').ok_or_else(malformed)?;
    Ok(StoredLogin::Basic {
        user: user.to_owned(),
        password: password.trim_end_matches('\0').to_owned(),
    })
}

/// The names under which a file may have an entry for a repository, the most specific first: podman has entries for parts of a registry.
fn names(reference: &Reference) -> Vec<String> {
    let mut names = Vec::new();
    for host in hosts(reference.host()) {
        let mut path = format!("{host}/{}", reference.repository());
        names.push(path.clone());
        while let Some(at) = path.rfind('/') {
            path.truncate(at);
            names.push(path.clone());
        }
    }
    names
}

/// The names of a registry. Docker Hub has two.
fn hosts(host: &str) -> Vec<&str> {
    match host {
        "index.docker.io" | "docker.io" => vec!["index.docker.io", "docker.io"],
        _ => vec![host],
    }
}

/// A key of `auths` without scheme, and without the path of docker's first API.
fn plain(key: &str) -> &str {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key)
}

/// What a helper is asked about.
fn helper_key(reference: &Reference) -> String {
    match reference.host() {
        "docker.io" | "index.docker.io" => "https://index.docker.io/v1/".into(),
        host => host.to_owned(),
    }
}

fn program(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

/// Runs a credential helper. `None` if it has nothing for this registry.
async fn ask(helper: &str, registry: &str) -> Result<Option<HelperReply>, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if helper.is_empty() || !helper.bytes().all(fits) {
        return Err("this is not the name of a credential helper".into());
    }
    let mut child = Command::new(program(helper))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot be run: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that ends before it has read everything says why.
        let _written = stdin.write_all(registry.as_bytes()).await;
    }
    let ended = tokio::time::timeout(HELPER_PATIENCE, child.wait_with_output()).await;
    let ended = ended.map_err(|_| format!("no answer within {} s", HELPER_PATIENCE.as_secs()))?;
    let output = ended.map_err(|error| error.to_string())?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // The text that the protocol prescribes.
        return match said.contains("credentials not found") {
            true => Ok(None),
            false => Err(said.trim().to_owned()),
        };
    }
    let helped: HelperReply =
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    match helped.user.as_str() {
        "" => Ok(None),
        "<token>" => Err("it has an identity token, which this program cannot use: log in with a user and a password or an access token".into()),
        _ => Ok(Some(helped)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Reference {
        text.parse().unwrap()
    }

    fn basic(user: &str, password: &str) -> StoredLogin {
        StoredLogin::Basic {
            user: user.into(),
            password: password.into(),
        }
    }

    fn auth(text: &str) -> String {
        STANDARD.encode(text)
    }

    #[test]
    fn an_entry_is_found_with_and_without_its_scheme() {
        for key in [
            "registry:5000",
            "https://registry:5000",
            "http://registry:5000/v1/",
            "https://registry:5000/v2/",
        ] {
            let text = format!(
                r#"{{"auths": {{"{key}": {{"auth": "{}"}}}}}}"#,
                auth("ann:a:b")
            );
            assert_eq!(
                said(&text, &at("oci://registry:5000/a/b:1")),
                Ok(basic("ann", "a:b")),
                "{key}"
            );
            assert_eq!(
                said(&text, &at("oci://registry/a/b:1")),
                Ok(StoredLogin::Nothing),
                "{key}"
            );
        }
    }

    #[test]
    fn the_most_specific_entry_applies() {
        let text = format!(
            r#"{{"auths": {{"registry/a": {{"auth": "{}"}}, "registry": {{"auth": "{}"}}, "registry/a/x": {{}}}}}}"#,
            auth("part:1"),
            auth("whole:2")
        );
        assert_eq!(
            said(&text, &at("oci://registry/a/x")),
            Ok(basic("part", "1"))
        );
        assert_eq!(
            said(&text, &at("oci://registry/ab/x")),
            Ok(basic("whole", "2"))
        );
    }

    #[test]
    fn docker_hub_has_its_own_name() {
        let text = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{}"}}}}}}"#,
            auth("ann:x")
        );
        assert_eq!(
            said(&text, &at("oci://docker.io/ann/acl")),
            Ok(basic("ann", "x"))
        );
    }

    #[test]
    fn helpers_come_first_and_the_store_last() {
        let text = r#"{"auths": {"registry": {}}, "credHelpers": {"other": "pass"}, "credsStore": "desktop"}"#;
        assert_eq!(
            said(text, &at("oci://registry/a")),
            Ok(StoredLogin::Helper("desktop".into()))
        );
        assert_eq!(
            said(text, &at("oci://other/a")),
            Ok(StoredLogin::Helper("pass".into()))
        );
        assert_eq!(said("{}", &at("oci://other/a")), Ok(StoredLogin::Nothing));
    }

    #[test]
    fn what_is_unusable_is_named() {
        let reference = at("oci://registry/a");
        assert!(said("[", &reference).unwrap_err().contains("EOF"));
        for (entry, text) in [
            (r#"{"auth": "!"}"#, "USER:PASSWORD"),
            (r#"{"auth": "AAAA"}"#, "USER:PASSWORD"),
            (r#"{"identitytoken": "x"}"#, "identity token"),
        ] {
            let file = format!(r#"{{"auths": {{"registry": {entry}}}}}"#);
            let error = said(&file, &reference).unwrap_err();
            assert!(
                error.contains(text) && error.contains("registry"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_files_are_those_that_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let of = |set: &[(&str, &Path)]| {
            files(|name| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| value.as_os_str().to_owned())
            })
        };
        assert!(of(&[]).is_empty());
        assert!(of(&[("HOME", folder), ("XDG_RUNTIME_DIR", folder)]).is_empty());
        let made = |part: &str, name: &str| {
            std::fs::create_dir(folder.join(part)).unwrap();
            std::fs::write(folder.join(part).join(name), "{}").unwrap();
            folder.join(part).join(name)
        };
        let docker = made(".docker", "config.json");
        assert_eq!(of(&[("HOME", folder)]), std::slice::from_ref(&docker));
        let podman = made("containers", "auth.json");
        assert_eq!(
            of(&[("HOME", folder), ("XDG_RUNTIME_DIR", folder)]),
            [podman, docker]
        );
        let set = [
            ("HOME", folder),
            ("XDG_RUNTIME_DIR", folder),
            ("DOCKER_CONFIG", folder),
        ];
        assert!(of(&set).is_empty());
        let named = Path::new("/no/such/file");
        assert_eq!(
            of(&[("HOME", folder), ("REGISTRY_AUTH_FILE", named)]),
            [named.to_owned()]
        );
    }

    #[tokio::test]
    async fn a_helper_that_is_missing_is_named() {
        let error = ask("no-such-helper", "registry").await.err().unwrap();
        assert!(error.starts_with("cannot be run"), "{error}");
        let error = ask("../x", "registry").await.err().unwrap();
        assert!(error.contains("not the name"), "{error}");
    }
}
