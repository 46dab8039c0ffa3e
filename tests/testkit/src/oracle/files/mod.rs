//! Allow and deny files. Kamailio reads them only when it starts, so each case starts its own servers and has many pairs of files.

pub mod case;
pub mod generate;
pub mod view;

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::BATCH;
use super::shrink::fewest;
use super::voice;
use crate::host::{Builder, Host};
use crate::kamailio::{Kamailio, kamcmd};
use crate::lease::Lease;
use crate::policy;
use crate::sip::Caller;

use case::{Call, Case, ODD_BYTE, Pair, name};
use view::View;

/// The result so far.
#[derive(Debug, Default)]
pub struct Oracle {
    /// The exceptions that have applied.
    pub met: BTreeSet<&'static str>,
    /// Number of answers compared.
    pub decisions: usize,
    /// Number of these answers that are refusals.
    pub refused: usize,
}

/// A difference between the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The index of the request.
    pub call: usize,
    /// The index of the question within the request.
    pub question: usize,
    /// Kamailio's answer after the exceptions.
    pub kamailio: String,
    /// What Portcullis answers.
    pub portcullis: String,
}

/// The answers to the questions of a case, request by request.
pub type Answers = Vec<Vec<String>>;

impl Oracle {
    /// Starts both servers with the files, asks both, and returns the first difference.
    pub fn differences(&mut self, case: &Case) -> Vec<Difference> {
        self.compare(case, View::of(case))
    }

    /// The same with another view for Kamailio in place of that of the exceptions.
    pub fn compare(&mut self, case: &Case, view: View) -> Vec<Difference> {
        let ours = portcullis_alone(case);
        let theirs = kamailio_alone(&view.case);
        self.met.extend(view.met);
        let mut differences = Vec::new();
        for (call, (theirs, ours)) in theirs.into_iter().zip(ours).enumerate() {
            self.decisions += theirs.len();
            for (question, (kamailio, portcullis)) in theirs.into_iter().zip(ours).enumerate() {
                self.refused += usize::from(kamailio == "no");
                if kamailio != portcullis {
                    differences.push(Difference {
                        call,
                        question,
                        kamailio,
                        portcullis,
                    });
                }
            }
        }
        differences
    }

    /// A minimal case of this difference, with this view for Kamailio.
    pub fn shrink(
        &mut self,
        case: &Case,
        difference: &Difference,
        view: fn(&Case) -> View,
    ) -> Case {
        let call = &case.calls[difference.call];
        let (at, question) = call.questions[difference.question].clone();
        let mut case = Case {
            pairs: vec![Pair::default(), case.pairs[at].clone()],
            calls: vec![Call {
                envelope: call.envelope.clone(),
                questions: vec![(1, question)],
            }],
        };
        let mut differs = |pair: Pair| {
            let mut smaller = case.clone();
            smaller.pairs[1] = pair;
            !self.compare(&smaller, view(&smaller)).is_empty()
        };
        let Pair { allow, deny } = case.pairs[1].clone();
        let allow = fewest(allow, |allow| {
            differs(Pair {
                allow: allow.to_vec(),
                deny: deny.clone(),
            })
        });
        let deny = fewest(deny, |deny| {
            differs(Pair {
                allow: allow.clone(),
                deny: deny.to_vec(),
            })
        });
        case.pairs[1] = Pair { allow, deny };
        case
    }
}

/// A difference of this case, as text for a report.
pub fn told(case: &Case, difference: &Difference) -> String {
    let Call {
        envelope,
        questions,
    } = &case.calls[difference.call];
    let (at, question) = &questions[difference.question];
    format!(
        "The files:\n{}The question, in {envelope:?}:\n    {question:?}\n{difference}",
        case.pairs[*at]
    )
}

/// What Portcullis answers.
pub fn portcullis_alone(case: &Case) -> Answers {
    Portcullis::start(case).ask(&case.calls)
}

/// Kamailio's answers, without exceptions.
pub fn kamailio_alone(case: &Case) -> Answers {
    Server::start(case, &[]).ask(&case.calls)
}

/// A Portcullis with files of its own.
#[derive(Debug)]
pub struct Portcullis {
    host: Host,
    folder: TempDir,
}

/// A Kamailio with files of its own.
#[derive(Debug)]
pub struct Server {
    lease: Lease,
    folder: TempDir,
    kamailio: Kamailio,
}

impl Portcullis {
    /// Starts it.
    pub fn start(case: &Case) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        write(&case.pairs, folder.path());
        let host = Builder::new()
            .policy(policy("oracle"))
            .set("log", "level = \"error\"")
            .set("permissions", &format!("folder = {:?}", folder.path()))
            .start();
        let status = &host.rpc("portcullis.status", json!([]))["result"]["rules"];
        assert_eq!(status["files"], 2 * case.pairs.len(), "{status}");
        Self { host, folder }
    }

    /// Writes other files.
    pub fn write(&self, pairs: &[Pair]) {
        write(pairs, self.folder.path());
    }

    /// What it answers.
    pub fn ask(&self, calls: &[Call]) -> Answers {
        ask(&mut self.host.udp(10), calls)
    }

    /// The result of `permissions.testUri` for a pair: `Allowed` or `Denied`.
    pub fn test(&self, at: usize, left: &str, right: &str) -> String {
        let said = self
            .host
            .rpc("permissions.testUri", json!([name(at), left, right]));
        let said = said["result"].as_str();
        said.expect("testUri answers with a word").to_owned()
    }
}

impl Server {
    /// Starts it, with more parts of its configuration.
    pub fn start(case: &Case, defines: &[&str]) -> Self {
        let (folder, lease) = (
            tempfile::tempdir().expect("a temporary directory can be made"),
            Lease::new(),
        );
        write(&case.pairs, folder.path());
        let mut parts = vec!["WITH_FILES"];
        parts.extend(defines);
        let kamailio = Kamailio::start(
            include_str!("../../../../oracle/kamailio.cfg"),
            &[
                ("LISTEN", lease.addr(4, 5060).to_string()),
                ("FILES", folder.path().display().to_string()),
                ("RULES", functions(case, folder.path())),
            ],
            &parts,
        );
        Self {
            lease,
            folder,
            kamailio,
        }
    }

    /// Writes other files.
    pub fn write(&self, pairs: &[Pair]) {
        write(pairs, self.folder.path());
    }

    /// What it answers.
    pub fn ask(&self, calls: &[Call]) -> Answers {
        let listen = self.lease.addr(4, 5060);
        ask(&mut Caller::udp(self.lease.ip(10), listen), calls)
    }

    /// The result of `permissions.testUri` for a pair: `Allowed` or `Denied`.
    pub fn test(&self, at: usize, left: &str, right: &str) -> String {
        let path = self.folder.path().join(name(at)).display().to_string();
        // Without a type, kamcmd sends digits as a number.
        let words = [path.as_str(), left, right].map(|word| format!("s:{word}"));
        let [path, left, right] = &words;
        let said = kamcmd(
            &self.kamailio.ctl(),
            &["permissions.testUri", path, left, right],
        );
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kamailio,
            portcullis,
            ..
        } = self;
        write!(f, "Kamailio:   {kamailio}\nPortcullis: {portcullis}")
    }
}

fn ask(caller: &mut Caller, calls: &[Call]) -> Answers {
    let mut answers = Vec::new();
    for call in calls {
        let questions = call.questions.iter();
        let lines: Vec<_> = questions.map(|(at, question)| question.line(*at)).collect();
        let batches = lines.chunks(BATCH);
        answers.push(
            batches
                .flat_map(|batch| voice::ask(caller, &call.envelope, batch))
                .collect(),
        );
    }
    answers
}

fn write(pairs: &[Pair], folder: &Path) {
    for (at, Pair { allow, deny }) in pairs.iter().enumerate() {
        for (ending, lines) in [("allow", allow), ("deny", deny)] {
            let file = folder.join(format!("{}.{ending}", name(at)));
            let text = lines.join("\n");
            let parts: Vec<_> = text.split(ODD_BYTE).map(str::as_bytes).collect();
            std::fs::write(file, parts.join(&0xff)).expect("a file can be written");
        }
    }
}

/// The calls for all pairs. Kamailio accepts names of files only as literals in its configuration.
fn functions(case: &Case, folder: &Path) -> String {
    let mut calls = String::new();
    for at in 0..case.pairs.len() {
        let name = name(at);
        let path = folder.join(&name).display().to_string();
        let routing = match at {
            0 => String::new(),
            _ => format!("\"{path}\""),
        };
        let asked = if at == 0 { "" } else { &name };
        let _infallible = write!(
            calls,
            "    if ($var(kind) == \"routing\" && $var(name) == \"{asked}\") {{ allow_routing({routing}); $var(found) = $rc; return; }}
    if ($var(kind) == \"register\" && $var(name) == \"{name}\") {{ allow_register(\"{path}\"); $var(found) = $rc; return; }}
    if ($var(kind) == \"uri\" && $var(name) == \"{name}\") {{ allow_uri(\"{path}\", \"$var(uri)\"); $var(found) = $rc; return; }}
"
        );
    }
    calls
}
