//! The description of `/v1` for other tools: OpenAPI 3.1, generated from the types of parameters and replies.

use std::borrow::Cow;

use axum::http::Method;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};

use super::problem::{PROBLEM, Problem};
use super::tagged::Tagged;

/// An operation: one method of one path.
pub(crate) struct Operation {
    method: Method,
    path: &'static str,
    /// Its `operationId`, for generators of clients.
    id: &'static str,
    summary: &'static str,
    query: Vec<Json>,
    body: Option<Body>,
    success: Success,
    /// Error statuses in addition to those that every operation has.
    refusals: &'static [u16],
    is_open: bool,
}

/// The body of a request.
struct Body {
    media: &'static str,
    description: &'static str,
    schema: Json,
}

/// The response of a successful request.
struct Success {
    status: u16,
    description: &'static str,
    media: &'static str,
    schema: fn(&mut SchemaGenerator) -> Json,
}

/// The description, to which operations are added.
pub(crate) struct Description {
    generator: SchemaGenerator,
    paths: Map<String, Json>,
}

/// Name of a JSON-RPC command, its help, and the schema of its reply.
pub(crate) type RpcCommand = (&'static str, &'static str, Schema);

/// Error statuses of every operation: malformed request, no token, a token of another tenant, too many wrong tokens.
const ALWAYS: [u16; 4] = [400, 401, 403, 429];

impl Operation {
    /// Creates an operation that answers 200 with JSON of type `T`.
    pub(crate) fn new<T: JsonSchema>(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            query: Vec::new(),
            body: None,
            success: Success {
                status: 200,
                description: "Done",
                media: "application/json",
                schema: |generator| generator.subschema_for::<T>().into(),
            },
            refusals: &[],
            is_open: false,
        }
    }

    pub(crate) fn path(&self) -> &'static str {
        self.path
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// Adds a query of this type. The members in `required` are mandatory.
    #[must_use]
    pub(crate) fn query<Q: JsonSchema>(mut self, required: &[&str]) -> Self {
        let schema = generator().into_root_schema_for::<Q>();
        let properties = schema.get("properties").and_then(Json::as_object);
        for (name, property) in properties.into_iter().flatten() {
            let mut schema = property.clone();
            let description = schema.as_object_mut().and_then(|schema| {
                not_null(schema);
                bounded(schema);
                schema.remove("description")
            });
            self.query.push(json!({
                "name": name,
                "in": "query",
                "required": required.contains(&name.as_str()),
                "description": description,
                "schema": schema,
            }));
        }
        self
    }

    /// Adds a request body.
    #[must_use]
    pub(crate) fn body(
        mut self,
        media: &'static str,
        schema: Json,
        description: &'static str,
    ) -> Self {
        self.body = Some(Body {
            media,
            description,
            schema,
        });
        self
    }

    /// Replaces the status 200, with its description.
    #[must_use]
    pub(crate) fn answers(mut self, status: u16, description: &'static str) -> Self {
        self.success.status = status;
        self.success.description = description;
        self
    }

    /// Replaces JSON as the media type of the response.
    #[must_use]
    pub(crate) fn sends(mut self, media: &'static str) -> Self {
        self.success.media = media;
        self
    }

    /// Adds error statuses.
    #[must_use]
    pub(crate) fn refuses(mut self, refusals: &'static [u16]) -> Self {
        self.refusals = refusals;
        self
    }

    /// Permits the token of any tenant.
    #[must_use]
    pub(crate) fn open(mut self) -> Self {
        self.is_open = true;
        self
    }

    fn describe(&self, generator: &mut SchemaGenerator) -> Json {
        let mut parameters: Vec<_> = in_path(self.path).collect();
        parameters.extend(self.query.iter().cloned());
        let mut responses = Map::new();
        responses.insert(
            self.success.status.to_string(),
            json!({
                "description": self.success.description,
                "content": {self.success.media: {"schema": (self.success.schema)(generator)}},
            }),
        );
        let always = ALWAYS
            .into_iter()
            .filter(|&status| !(self.is_open && status == 403));
        for status in always.chain(self.refusals.iter().copied()) {
            responses.insert(
                status.to_string(),
                json!({"$ref": "#/components/responses/Refused"}),
            );
        }
        self.describe_conditions(&mut parameters, &mut responses);
        responses.sort_keys();
        let mut described = json!({
            "operationId": self.id,
            "summary": self.summary,
            "parameters": parameters,
            "responses": responses,
        });
        if let Some(body) = &self.body {
            described["requestBody"] = json!({
                "required": true,
                "description": body.description,
                "content": {body.media: {"schema": body.schema}},
            });
        }
        described
    }

    /// Adds the header fields of conditional and repeated requests, and the responses to them.
    fn describe_conditions(&self, parameters: &mut Vec<Json>, responses: &mut Map<String, Json>) {
        let mut accept = |name: &str, description: &str, pattern: Option<&str>| {
            let mut schema = json!({"type": "string"});
            if let Some(pattern) = pattern {
                schema["pattern"] = pattern.into();
            }
            parameters.push(json!({
                "name": name,
                "in": "header",
                "required": false,
                "description": description,
                "schema": schema,
            }));
        };
        let refused = || json!({"$ref": "#/components/responses/Refused"});
        let is_read = self.method == Method::GET;
        if is_read && Tagged::of(&self.method, self.path).is_some() {
            accept(
                "If-None-Match",
                "The ETag of an earlier reply: 304 if nothing has changed",
                None,
            );
            responses.insert("304".to_owned(), json!({"description": "Not changed"}));
            if let Some(success) = responses.get_mut("200") {
                success["headers"] = json!({"ETag": {
                    "description": "Identifies the state that the reply shows; statistics are no part of it",
                    "schema": {"type": "string"},
                }});
            }
        }
        let is_of_row = Tagged::is_of_row(&self.method, self.path);
        if is_of_row || !is_read && Tagged::of(&self.method, self.path).is_some() {
            accept(
                "If-Match",
                "The ETag of an earlier reply: 412 if something has changed since",
                Some(TAGS),
            );
            responses.insert("412".to_owned(), refused());
        }
        if !is_read {
            accept(
                "Idempotency-Key",
                "A text of 1 to 255 visible ASCII characters, for this request only: a repetition within an hour gets the same response, and is \
                 not executed again; 409 while the first is in progress, 422 if it is another request",
                Some("^[!-~]{1,255}$"),
            );
            for status in ["409", "422"] {
                responses.entry(status).or_insert_with(refused);
            }
        }
    }
}

impl Description {
    /// Creates a description without operations.
    pub(crate) fn new() -> Self {
        Self {
            generator: generator(),
            paths: Map::new(),
        }
    }

    /// Adds an operation.
    pub(crate) fn add(&mut self, operation: &Operation) {
        let described = operation.describe(&mut self.generator);
        let methods = self
            .paths
            .entry(operation.path)
            .or_insert_with(|| json!({}));
        methods[operation.method.as_str().to_lowercase()] = described;
    }

    /// Returns the description in JSON, with the JSON-RPC commands.
    pub(crate) fn finish(mut self, rpc: fn(&mut SchemaGenerator) -> Vec<RpcCommand>) -> String {
        let rpc = rpc(&mut self.generator).into_iter();
        let rpc = rpc.map(|(name, help, reply)| {
            (name.to_owned(), json!({"summary": help, "result": reply}))
        });
        let rpc: Map<_, _> = rpc.collect();
        let problem = self.generator.subschema_for::<Problem>();
        let mut schemas = self.generator.take_definitions(true);
        schemas.sort_keys();
        let document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Portcullis",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Tenants, policies and addresses of a host: push, activation, shadow and canary trials, rollback, live decisions. The operator's token (`token` or `token-file` in [control]) gives access to everything, a named token (`[control.tokens.NAME]`) to what its role permits, a tenant's token (`token` in its section) to the paths with the tenant's own name, to /v1/tenants/self, and to the addresses of its groups. Errors are problem details (RFC 9457). `x-json-rpc` lists the commands of JSON-RPC at /RPC with the schemas of their results.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "security": [{"bearer": []}],
            "paths": self.paths,
            "x-json-rpc": rpc,
            "components": {
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
                "responses": {
                    "Refused": {
                        "description": "Why the request was refused, and how to correct it",
                        "content": {PROBLEM: {"schema": problem}},
                    },
                },
                "schemas": schemas,
            },
        });
        // The document consists of strings and numbers only, so that serialising it cannot fail.
        let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// The values of conditions (RFC 9110 §13.1).
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$"#;

/// Generates schemas whose definitions are components of the description. They are for replies: members that are always present are
/// required.
fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let settings = settings.with(|settings| {
        settings.definitions_path = Cow::Borrowed("/components/schemas");
        settings.meta_schema = None;
    });
    settings.into_generator()
}

/// Returns the schema of a body that is read, as a part of the description without references.
pub(crate) fn schema_of<T: JsonSchema>() -> Json {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    let settings = settings.with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema: Json = settings.into_generator().into_root_schema_for::<T>().into();
    let members = schema.get_mut("properties").and_then(Json::as_object_mut);
    for member in members.into_iter().flat_map(Map::values_mut) {
        if let Some(member) = member.as_object_mut() {
            bounded(member);
        }
    }
    schema
}

/// Adds the largest value of an integer, which is part of its format otherwise.
fn bounded(schema: &mut Map<String, Json>) {
    let most = match schema.get("format").and_then(Json::as_str) {
        Some("uint64") => json!(u64::MAX),
        Some("int64") => {
            schema.entry("minimum").or_insert(json!(i64::MIN));
            json!(i64::MAX)
        }
        Some("uint32") => json!(u32::MAX),
        Some("int32") => {
            schema.entry("minimum").or_insert(json!(i32::MIN));
            json!(i32::MAX)
        }
        _ => return,
    };
    schema.entry("maximum").or_insert(most);
}

/// A query parameter is present or absent, and never null.
fn not_null(schema: &mut Map<String, Json>) {
    if let Some(Json::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [kind] = &types[..] {
            let kind = kind.clone();
            schema.insert("type".to_owned(), kind);
        }
    }
    if schema.get("default").is_some_and(Json::is_null) {
        schema.remove("default");
    }
}

/// Returns the parameters in braces of a path.
fn in_path(path: &str) -> impl Iterator<Item = Json> {
    path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        let text = json!({"type": "string", "minLength": 1});
        let (description, schema) = match name {
            "seat" => (
                "Name of a tenant; default, before or after for the operator's policies",
                text,
            ),
            "generation" => (
                "Number of a generation, or active",
                json!({"type": "string", "pattern": "^(active|[0-9]{1,19})$"}),
            ),
            "id" => ("Id of the alert", text),
            "address" => (
                "Address of the source, or a network as the list shows it",
                text,
            ),
            "row" => (
                "Id of the row",
                json!({"type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX}),
            ),
            _ => (
                "Name of the tenant: lower-case letters, digits, - and _",
                text,
            ),
        };
        Some(json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": description,
            "schema": schema,
        }))
    })
}
