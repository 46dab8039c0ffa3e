//! `tls.kill`.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_rpc::{Call, Fault, Param};

use crate::Control;
use crate::caller::Caller;
use crate::commands::{Dispatch, FromCall, Procedure};
use crate::operation::{Answer, Api, Operation, Routes, Segments, answer};

/// `tls.kill`: ends the connection with this id of `tls.list`. Requests in progress lose it, too. Kamailio has the command since 5.7.
#[derive(Debug)]
pub(crate) struct Kill {
    id: u32,
}

impl FromCall for Kill {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let id = match &call.params[..] {
            [Param::Int(id)] => u32::try_from(*id).ok(),
            [Param::Text(id)] => id.parse().ok(),
            _ => None,
        };
        let id = id.ok_or_else(|| {
            Fault::new(
                400,
                "tls.kill takes the id of a connection as tls.list shows it",
            )
        })?;
        Ok(Self { id })
    }
}

impl Procedure for Kill {
    type Reply = String;

    fn subject(&self) -> Option<String> {
        Some(format!("TLS connection {}", self.id))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<String, Fault> {
        match control.shared.connections.end_secure(self.id) {
            true => Ok("OK".into()),
            false => Err(Fault::new(404, "TLS connection id not found")),
        }
    }
}

impl Kill {
    /// `DELETE /v1/tls/connections/{id}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let delete = Operation::new::<String>(
            Method::DELETE,
            "/v1/tls/connections/{id}",
            "endTlsConnection",
            "End a connection over TLS at once, with what is in progress on it",
        );
        let delete = delete.answers(200, "The word OK");
        routes.on(delete.refuses(&[404, 422]), kill)
    }
}

async fn kill(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(id): Segments<String>,
) -> Answer {
    let kill = match id.parse() {
        Ok(id) => Ok(Kill { id }),
        Err(_) => Err(Fault::new(
            422,
            "not the id of a connection: GET /v1/tls/connections lists them",
        )),
    };
    match kill {
        Ok(kill) => answer(kill.dispatch(&control, &caller).await),
        Err(fault) => answer(Err(fault)),
    }
}
