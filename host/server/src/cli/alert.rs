//! `portcullis alert …`: the conditions of the running host that need attention.

use std::io::Write;
use std::process::ExitCode;

use portcullis_config::Config;
use portcullis_control::commands::alert::AlertStatus;

use super::client::{Client, Elsewhere, Reach, Reaching, encoded};
use super::print::{Format, Table, clean, stdout, write_json};

#[derive(Debug, clap::Subcommand)]
pub(super) enum AlertCommand {
    /// List the conditions that need attention, as long as they last, and who has seen them
    List(Format),
    /// Say that you have seen an alert, for those who look later: it stays until its cause ends
    Ack {
        /// The id, as the list shows it
        id: String,
        /// Who you are [default: $USER]
        #[arg(long)]
        author: Option<String>,
    },
}

impl Reaching for AlertCommand {
    fn elsewhere(&self) -> Option<(&'static str, Elsewhere)> {
        match self {
            Self::List(_) | Self::Ack { .. } => None,
        }
    }
}

impl AlertCommand {
    pub(super) fn run(self, config: &Config, reach: &Reach) -> anyhow::Result<ExitCode> {
        let out = &mut stdout();
        let client = Client::new(config, reach)?;
        match self {
            Self::List(format) => {
                let all: Vec<AlertStatus> = client.send("GET", "/v1/alerts", &[], None)?;
                match format.json {
                    true => write_json(out, &all)?,
                    false => write(&all, out)?,
                }
            }
            Self::Ack { id, author } => {
                let author = author.or_else(|| std::env::var("USER").ok());
                let query = author.as_deref().map(|author| ("author", author));
                let path = format!("/v1/alerts/{}/acknowledge", encoded(&id));
                let alert: AlertStatus = client.send("POST", &path, query.as_slice(), None)?;
                let by = alert.acknowledged_by.unwrap_or_default();
                writeln!(out, "{}: seen by {}", clean(&alert.id), clean(&by))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn write(all: &[AlertStatus], out: &mut impl Write) -> anyhow::Result<()> {
    if all.is_empty() {
        return Ok(writeln!(out, "no alert")?);
    }
    let mut table = Table::new(["id", "since", "kind", "seat", "seen by", "text"]);
    for alert in all {
        let since = alert.since.as_ref().map(ToString::to_string);
        table.push([
            alert.id.clone(),
            since.unwrap_or_default(),
            alert.kind.as_str().to_owned(),
            alert.seat.clone().unwrap_or_default(),
            alert.acknowledged_by.clone().unwrap_or_default(),
            alert.text.clone(),
        ]);
    }
    Ok(table.write(out)?)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use portcullis_control::commands::alert::AlertKind;

    use super::*;

    #[test]
    fn a_list_says_what_has_happened_and_who_has_seen_it() {
        let shown = |all: &[AlertStatus]| {
            let mut out = Vec::new();
            write(all, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(&[]), "no alert\n");
        let at = UNIX_EPOCH + Duration::from_secs(1);
        let alert = AlertStatus {
            id: "00ff".into(),
            kind: AlertKind::PolicyOutOfService,
            seat: Some("acme".into()),
            since: Some(at.into()),
            text: "a\u{1b}[2Jb".into(),
            acknowledged_by: None,
            acknowledged_at: None,
        };
        let seen = AlertStatus {
            id: "abcd".into(),
            kind: AlertKind::StoreUnreachable,
            seat: None,
            since: None,
            text: "no answer".into(),
            acknowledged_by: Some("ann".into()),
            acknowledged_at: Some(at.into()),
        };
        assert_eq!(
            shown(&[alert, seen]),
            "id    since                 kind                   seat  seen by  text\n\
             00ff  1970-01-01T00:00:01Z  policy-out-of-service  acme           a\\u{1b}[2Jb\n\
             abcd                        store-unreachable            ann      no answer\n"
        );
    }
}
