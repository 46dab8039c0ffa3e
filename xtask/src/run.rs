//! `cargo xtask run`

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::build::{self, Profile, Set};
use crate::process::run as run_command;
use crate::steps::Progress;
use crate::workspace::Workspace;

/// Build, then serve the policy and address groups of the README on this machine, and print how to try them
///
/// Configuration and table (embedded SQLite) are in target/run; delete that directory to start over. A small user agent answers relayed
/// requests with 200 as long as the host runs. Ctrl-C ends both.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The address of the host for SIP
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// The port of the host for SIP, over UDP and TCP
    #[arg(long, default_value_t = 5060)]
    port: u16,
    /// The port on 127.0.0.1 of the user agent behind the host
    #[arg(long, value_name = "PORT", default_value_t = 5080)]
    answer_port: u16,
    /// The port on 127.0.0.1 of the control interface
    #[arg(long, value_name = "PORT", default_value_t = 8060)]
    control_port: u16,
    /// Serve the build for packages, optimised across all crates, which takes many minutes to build
    #[arg(long)]
    release: bool,
}

/// Answers relayed requests as long as the host runs.
#[derive(Debug, clap::Args)]
pub(crate) struct CompanionArgs {
    portcullis: PathBuf,
    listen: SocketAddr,
}

/// The rows of the README as arguments of `kamctl`: group, address, mask, port, tag. The last row permits a callee on this machine.
const ROWS: [[&str; 5]; 3] = [
    ["250", "10.8.203.139", "32", "5060", "TestServer"],
    ["200", "192.168.1.0", "24", "5060", "OfficeSubnet"],
    ["200", "127.0.0.0", "29", "0", "Loopback"],
];

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::own()?;
    let mut progress = Progress::new(3);
    let profile = Profile::of(args.release);
    progress.next(match profile {
        Profile::Debug => {
            "Compiling the host, and the policies to WebAssembly: minutes the first time, seconds after that"
        }
        Profile::Dist => {
            "Compiling the host, optimised over all crates, and the policies to WebAssembly"
        }
    });
    let (portcullis, policies) = build::host_and_policies(&workspace, profile, Set::Bundled)?;
    let folder = workspace.target.join("run");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let policy = policies
        .iter()
        .find(|file| file.ends_with("address-acl.wasm"))
        .context("there is no address-acl")?;

    let database = folder.join("portcullis.db");
    let config = folder.join("portcullis.toml");
    let text = configuration(args, policy, &database);
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    progress.next(match database.exists() {
        true => "Taking the address table of the last run, in target/run",
        false => "Filling an address table with the page's rows, in target/run",
    });
    if !database.exists() {
        fill(&portcullis, &config)?;
    }

    progress.next("Starting the host, and a user agent behind it");
    answer(&portcullis, args.answer())?;
    println!("{}", how_to_try(args, &portcullis, &config));
    let error = Command::new(&portcullis)
        .arg("serve")
        .arg("--config")
        .arg(&config)
        .exec();
    Err(error).with_context(|| format!("cannot start {}", portcullis.display()))
}

pub(crate) fn companion(args: &CompanionArgs) -> Result<()> {
    let host = parent_id();
    let mut child = Command::new(&args.portcullis)
        .arg("answer")
        .arg(args.listen.to_string())
        .spawn()
        .with_context(|| format!("cannot start {}", args.portcullis.display()))?;
    while child.try_wait()?.is_none() {
        if parent_id() != host {
            child.kill()?;
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

impl Args {
    fn sip(&self) -> SocketAddr {
        SocketAddr::new(self.listen, self.port)
    }

    fn answer(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.answer_port))
    }

    fn control(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.control_port))
    }
}

fn configuration(args: &Args, policy: &Path, database: &Path) -> String {
    let (sip, control, answer) = (args.sip(), args.control(), args.answer());
    // Commands find the token from any directory.
    let token = database.with_extension("token");
    let (policy, database, token) = (policy.display(), database.display(), token.display());
    format!(
        r#"# Written by `cargo xtask run`, anew with every start.
workers = 1
listen = ["udp:{sip}", "tcp:{sip}"]

[database]
url = "sqlite:{database}"

[policy]
file = "{policy}"

[relay]
next-hop = "sip:{answer}"

[control]
listen = "{control}"
token-file = "{token}"
"#
    )
}

/// Adds the rows of the README to a new table, with the command that an operator would use.
fn fill(portcullis: &Path, config: &Path) -> Result<()> {
    for row in ROWS {
        run_command(
            Command::new(portcullis)
                .arg("--config")
                .arg(config)
                .args(["address", "add"])
                .args(row),
        )?;
    }
    Ok(())
}

/// Starts the user agent behind the host, in another process, because this one becomes the host and cannot detect its own end.
fn answer(portcullis: &Path, listen: SocketAddr) -> Result<()> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let mut companion = Command::new(this);
    companion
        .arg("companion")
        .arg(portcullis)
        .arg(listen.to_string());
    companion
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start the user agent behind the host")?;
    Ok(())
}

fn how_to_try(args: &Args, portcullis: &Path, config: &Path) -> String {
    let sip = args.sip();
    let (program, config) = (show(portcullis), show(config));
    format!(
        "
Portcullis serves {sip}, UDP and TCP, with the policy policies/address-acl and the rows that this shows:

    {program} -c {config} address show

To try it, in another terminal:

    {program} probe sip:bob@{sip} --from 127.0.0.1
        a source in group 200: relayed, and answered 200 by the user agent behind the host
    {program} probe sip:bob@{sip} --from 127.0.0.9
        a source in no group: 401 Address not authorised
    {program} probe sip:bob@{sip} --from 127.0.0.9 --method INVITE --tcp
        the same with a call over TCP
    sipsak -vv -s sip:bob@{sip}
        the first with sipsak
    {program} -c {config} address add 200 127.0.0.9
        within a second, the second is answered 200 as well

After a change of the policy's source, `cargo xtask build --policies` is all it takes.
Ctrl-C ends it.
"
    )
}

/// Returns the path relative to the current directory, if possible.
fn show(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here)
        .unwrap_or(path)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_contains_the_arguments() {
        let args = Args {
            listen: "::1".parse().expect("an address"),
            port: 5070,
            answer_port: 5081,
            control_port: 8061,
            release: false,
        };
        let text = configuration(&args, Path::new("/p/acl.wasm"), Path::new("/d/p.db"));

        for line in [
            r#"listen = ["udp:[::1]:5070", "tcp:[::1]:5070"]"#,
            r#"url = "sqlite:/d/p.db""#,
            r#"file = "/p/acl.wasm""#,
            r#"next-hop = "sip:127.0.0.1:5081""#,
            r#"listen = "127.0.0.1:8061""#,
        ] {
            assert!(
                text.lines().any(|other| other == line),
                "{line} is missing in\n{text}"
            );
        }
    }
}
