//! SIP tools of others: SIPp and sipsak, run with scenarios and targets of a test.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Starts SIPp with a scenario file and waits for its end.
///
/// # Panics
/// When SIPp is not installed.
pub fn sipp(
    scenario: &Path,
    folder: &Path,
    local: SocketAddr,
    remote: SocketAddr,
    extra: &[&str],
) -> Output {
    sipp_command(scenario, folder, local, extra)
        .arg(remote.to_string())
        .output()
        .expect("sipp is installed: apt-get install sip-tester")
}

/// Starts SIPp as a server with a scenario file.
pub fn sipp_server(scenario: &Path, folder: &Path, local: SocketAddr, extra: &[&str]) -> Child {
    sipp_command(scenario, folder, local, extra)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sipp is installed: apt-get install sip-tester")
}

/// Sends one OPTIONS with sipsak from a source address.
pub fn sipsak(source: IpAddr, uri: &str) -> Output {
    Command::new("sipsak")
        .args(["-vv", "-H", &source.to_string(), "-s", uri])
        .output()
        .expect("sipsak is installed: apt-get install sipsak")
}

fn sipp_command(scenario: &Path, folder: &Path, local: SocketAddr, extra: &[&str]) -> Command {
    let mut command = Command::new("sipp");
    command
        .current_dir(folder)
        .arg("-sf")
        .arg(scenario)
        .args([
            "-i",
            &local.ip().to_string(),
            "-p",
            &local.port().to_string(),
        ])
        .args([
            "-nostdin",
            "-trace_err",
            "-trace_stat",
            "-timeout",
            "60s",
            "-timeout_error",
        ])
        .args(extra)
        .stdin(Stdio::null());
    command
}
