//! Translates Kamailio's configuration into ours: `portcullis import kamailio.cfg`.
//!
//! The stages, in order: the `lexer` splits a text into tokens, the `preprocessor` executes `#!define`, `#!ifdef` and `include_file`,
//! `statement` finds settings and calls among the tokens, `translate` writes what has a counterpart into a `draft`, and the draft comments
//! out what our own configuration would refuse. Everything that is not translated becomes a [`Finding`] with its place. Nothing here
//! starts, queries or changes a running Kamailio.
//!
//! `script` translates the routing logic of the same tokens into the source of a policy: `portcullis import --policy`.
//!
//! Of the host, this crate depends only on the configuration (`portcullis_config`).

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod calls;
mod dispatcher;
mod draft;
mod edge_modules;
mod endpoints;
mod finding;
mod functions;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
mod lexer;
mod listen;
mod modules;
mod permissions;
mod pike;
mod preprocessor;
mod script;
mod settings;
mod statement;
mod substitution;
mod surroundings;
#[cfg(test)]
mod tests;
mod tls;
mod tm;
mod tm_calls;
mod translate;

use std::io;
use std::path::{Path, PathBuf};

pub use finding::{Finding, Place};
pub use script::Script;
pub use surroundings::{Machine, Surroundings};

use preprocessor::Preprocessor;
use statement::What;

/// What came of a kamailio.cfg.
#[derive(Clone, Debug)]
pub struct Import {
    /// A configuration file that [`Config::parse`](portcullis_config::Config::parse) accepts. It may hold a database password.
    pub text: String,
    /// How many values of kamailio.cfg are in it.
    pub taken: usize,
    /// What was not taken over, or not as it was, in the order of the lines; at the end what concerns no single line.
    pub findings: Vec<Finding>,
}

/// Why nothing can be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; name Kamailio's configuration, usually /etc/kamailio/kamailio.cfg", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Reads Kamailio's configuration.
///
/// `defines` are what Kamailio is given with `-A`: a name, and a value where there is one.
///
/// # Errors
/// If `file` itself cannot be read. What is wrong inside it becomes a finding.
pub fn import(
    file: &Path,
    defines: &[(String, String)],
    surroundings: &dyn Surroundings,
) -> Result<Import, ImportError> {
    let text = read(file, surroundings)?;
    let (tokens, mut findings) = Preprocessor::new(file, &text, defines, surroundings).run();
    let (statements, more) = statement::statements(&tokens);
    findings.extend(more);
    let (mut draft, more) = translate::translate(file, &statements, surroundings);
    findings.extend(more);
    settings::keep_defaults_of_names(&mut draft);
    let (text, taken, more) = draft.settle();
    findings.extend(more);
    finding::sort(&mut findings);
    Ok(Import {
        text,
        taken,
        findings,
    })
}

/// Translates the routing logic into the source of a policy.
///
/// # Errors
/// If `file` itself cannot be read. What cannot be translated is a comment in the source, and a finding.
pub fn script(
    file: &Path,
    defines: &[(String, String)],
    surroundings: &dyn Surroundings,
) -> Result<Script, ImportError> {
    let text = read(file, surroundings)?;
    let (tokens, _) = Preprocessor::new(file, &text, defines, surroundings).run();
    let (statements, _) = statement::statements(&tokens);
    let mut own = Vec::new();
    let mut first = None;
    for statement in &statements {
        match &statement.what {
            What::Alias(names) => own.extend(names.iter().map(|name| host_and_port(name))),
            // A socket has a port, an alias without one is for all ports.
            What::Listen(listen) => own.extend(listen.sockets.iter().map(|socket| {
                let (host, port) = host_and_port(socket);
                (host, port.or(Some(5060)))
            })),
            What::Parameter {
                modules,
                name,
                value,
            } if name == "fr_timer" && modules.split('|').any(|module| module == "tm") => {
                first = tm::time_of_a_target(value);
            }
            What::Set { .. } | What::Module(_) | What::Parameter { .. } | What::Call { .. } => {}
        }
    }
    own.sort();
    own.dedup();
    let settings = script::Settings { own, first };
    Ok(script::translate(file, &tokens, &settings))
}

/// Host and port of `udp:192.0.2.1:5060` or `sip.example.com`.
fn host_and_port(socket: &str) -> (String, Option<u16>) {
    let behind = ["udp:", "tcp:", "tls:", "sctp:"]
        .iter()
        .find_map(|scheme| socket.strip_prefix(scheme));
    let socket = behind.unwrap_or(socket);
    match socket.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host.to_owned(), Some(port)),
            Err(_) => (socket.to_owned(), None),
        },
        _ => (socket.to_owned(), None),
    }
}

fn read(file: &Path, surroundings: &dyn Surroundings) -> Result<String, ImportError> {
    surroundings
        .read(file)
        .map_err(|source| ImportError::Unreadable {
            path: file.to_owned(),
            source,
        })
}
