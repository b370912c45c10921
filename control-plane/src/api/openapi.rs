//! The OpenAPI document of the API, made from the table of routes and the types that handlers read and write.
//!
//! A document written by hand was the worse alternative: it is wrong from the first field that is added to an answer. Macros on the
//! handlers, as of utoipa, were another: a second description of each route beside the table, and nothing that compares the two.

use super::routes::{Route, routes};
use crate::auth::{Access, Role};
use crate::error::ApiError;
use axum::Json;
use forebay_wire::policy::PolicyDocument;
use forebay_wire::sync::CONTENT_TYPE as PROTOBUF;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

const JSON: &str = "application/json";

/// Parts of paths, and what stands there.
const PARAMETERS: [(&str, &str); 4] = [
    (
        "version",
        "Number of a policy version; for a document also `active`.",
    ),
    (
        "key",
        "The customer's key, percent-encoded, or `hash:` and the 32 digits of its hash.",
    ),
    (
        "digest",
        "SHA-256 of the model file, 64 hexadecimal digits.",
    ),
    ("id", "Name of the gateway."),
];

/// Names the schema of a type, and leaves the type with the generator.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What a route is for, what it reads and what it answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Description {
    summary: &'static str,
    query: Option<SchemaOf>,
    body: Vec<Content>,
    answer: Vec<Content>,
}

/// A media type, and the schema of what is written in it where that is JSON or like it.
type Content = (&'static str, Option<SchemaOf>);

// === impl Route ===

impl Route {
    /// Says in a line what it is for.
    pub(super) fn says(mut self, summary: &'static str) -> Self {
        self.description.summary = summary;
        self
    }

    /// Reads its query into this type.
    pub(super) fn queries<T: JsonSchema>(mut self) -> Self {
        self.description.query = Some(SchemaGenerator::root_schema_for::<T>);
        self
    }

    /// Reads a JSON body into this type.
    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        let schema: SchemaOf = SchemaGenerator::subschema_for::<T>;
        self.description.body.push((JSON, Some(schema)));
        self
    }

    /// Reads a policy.
    pub(super) fn takes_policy(self) -> Self {
        let mut route = self.takes::<PolicyDocument>();
        let schema: SchemaOf = SchemaGenerator::subschema_for::<PolicyDocument>;
        route
            .description
            .body
            .push(("application/yaml", Some(schema)));
        route
    }

    /// Reads bytes.
    pub(super) fn takes_bytes(mut self, media: &'static str) -> Self {
        self.description.body.push((media, None));
        self
    }

    /// Answers with this type in JSON.
    pub(super) fn answers<T: JsonSchema>(mut self) -> Self {
        let schema: SchemaOf = SchemaGenerator::subschema_for::<T>;
        self.description.answer.push((JSON, Some(schema)));
        self
    }

    /// Answers with a JSON value that has a standard of its own.
    pub(super) fn answers_any_json(mut self) -> Self {
        self.description.answer.push((JSON, None));
        self
    }

    /// Answers with bytes.
    pub(super) fn answers_bytes(mut self, media: &'static str) -> Self {
        self.description.answer.push((media, None));
        self
    }
}

pub(super) async fn openapi() -> Json<Value> {
    Json(document())
}

/// The document.
#[must_use]
pub fn document() -> Value {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
        })
    };
    let mut read = settings().for_deserialize().into_generator();
    let mut written = settings().for_serialize().into_generator();
    let refused = written.subschema_for::<ApiError>();
    let mut paths = Map::new();
    for route in routes() {
        let operation = operation(&route, &mut read, &mut written, &refused);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(route.method.as_str().to_lowercase(), operation);
        }
    }
    let mut schemas = written.take_definitions(true);
    // Of what is both read and written, such as a policy: what may be left out when it is sent is always there in an answer, so the
    // schema of the one holds for the other.
    schemas.extend(read.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Forebay control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "docs/reference/api.md says what the codes of refusals mean and what roles may do.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:7430"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
    })
}

fn operation(
    route: &Route,
    read: &mut SchemaGenerator,
    written: &mut SchemaGenerator,
    refused: &Schema,
) -> Value {
    let description = &route.description;
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": description.summary,
        "parameters": parameters(route, read),
        "responses": {
            "200": {"description": "Done.", "content": content(&description.answer, written)},
        },
    });
    let Some(fields) = operation.as_object_mut() else {
        return operation;
    };
    if !description.body.is_empty() {
        let content = content(&description.body, read);
        let body =
            json!({"required": is_body_required(&description.body, read), "content": content});
        fields.insert("requestBody".to_owned(), body);
    }
    let Some(least) = route.access.least() else {
        fields.insert("security".to_owned(), json!([]));
        return operation;
    };
    fields.insert(
        "x-forebay-role".to_owned(),
        json!(role_of(route.access, least)),
    );
    let mut refusals = Map::from_iter([(JSON.to_owned(), json!({"schema": refused}))]);
    if route.access == Access::GatewayOnly {
        refusals.insert(PROTOBUF.to_owned(), json!({}));
    }
    if let Some(responses) = fields.get_mut("responses").and_then(Value::as_object_mut) {
        let refusal = json!({"description": "Refused.", "content": refusals});
        responses.insert("default".to_owned(), refusal);
    }
    operation
}

/// The smallest role that may take a route; a gateway's is not one of people.
fn role_of(access: Access, least: Role) -> String {
    match (access, least) {
        (Access::AtLeast(_), Role::Gateway) => "gateway or viewer".to_owned(),
        _ => least.name().to_owned(),
    }
}

fn operation_id(route: &Route) -> String {
    let parts = route.path.split(['/', '{', '}', '.']);
    let parts = parts.filter(|part| !part.is_empty() && *part != "v1");
    let method = route.method.as_str().to_lowercase();
    std::iter::once(method.as_str())
        .chain(parts)
        .collect::<Vec<_>>()
        .join("_")
}

fn parameters(route: &Route, read: &mut SchemaGenerator) -> Vec<Value> {
    let in_path = PARAMETERS.iter().filter(|(name, _)| {
        let place = format!("{{{name}}}");
        route.path.contains(&place)
    });
    let mut parameters: Vec<Value> = in_path
        .map(|(name, description)| {
            json!({
                "name": name, "in": "path", "required": true, "description": description,
                "schema": {"type": "string"},
            })
        })
        .collect();
    let query = route.description.query.map(|schema_of| schema_of(read));
    let property = |name: &str| query.as_ref().and_then(|schema| schema.get(name));
    let required = property("required").and_then(Value::as_array);
    let fields = property("properties").and_then(Value::as_object);
    for (name, schema) in fields.into_iter().flatten() {
        let is_required = required.is_some_and(|required| required.iter().any(|one| one == name));
        parameters.push(json!({
            "name": name, "in": "query", "required": is_required, "schema": schema,
        }));
    }
    parameters
}

fn content(contents: &[Content], generator: &mut SchemaGenerator) -> Value {
    let contents = contents.iter().map(|(media, schema_of)| {
        let schema = schema_of.map(|schema_of| schema_of(generator));
        let media_type = schema.map_or(json!({}), |schema| json!({"schema": schema}));
        ((*media).to_owned(), media_type)
    });
    Value::Object(contents.collect())
}

/// No body at all counts as `{}`, so it is required only where a field of it is, or where it is no JSON.
fn is_body_required(body: &[Content], read: &mut SchemaGenerator) -> bool {
    let schemas = body.iter().filter_map(|(_, schema_of)| *schema_of);
    let all: Vec<Schema> = schemas.map(|schema_of| schema_of(read)).collect();
    let is_empty_enough = |schema: &Schema| {
        let reference = schema
            .get("$ref")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let name = reference.rsplit('/').next().unwrap_or_default();
        let schema = read.definitions().get(name);
        schema.is_some_and(|schema| schema.get("required").is_none())
    };
    all.is_empty() || !all.iter().all(is_empty_enough)
}
