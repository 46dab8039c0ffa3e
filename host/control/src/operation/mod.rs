//! Operations below `/v1`: their routes, their description, how requests are read, and the responses.

mod description;
mod event_stream;
mod network;
mod problem;
mod request;
mod tagged;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::handler::Handler;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use portcullis_rpc::{Fault, Reply, json};

use crate::Control;

pub(crate) use description::{Description, Operation, RpcCommand, schema_of};
pub(crate) use event_stream::{EVENTS, event_stream};
pub(crate) use network::{IPV4_NETWORK, IPV6_NETWORK};
pub use problem::Problem;
pub(crate) use problem::{refusal, write_problems};
pub(crate) use request::{Given, Refusal, Segments, json_body, limit};
pub(crate) use tagged::Tagged;

pub(crate) type Api = State<Arc<Control>>;
pub(crate) type Answer = Result<Response, Refusal>;

/// Routes with their description.
pub(crate) struct Routes {
    pub(crate) router: Router<Arc<Control>>,
    pub(crate) description: Description,
    /// The methods of each path.
    pub(crate) methods: HashMap<&'static str, Vec<Method>>,
}

impl Routes {
    /// Creates routes without operations.
    pub(crate) fn new() -> Self {
        Self {
            router: Router::new(),
            description: Description::new(),
            methods: HashMap::new(),
        }
    }

    /// Adds an operation.
    pub(crate) fn on<H, T>(mut self, operation: Operation, handler: H) -> Self
    where
        H: Handler<T, Arc<Control>>,
        T: 'static,
    {
        self.description.add(&operation);
        let methods = self.methods.entry(operation.path()).or_default();
        methods.push(operation.method().clone());
        // Every method in use has a filter.
        let filter = MethodFilter::try_from(operation.method().clone());
        let filter = filter.unwrap_or(MethodFilter::GET);
        self.router = self.router.route(operation.path(), on(filter, handler));
        self
    }
}

/// The response to an executed command: its reply in JSON.
pub(crate) fn answer(reply: Result<Reply, Fault>) -> Answer {
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((json, json::bare(reply?)).into_response())
}
