//! The OpenAPI document: the shipped one is fresh, it names every route, and what the server answers is what it says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use axum::body::Body;
use forebay_control_plane::api::{openapi_document, routes};
use forebay_control_plane::models::{Sandbox, generate_key};
use forebay_control_plane::training::{Training, TrainingOptions};
use kit::forecaster::{LIMITS, fake_forecaster};
use kit::{ADMIN_TOKEN, Gateway, TestServer, policy};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const NONE: Value = Value::Null;

/// Where a value is not what its schema says: as much of JSON Schema as the document uses, and a panic at anything else.
fn faults(value: &Value, schema: &Value, root: &Value, place: &str) -> Vec<String> {
    let Some(schema) = schema.as_object() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (word, rule) in schema {
        let fault = match word.as_str() {
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                let target = root
                    .pointer(pointer)
                    .unwrap_or_else(|| panic!("{rule} leads nowhere"));
                found.extend(faults(value, target, root, place));
                continue;
            }
            "type" => {
                let types = rule.as_array().cloned().unwrap_or(vec![rule.clone()]);
                (!types.iter().any(|one| is_of(value, one.as_str().unwrap())))
                    .then(|| format!("is no {rule}"))
            }
            "properties" => {
                for (name, schema) in rule.as_object().unwrap() {
                    if let Some(field) = value.get(name) {
                        found.extend(faults(field, schema, root, &format!("{place}/{name}")));
                    }
                }
                continue;
            }
            "required" => {
                let missing = rule
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|name| value.get(name.as_str().unwrap()).is_none());
                missing.map(|name| format!("lacks {name}"))
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                for (name, field) in value.as_object().unwrap() {
                    if known.is_none_or(|known| !known.contains_key(name)) {
                        let place = format!("{place}/{name}");
                        if *rule == json!(false) {
                            found.push(format!("{place} is unknown"));
                        }
                        found.extend(faults(field, rule, root, &place));
                    }
                }
                continue;
            }
            "items" => {
                for (position, item) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(faults(item, rule, root, &format!("{place}/{position}")));
                }
                continue;
            }
            "anyOf" | "oneOf" => {
                let fits = |schema: &Value| faults(value, schema, root, place).is_empty();
                (!rule.as_array().unwrap().iter().any(fits)).then(|| format!("fits none of {rule}"))
            }
            "enum" => {
                (!rule.as_array().unwrap().contains(value)).then(|| format!("is none of {rule}"))
            }
            "const" => (value != rule).then(|| format!("is not {rule}")),
            "minimum" => value
                .as_f64()
                .filter(|number| *number < rule.as_f64().unwrap())
                .map(|_| format!("is below {rule}")),
            "maximum" => value
                .as_f64()
                .filter(|number| *number > rule.as_f64().unwrap())
                .map(|_| format!("is above {rule}")),
            "minItems" => value
                .as_array()
                .filter(|items| (items.len() as u64) < rule.as_u64().unwrap())
                .map(|_| format!("has fewer than {rule}")),
            "maxItems" => value
                .as_array()
                .filter(|items| items.len() as u64 > rule.as_u64().unwrap())
                .map(|_| format!("has more than {rule}")),
            "description" | "title" | "format" | "default" => None,
            other => panic!("the walk does not know `{other}`"),
        };
        found.extend(fault.map(|fault| format!("{place} {fault}: {value}")));
    }
    found
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        other => panic!("the walk does not know the type `{other}`"),
    }
}

/// Every object of the schemas with all its fields required and no others allowed: finds fields that a schema lacks.
fn strict(mut document: Value) -> Value {
    for schema in document["components"]["schemas"]
        .as_object_mut()
        .unwrap()
        .values_mut()
    {
        let is_closed =
            schema.get("properties").is_some() && schema.get("additionalProperties").is_none();
        if is_closed {
            schema["additionalProperties"] = json!(false);
        }
    }
    document
}

fn operation<'a>(document: &'a Value, method: &str, path: &str) -> &'a Value {
    let operation = &document["paths"][path][method.to_lowercase()];
    assert!(
        operation.is_object(),
        "{method} {path} is not in the document"
    );
    operation
}

#[test]
fn the_document_in_the_docs_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/openapi.json");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    let written: Value = serde_json::from_str(&written).unwrap_or_default();
    assert!(
        written == openapi_document(),
        "write it anew: forebay openapi > docs/reference/openapi.json"
    );
}

#[test]
fn every_route_is_in_the_document_and_nothing_else() {
    let document = openapi_document();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            described.insert((method.to_uppercase(), path.clone()));
            assert_ne!(operation["summary"], "", "{method} {path}");
            assert_ne!(
                operation["responses"]["200"]["content"],
                json!({}),
                "{method} {path}"
            );
            let parameters = operation["parameters"].as_array().unwrap();
            let in_path = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path");
            assert_eq!(
                in_path.count(),
                path.matches('{').count(),
                "{method} {path}"
            );
        }
    }
    let routed: BTreeSet<(String, String)> = routes()
        .iter()
        .map(|route| (route.method.to_string(), route.path.to_owned()))
        .collect();
    assert_eq!(routed, described);
    let ids: BTreeSet<String> = described
        .iter()
        .map(|(method, path)| operation(&document, method, path)["operationId"].to_string())
        .collect();
    assert_eq!(ids.len(), described.len(), "each has a name of its own");
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn visit(value: &Value, root: &Value) {
        if let Some(reference) = value.get("$ref") {
            let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
            assert!(root.pointer(pointer).is_some(), "{reference}");
        }
        let children: Vec<&Value> = match value {
            Value::Object(fields) => fields.values().collect(),
            Value::Array(items) => items.iter().collect(),
            _ => Vec::new(),
        };
        children.into_iter().for_each(|child| visit(child, root));
    }
    let document = openapi_document();
    visit(&document, &document);
}

#[tokio::test]
async fn what_the_server_reads_and_answers_is_what_the_document_says() {
    let directory = tempfile::tempdir().unwrap();
    let key = generate_key(&directory.path().join("key")).unwrap();
    let sandbox = Sandbox::new(&fake_forecaster(directory.path()), LIMITS);
    // It says one thing for ever, and so the training runs until it is stopped.
    let training = TrainingOptions {
        trainer: Some("/usr/bin/yes".into()),
        ..TrainingOptions::default()
    };
    let training = Training::new(training.choose(kit::STEP_MS, 1).unwrap());
    let (store, clock) = (Arc::default(), Arc::default());
    let server = TestServer::training(store, clock, sandbox, Some(key), training);
    let document = strict(openapi_document());
    let mut tried = BTreeSet::new();
    let mut check = async |method: &'static str, pattern: &'static str, path: &str, body: Value| {
        let operation = operation(&document, method, pattern);
        let reads = &operation["requestBody"];
        assert_eq!(
            reads.is_null(),
            body.is_null() && reads["required"] != json!(true),
            "{method} {pattern}: {reads}"
        );
        if let Some(schema) = reads["content"]["application/json"].get("schema") {
            assert_eq!(
                faults(&body, schema, &document, ""),
                [""; 0],
                "{method} {path}"
            );
        }
        let bytes = match &body {
            Value::Null => Body::empty(),
            Value::String(file) => Body::from(file.clone()),
            body => Body::from(body.to_string()),
        };
        let (status, answer) = server.request(method, path, ADMIN_TOKEN, bytes).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert!(status.is_success(), "{method} {path}: {answer}");
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(
            faults(&answer, schema, &document, ""),
            [""; 0],
            "{method} {path}: {answer}"
        );
        tried.insert((method, pattern));
        answer
    };
    let nothing = || json!({});
    let policy = || {
        let mut divided = policy();
        divided["sharing"] = json!({});
        divided
    };
    check("GET", "/v1/openapi.json", "/v1/openapi.json", NONE).await;
    check("POST", "/v1/policies/check", "/v1/policies/check", policy()).await;
    check("POST", "/v1/policies", "/v1/policies", policy()).await;
    // A canary that the server judges is compared with a second one.
    Gateway::new("g2", 1).sync(&server).await;
    let mut gateway = Gateway::new("g1", 1);
    for _ in 0..3 {
        gateway.spend("acme", 1);
        gateway.sync(&server).await;
    }
    check(
        "POST",
        "/v1/policies/{version}/activate",
        "/v1/policies/1/activate",
        NONE,
    )
    .await;
    let mut second = policy();
    second["customers"][0]["contract"] = json!("free");
    second["customers"][1]["frozen"] = json!(true);
    check("POST", "/v1/policies", "/v1/policies", second).await;
    check("GET", "/v1/policies", "/v1/policies", NONE).await;
    check(
        "GET",
        "/v1/policies/diff",
        "/v1/policies/diff?from=1&to=active",
        NONE,
    )
    .await;
    check("GET", "/v1/policies/{version}", "/v1/policies/active", NONE).await;
    let candidate = "/v1/policies/candidate";
    check("POST", candidate, candidate, policy()).await;
    for _ in 0..4 {
        gateway.spend("acme", 1);
        gateway.sync(&server).await;
        server.server.plane.count_dry_run();
        server.advance_ms(u64::from(kit::STEP_MS));
    }
    let counted = check("GET", candidate, "/v1/policies/candidate?limit=3", NONE).await;
    assert_ne!(counted["resources"][0]["changes"][0], NONE, "{counted}");
    check("DELETE", candidate, candidate, NONE).await;
    let (first, shared) = ("/v1/policies", "/v1/policies?share=50");
    check("POST", first, shared, policy()).await;
    let listed = check("GET", first, first, NONE).await;
    assert_ne!(listed["rollout"], NONE);
    let roll_back = "/v1/policies/rollback";
    check("POST", roll_back, roll_back, NONE).await;
    check("POST", first, shared, policy()).await;
    check("POST", "/v1/policies/promote", "/v1/policies/promote", NONE).await;
    let credit = json!({"tokens": -1.5, "resource": "requests"});
    check(
        "POST",
        "/v1/customers/{key}/credit",
        "/v1/customers/acme/credit",
        credit,
    )
    .await;
    check(
        "POST",
        "/v1/customers/{key}/reset",
        "/v1/customers/acme/reset",
        nothing(),
    )
    .await;
    let ban = json!({"until_unix_s": 4_000_000_000_u64});
    check(
        "POST",
        "/v1/customers/{key}/ban",
        "/v1/customers/acme/ban",
        ban,
    )
    .await;
    check(
        "POST",
        "/v1/customers/{key}/freeze",
        "/v1/customers/acme/freeze",
        nothing(),
    )
    .await;
    check("GET", "/v1/customers", "/v1/customers?limit=10", NONE).await;
    check("GET", "/v1/customers/{key}", "/v1/customers/acme", NONE).await;
    check(
        "POST",
        "/v1/customers/{key}/unban",
        "/v1/customers/acme/unban",
        nothing(),
    )
    .await;
    check(
        "POST",
        "/v1/customers/{key}/unfreeze",
        "/v1/customers/acme/unfreeze",
        nothing(),
    )
    .await;
    check(
        "POST",
        "/v1/customers/{key}/exempt",
        "/v1/customers/acme/exempt",
        nothing(),
    )
    .await;
    check(
        "POST",
        "/v1/customers/{key}/unexempt",
        "/v1/customers/acme/unexempt",
        nothing(),
    )
    .await;
    let mut digests = Vec::new();
    for model in ["a first one", "a second one"] {
        let model = check("POST", "/v1/models", "/v1/models", json!(model)).await;
        let digest = model["digest"].as_str().unwrap().to_owned();
        let path = format!("/v1/models/{digest}/activate");
        check("POST", "/v1/models/{digest}/activate", &path, nothing()).await;
        digests.push(digest);
    }
    check(
        "POST",
        "/v1/models/rollback",
        "/v1/models/rollback",
        json!({"digest": digests[0]}),
    )
    .await;
    let second = format!("/v1/models/{}", digests[1]);
    check(
        "POST",
        "/v1/models/{digest}/activate",
        &format!("{second}/activate"),
        json!({"share": 10, "promote": "auto"}),
    )
    .await;
    let about = json!({"parent": digests[0], "card": {"data_sha256": digests[0]}});
    for (method, body) in [("PUT", about), ("GET", NONE)] {
        let path = format!("{second}/about");
        check(method, "/v1/models/{digest}/about", &path, body).await;
    }
    check("GET", "/v1/status", "/v1/status", NONE).await;
    check("POST", "/v1/models/promote", "/v1/models/promote", NONE).await;
    check(
        "POST",
        "/v1/models/{digest}/challenge",
        &format!("/v1/models/{}/challenge", digests[0]),
        json!({"promote": "auto"}),
    )
    .await;
    let challenger = "/v1/models/challenger";
    check("GET", challenger, challenger, NONE).await;
    check("GET", "/v1/status", "/v1/status", NONE).await;
    check("GET", "/v1/models", "/v1/models", NONE).await;
    check("POST", "/v1/models/withdraw", "/v1/models/withdraw", NONE).await;
    check("GET", "/v1/models", "/v1/models", NONE).await;
    let series = json!([{"key": "acme", "resource": "requests", "step_ms": kit::STEP_MS, "usage": [1.5, null]}]);
    check(
        "PUT",
        "/v1/history",
        "/v1/history",
        json!({"series": series}),
    )
    .await;
    check("GET", "/v1/history", "/v1/history?key=acme&steps=3", NONE).await;
    check("GET", "/v1/forecasts", "/v1/forecasts?limit=5", NONE).await;
    let run = "/v1/allocations/run";
    check("POST", run, run, NONE).await;
    let few = "/v1/allocations?limit=5";
    check("GET", "/v1/allocations", few, NONE).await;
    check("GET", "/v1/tuning", "/v1/tuning", NONE).await;
    check("GET", "/v1/loans", "/v1/loans?limit=5", NONE).await;
    let few = "/v1/spillover?limit=5";
    check("GET", "/v1/spillover", few, NONE).await;
    let links = "/v1/spillover/links";
    check("GET", links, "/v1/spillover/links?limit=5", NONE).await;
    let statement = "/v1/statements/acme";
    check("GET", "/v1/statements/{key}", statement, NONE).await;
    check("POST", "/v1/training", "/v1/training", nothing()).await;
    check("GET", "/v1/training", "/v1/training", NONE).await;
    check("POST", "/v1/training/stop", "/v1/training/stop", NONE).await;
    check("GET", "/v1/status", "/v1/status", NONE).await;
    check(
        "POST",
        "/v1/gateways/{id}/retire",
        "/v1/gateways/g1/retire",
        NONE,
    )
    .await;
    check("GET", "/v1/alerts", "/v1/alerts", NONE).await;
    check("GET", "/v1/anomalies", "/v1/anomalies", NONE).await;
    check("GET", "/v1/audit", "/v1/audit?after=1&limit=5", NONE).await;
    let routes = routes();
    let in_json = routes.iter().filter(|route| {
        let operation = operation(&document, route.method.as_str(), route.path);
        operation["responses"]["200"]["content"]
            .get("application/json")
            .is_some()
    });
    let in_json: BTreeSet<(&str, &str)> = in_json
        .map(|route| (route.method.as_str(), route.path))
        .collect();
    assert_eq!(
        in_json, tried,
        "each route that answers in JSON is tried here"
    );
    for route in routes
        .iter()
        .filter(|route| route.access.least().is_some() && route.path != "/v1/sync")
    {
        let path = route.path.replace(['{', '}'], "");
        let (status, refusal) = server
            .request(route.method.as_str(), &path, "nobody's", Body::empty())
            .await;
        let refusal: Value = serde_json::from_slice(&refusal).unwrap();
        let operation = operation(&document, route.method.as_str(), route.path);
        let schema = &operation["responses"]["default"]["content"]["application/json"]["schema"];
        assert_eq!(
            faults(&refusal, schema, &document, ""),
            [""; 0],
            "{path} {status}"
        );
        assert!(schema.is_object());
    }
}

#[tokio::test]
async fn every_metric_is_in_the_reference() {
    let server = TestServer::new();
    let (_, text) = server.request("GET", "/metrics", "", Body::empty()).await;
    let text = String::from_utf8(text).unwrap();
    let reference = include_str!("../../docs/reference/metrics.md");
    let names = text.lines().filter_map(|line| line.strip_prefix("# HELP "));
    let names: Vec<&str> = names.filter_map(|line| line.split(' ').next()).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(reference.contains(&format!("`{name}`")), "{name}");
    }
}
