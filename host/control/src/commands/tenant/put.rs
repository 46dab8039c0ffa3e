//! `tenant.put`, over HTTP: store a tenant in the database.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Method, header};
use portcullis_rpc::Fault;
use serde::Deserialize;
use serde_json::json;

use super::{Dispatch, Procedure, STORED, TENANT, TenantChanged, TenantQuery, fault};
use crate::Control;
use crate::caller::Caller;
use crate::conditions::Condition;
use crate::http_server::whole;
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};

/// The largest section of a tenant, in bytes.
const MOST_TENANT: usize = 256 << 10;

/// `tenant.put`.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) name: String,
    /// Content of its section, in TOML.
    pub(crate) config: String,
}

impl Procedure for Put {
    type Reply = TenantChanged;

    fn subject(&self) -> Option<String> {
        Some(format!("tenant {}", self.name))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<TenantChanged, Fault> {
        let (registry, by) = (&control.registry, caller.to_string());
        let put = registry.put_tenant(&self.name, &self.config, &by).await;
        put.map_err(|error| fault(&error))?;
        Ok(TenantChanged::new(control, self.name).await)
    }
}

impl Put {
    /// `PUT /v1/tenants/{name}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let put =
            Operation::new::<TenantChanged>(Method::PUT, TENANT, "putTenant", "Store a tenant");
        let put = put.query::<TenantQuery>(&[]).answers(200, STORED);
        let put = put.body(
            "application/toml",
            json!({"type": "string"}),
            "Content of its section in a configuration file. As application/json, an object whose member `config` is this text",
        );
        routes.on(
            put.refuses(&[404, 408, 409, 413, 415, 422, 503]),
            put_tenant,
        )
    }
}

async fn put_tenant(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    condition: Condition,
    Segments(name): Segments<String>,
    Given(query): Given<TenantQuery>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let text = text_body(body).await?;
    let config = match is_json(&headers) {
        true => match serde_json::from_str(&text) {
            Ok(Section { config }) => config,
            Err(error) => return Err(Fault::new(400, error.to_string()).into()),
        },
        false => text,
    };
    let _turn = condition.hold(&control).await?;
    let caller = caller.called(query.author);
    answer(Put { name, config }.dispatch(&control, &caller).await)
}

/// The section of a tenant in JSON, for tools that send nothing else. What `GET` shows beside it is ignored.
#[derive(Debug, Deserialize)]
struct Section {
    config: String,
}

fn is_json(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE);
    let media = media
        .and_then(|media| media.to_str().ok())
        .unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case("application/json")
}

/// The section of a tenant.
async fn text_body(body: Body) -> Result<String, Fault> {
    let whole = whole(body, MOST_TENANT).await;
    let bytes =
        whole.map_err(|(status, text)| Fault::new(status.as_u16().into(), text.trim_end()))?;
    String::from_utf8(bytes.into())
        .map_err(|_| Fault::new(400, "the tenant's section is not UTF-8"))
}
