//! Policies in an OCI registry: Docker's own, as Debian packages it.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use portcullis_testkit::docker_registry::{DockerRegistry, Door, PASSWORD, USER};
use portcullis_testkit::host::Builder;
use portcullis_testkit::{binary, policy};
use tempfile::TempDir;

/// A registry, and the directory of a user.
struct Site {
    registry: DockerRegistry,
    folder: TempDir,
}

impl Site {
    fn new(door: Door) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        fs::copy(policy("address-acl"), folder.path().join("acl.wasm")).expect("a file is copied");
        fs::copy(policy("observe"), folder.path().join("observe.wasm")).expect("a file is copied");
        Self {
            registry: DockerRegistry::start_with(door),
            folder,
        }
    }

    /// `oci://` with this repository and tag or digest.
    fn at(&self, path: &str) -> String {
        format!("oci://{}/{path}", self.registry.addr())
    }

    fn command(&self) -> Command {
        portcullis(self.folder.path())
    }

    /// Runs a command that must succeed; returns its output. `{}` is the registry.
    fn run(&self, words: &str) -> String {
        let output = self.output(words);
        assert!(output.status.success(), "{words}: {}", text(&output));
        text(&output)
    }

    /// Runs a command that must fail; returns the error.
    fn refused(&self, words: &str) -> String {
        let output = self.output(words);
        assert!(!output.status.success(), "{words}: {}", text(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn output(&self, words: &str) -> Output {
        let words = words.replace("{}", &format!("oci://{}", self.registry.addr()));
        let words = words.split_whitespace();
        self.command().args(words).output().expect("it runs")
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(name)).expect("the file can be read")
    }

    /// Publishes the policy; returns the digest of its manifest.
    fn publish(&self, file: &str, at: &str) -> String {
        let said = self.run(&format!("policy publish {file} {{}}/{at}"));
        let line = said.lines().nth(1).expect("two lines");
        let (_, digest) = line.split_once('@').expect("a digest");
        digest.to_owned()
    }
}

/// The program in a directory, without credentials and proxies of this machine.
fn portcullis(folder: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(folder).env("HOME", folder);
    for name in [
        "DOCKER_CONFIG",
        "REGISTRY_AUTH_FILE",
        "SSL_CERT_FILE",
        "SOURCE_DATE_EPOCH",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(&[&out[..], &err[..]].concat()).into_owned()
}

/// Runs openssl; returns what it prints.
fn openssl(folder: &Path, words: &str) -> String {
    let mut command = Command::new("openssl");
    let output = command.args(words.split_whitespace()).current_dir(folder);
    let output = output.output().expect("openssl is installed");
    assert!(output.status.success(), "{words}: {}", text(&output));
    text(&output)
}

/// Creates a key pair for ECDSA on P-256: NAME.pem and NAME.pub.
fn key_pair(folder: &Path, name: &str) {
    openssl(
        folder,
        &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.pem"),
    );
    openssl(
        folder,
        &format!("pkey -in {name}.pem -pubout -out {name}.pub"),
    );
}

#[test]
fn peers_a_policy_is_published_and_pulled_by_tag_and_digest() {
    let site = Site::new(Door::default());
    let digest = site.publish("acl.wasm", "edge/acl:1.0");
    let later = site.publish("observe.wasm", "edge/acl:1.1");
    assert_ne!(digest, later);
    assert_eq!(site.run("policy tags {}/edge/acl"), "1.0\n1.1\n");
    let json = site.run("policy tags {}/edge/acl --json");
    assert_eq!(json, "[\"1.0\",\"1.1\"]\n");

    let said = site.run("policy pull {}/edge/acl:1.0 -o by-tag.wasm");
    assert!(
        said.contains(&site.at(&format!("edge/acl@{digest}\n"))),
        "{said}"
    );
    assert_eq!(site.read("by-tag.wasm"), site.read("acl.wasm"));
    // The tag moves; the digest stays.
    site.publish("observe.wasm", "edge/acl:1.0");
    site.run("policy pull {}/edge/acl:1.0 -o by-tag.wasm");
    assert_eq!(site.read("by-tag.wasm"), site.read("observe.wasm"));
    site.run(&format!(
        "policy pull {{}}/edge/acl@{digest} -o by-digest.wasm"
    ));
    assert_eq!(site.read("by-digest.wasm"), site.read("acl.wasm"));

    let manifest = site.registry.manifest("edge/acl", "1.1");
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    let annotations = &manifest["annotations"];
    assert_eq!(
        annotations["org.opencontainers.image.title"],
        "observe.wasm"
    );
    assert_eq!(annotations["org.opencontainers.image.version"], "1.1");
    assert!(
        annotations["portcullis.policy.sdk"].is_string(),
        "{manifest}"
    );
}

#[test]
fn peers_what_is_missing_or_in_the_way_is_named() {
    let mut site = Site::new(Door::default());
    site.publish("acl.wasm", "acl:1.0");
    let said = site.refused("policy pull {}/acl:2.0 -o x.wasm");
    assert!(
        said.contains(&format!("there is no {}", site.at("acl:2.0"))),
        "{said}"
    );
    assert!(
        said.contains(&format!("policy tags {}", site.at("acl"))),
        "{said}"
    );
    let said = site.refused("policy tags {}/other");
    assert!(said.contains("has no repository other"), "{said}");
    // Without --output, nothing is overwritten.
    let said = site.refused("policy pull {}/acl:1.0");
    assert!(said.contains("acl.wasm exists"), "{said}");
    let said = site.refused("policy pull {}/ACL:1.0");
    assert!(said.contains("not the name of a repository"), "{said}");
    let said = site.refused("policy publish absent.wasm {}/acl:1.0");
    assert!(said.contains("cannot read absent.wasm"), "{said}");
    fs::write(site.folder.path().join("text.wasm"), "#!/bin/sh\n").expect("a file can be written");
    site.refused("policy publish text.wasm {}/acl:1.0");
    let said = site.refused("policy pull default --verify-key x.pub -o x.wasm");
    assert!(said.contains("--verify-key"), "{said}");

    site.registry.end();
    let said = site.refused("policy pull {}/acl:1.0 -o x.wasm");
    let url = format!(
        "cannot reach the registry at http://{}",
        site.registry.addr()
    );
    assert!(said.contains(&url), "{said}");
}

#[test]
fn peers_changed_content_is_refused() {
    let site = Site::new(Door::default());
    let digest = site.publish("acl.wasm", "acl:1.0");
    let manifest = site.registry.manifest("acl", "1.0");
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest");
    let file = site.registry.file_of(layer);
    let mut bytes = fs::read(&file).expect("the file can be read");
    *bytes.last_mut().expect("a policy is not empty") ^= 1;
    fs::write(&file, &bytes).expect("the file can be written");
    let said = site.refused("policy pull {}/acl:1.0 -o x.wasm");
    assert!(
        said.contains("the file of") && said.contains("has been changed"),
        "{said}"
    );
    assert!(said.contains(layer), "{said}");
    assert!(!site.folder.path().join("x.wasm").exists());

    let file = site.registry.file_of(&digest);
    let text = fs::read_to_string(&file).expect("the file can be read");
    fs::write(&file, text.replace("acl.wasm", "alc.wasm")).expect("the file can be written");
    for at in ["acl:1.0", &format!("acl@{digest}")] {
        let said = site.refused(&format!("policy pull {{}}/{at} -o x.wasm"));
        assert!(
            said.contains("the manifest of") && said.contains(&digest),
            "{said}"
        );
    }
}

#[test]
fn peers_signatures_are_required_by_key() {
    let site = Site::new(Door::default());
    let folder = site.folder.path();
    for name in ["ann", "bob", "eve"] {
        key_pair(folder, name);
    }
    let digest = site.publish("acl.wasm", "team/acl:1.0");
    let said = site.refused("policy pull {}/team/acl:1.0 --verify-key ann.pub -o x.wasm");
    let tag = format!("{}.sig", digest.replace(':', "-"));
    assert!(
        said.contains("is not signed with the key ann.pub")
            && said.contains(&format!("no tag {tag}")),
        "{said}"
    );
    assert!(said.contains(&digest), "{said}");

    let said = site.run("policy sign {}/team/acl:1.0 --key ann.pem");
    assert!(
        said.contains(&digest) && said.contains("signed with the key ann.pem"),
        "{said}"
    );
    let said = site.run("policy sign {}/team/acl:1.0 --key ann.pem");
    assert!(said.contains("signed already"), "{said}");
    site.run("policy sign {}/team/acl:1.0 --key bob.pem");
    for key in ["ann.pub", "bob.pub"] {
        let pull = format!("policy pull {{}}/team/acl:1.0 --verify-key {key} -o x.wasm");
        let said = site.run(&pull);
        assert!(
            said.contains(&format!("signed with the key {key}")),
            "{said}"
        );
    }
    let said = site.refused("policy pull {}/team/acl:1.0 --verify-key eve.pub -o y.wasm");
    assert!(
        said.contains("is not signed with the key eve.pub"),
        "{said}"
    );
    assert!(said.contains("2 signatures with other keys"), "{said}");
    assert_eq!(site.run("policy tags {}/team/acl"), "1.0\n");
    assert!(
        site.run("policy tags {}/team/acl --signatures")
            .contains(&tag)
    );

    // What cosign would check, by another program. The newest statement is the first.
    let manifest = site.registry.manifest("team/acl", &tag);
    let layer = &manifest["layers"][0];
    assert_eq!(
        layer["mediaType"],
        "application/vnd.dev.cosign.simplesigning.v1+json"
    );
    let statement = site
        .registry
        .file_of(layer["digest"].as_str().expect("a digest"));
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(&statement).expect("it can be read")).expect("JSON");
    assert_eq!(
        json["critical"]["image"]["docker-manifest-digest"],
        digest.as_str()
    );
    let signature = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str();
    fs::write(folder.join("base64"), signature.expect("a signature")).expect("it can be written");
    openssl(folder, "base64 -d -A -in base64 -out signature");
    let statement = statement.display();
    openssl(
        folder,
        &format!("dgst -sha256 -verify bob.pub -signature signature {statement}"),
    );

    // The signature of one artifact is none of another.
    let other = site.publish("observe.wasm", "team/acl:2.0");
    let said = site.refused("policy pull {}/team/acl:2.0 --verify-key ann.pub -o y.wasm");
    assert!(
        said.contains(&other) && said.contains("is not signed"),
        "{said}"
    );
    let said = site.run("policy publish acl.wasm {}/team/acl:3.0 --key ann.pem");
    assert!(said.contains("signed with the key ann.pem"), "{said}");
}

#[test]
fn peers_credentials_come_from_the_files_of_docker() {
    let site = Site::new(Door {
        users: true,
        tls: false,
    });
    let publish = "policy publish acl.wasm {}/acl:1.0";
    let said = site.refused(publish);
    assert!(
        said.contains("refuses access to acl with no credentials"),
        "{said}"
    );
    assert!(said.contains("docker login"), "{said}");

    let addr = site.registry.addr();
    let docker = site.folder.path().join(".docker");
    fs::create_dir(&docker).expect("a directory can be made");
    let config = docker.join("config.json");
    let log_in = |password: &str| {
        let plain = site.folder.path().join("plain");
        fs::write(&plain, format!("{USER}:{password}")).expect("a file can be written");
        let auth = openssl(site.folder.path(), "base64 -A -in plain");
        let text = format!(
            r#"{{"auths": {{"{addr}": {{"auth": "{}"}}}}}}"#,
            auth.trim()
        );
        fs::write(&config, text).expect("a file can be written");
    };
    log_in("wrong");
    let said = site.refused(publish);
    assert!(
        said.contains("with the credentials of \"ann\" from"),
        "{said}"
    );
    assert!(
        said.contains("config.json") && !said.contains("wrong"),
        "{said}"
    );
    log_in(PASSWORD);
    site.run(publish);
    site.run("policy pull {}/acl:1.0 -o x.wasm");
    site.run("policy tags {}/acl");

    // A helper, as the programs of docker are.
    let bin = site.folder.path().join("bin");
    fs::create_dir(&bin).expect("a directory can be made");
    let helper = bin.join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread registry\n[ \"$registry\" = {addr} ] && echo '{{\"Username\": \"{USER}\", \"Secret\": \"{PASSWORD}\"}}'\n"
    );
    fs::write(&helper, script).expect("a file can be written");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("modes can be set");
    fs::write(&config, r#"{"credsStore": "test"}"#).expect("a file can be written");
    let words = format!("policy pull {} -o y.wasm", site.at("acl:1.0"));
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let mut command = site.command();
    let output = command.env("PATH", path).args(words.split_whitespace());
    let output = output.output().expect("it runs");
    assert!(output.status.success(), "{}", text(&output));
    let said = site.refused(&words);
    assert!(
        said.contains("docker-credential-test: cannot be run"),
        "{said}"
    );
}

#[test]
fn peers_a_registry_with_tls_is_checked() {
    let site = Site::new(Door {
        users: false,
        tls: true,
    });
    let words = "policy publish acl.wasm {}/acl:1.0 --plain-http=false";
    let said = site.refused(words);
    assert!(said.contains("SSL_CERT_FILE"), "{said}");
    let at = site.at("acl:1.0");
    let mut command = site.command();
    let output = command
        .env("SSL_CERT_FILE", site.registry.authority())
        .args(["policy", "publish", "acl.wasm", &at, "--plain-http=false"])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", text(&output));

    let plain = Site::new(Door::default());
    let said = plain.refused("policy tags {}/acl --plain-http=false");
    assert!(said.contains("add --plain-http"), "{said}");
}

#[test]
fn peers_a_host_gets_a_policy_from_a_registry() {
    let site = Site::new(Door::default());
    let folder = site.folder.path();
    site.run("policy keygen ann.pem");
    site.run("policy sign observe.wasm --key ann.pem");
    let digest = site.publish("observe.wasm", "edge/observe:1.0");
    site.run("policy sign {}/edge/observe:1.0 --key ann.pem");
    key_pair(folder, "eve");

    let keys = fs::read_to_string(folder.join("ann.pub")).expect("the public key");
    let key = keys.lines().nth(1).expect("a line of Base64");
    let host = Builder::new()
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme.signers", &format!("ann = \"{key}\""))
        .start();
    let push = |more: &str| {
        let key = |name: &str| folder.join(name).display().to_string();
        let more = more
            .replace("ann.pub", &key("ann.pub"))
            .replace("eve.pub", &key("eve.pub"));
        let words = format!("policy push acme {} {more}", site.at("edge/observe:1.0"));
        let mut command = portcullis(host.folder());
        let output = command.args(words.split_whitespace()).output();
        output.expect("it runs")
    };
    let refused = push("--activate --verify-key eve.pub");
    assert!(!refused.status.success(), "{}", text(&refused));
    assert!(
        text(&refused).contains("1 signature with other keys"),
        "{}",
        text(&refused)
    );
    let pushed = push("--activate --verify-key ann.pub --note first");
    assert!(pushed.status.success(), "{}", text(&pushed));
    assert!(
        text(&pushed).contains("signed with the key"),
        "{}",
        text(&pushed)
    );
    assert!(
        text(&pushed).contains("acme: generation 1, active"),
        "{}",
        text(&pushed)
    );
    // The host has checked the signature of the file, which came with the artifact, and its list says where the policy comes from.
    let (_, list) = host
        .get("/v1/policies/acme/generations")
        .expect("the host answers");
    let note = format!("first ({})", site.at(&format!("edge/observe@{digest}")));
    assert!(
        list.contains(&note) && list.contains("observe.wasm"),
        "{list}"
    );
}
