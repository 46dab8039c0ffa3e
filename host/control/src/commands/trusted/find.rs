//! `trusted.match`, over HTTP: whether the loaded table trusts a request.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_address::{FromUri, Proto, TrustedQuestion, TrustedSource};
use portcullis_config::TokenRole;
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::caller::Caller;
use crate::commands::{Dispatch, Procedure};
use crate::operation::{Answer, Api, Given, Operation, Routes, answer};

/// `trusted.match`.
#[derive(Debug)]
pub(crate) struct Find(MatchQuery);

/// The query with the request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct MatchQuery {
    /// Source address of the request
    #[schemars(extend("minLength" = 1))]
    source: String,
    /// Transport: any, udp, tcp, tls, sctp, ws or wss (default: any)
    #[schemars(extend("enum" = ["any", "udp", "tcp", "tls", "sctp", "ws", "wss"]))]
    proto: Option<String>,
    /// From URI
    from: String,
    /// Request URI
    ruri: String,
}

/// The rows that trust a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrustedMatches {
    /// Whether any row does.
    pub is_trusted: bool,
    /// The tags of these rows, in the order in which the rows are tried; null for a row without a tag.
    pub tags: Vec<Option<String>>,
    /// Number of the load of the table.
    pub generation: u64,
}

impl Procedure for Find {
    type Reply = TrustedMatches;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<TrustedMatches, Fault> {
        let Self(query) = self;
        if query.source.is_empty() {
            let text = "source: the source address of the request is missing";
            return Err(Fault::new(400, text));
        }
        let proto = match query.proto.as_deref() {
            None => Proto::Any,
            Some(word) => Proto::parse(word).ok_or_else(|| {
                let text = format!(
                    "`{word}` is not a transport: write any, udp, tcp, tls, sctp, ws or wss"
                );
                Fault::new(400, text)
            })?,
        };
        let snapshot = control.shared.addresses.current();
        let trusted = &snapshot.trusted;
        let matches = trusted.table.matches(TrustedQuestion {
            source: TrustedSource::parse(&query.source),
            proto,
            from: FromUri::Own(&query.from),
            ruri: &query.ruri,
        });
        let tags = matches.iter().map(|row| row.tag.map(str::to_owned));
        Ok(TrustedMatches {
            is_trusted: !matches.is_empty(),
            tags: tags.collect(),
            generation: trusted.generation,
        })
    }
}

impl Find {
    /// `GET /v1/trusted/match`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<TrustedMatches>(
            Method::GET,
            "/v1/trusted/match",
            "matchTrusted",
            "Show whether the loaded table of trusted peers trusts a request",
        );
        let get = get.query::<MatchQuery>(&["source"]);
        routes.on(get.answers(200, "The rows that trust the request"), find)
    }
}

async fn find(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(query): Given<MatchQuery>,
) -> Answer {
    answer(Find(query).dispatch(&control, &caller).await)
}
