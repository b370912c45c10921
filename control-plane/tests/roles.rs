//! Who may take which route: the whole truth table, with real requests.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::{Method, StatusCode};
use forebay_control_plane::api::routes;
use forebay_control_plane::auth::{Access, Role, Secrets, TokenError, Tokens};
use kit::{ADMIN_TOKEN, GATEWAY_TOKEN, OPERATOR_TOKEN, SENDER_TOKEN, TestServer, VIEWER_TOKEN};
use serde_json::Value;
use std::collections::BTreeSet;

/// Method, path, and which of sender, gateway, viewer, operator and admin may take it.
const TABLE: [(&str, &str, [bool; 5]); 56] = [
    ("GET", "/healthz", ALL),
    ("GET", "/readyz", ALL),
    ("GET", "/metrics", ALL),
    ("POST", "/v1/sync", GATEWAY),
    ("POST", "/api/v1/write", SENDER),
    ("GET", "/v1/openapi.json", VIEWER),
    ("GET", "/v1/status", VIEWER),
    ("GET", "/v1/alerts", VIEWER),
    ("GET", "/v1/audit", VIEWER),
    ("GET", "/v1/policies", VIEWER),
    ("POST", "/v1/policies", ADMIN),
    ("POST", "/v1/policies/candidate", OPERATOR),
    ("GET", "/v1/policies/candidate", VIEWER),
    ("DELETE", "/v1/policies/candidate", OPERATOR),
    ("POST", "/v1/policies/promote", ADMIN),
    ("POST", "/v1/policies/rollback", OPERATOR),
    ("POST", "/v1/policies/check", OPERATOR),
    ("GET", "/v1/policies/diff", VIEWER),
    ("GET", "/v1/policies/{version}", VIEWER),
    ("POST", "/v1/policies/{version}/activate", OPERATOR),
    ("GET", "/v1/customers", VIEWER),
    ("GET", "/v1/customers/{key}", VIEWER),
    ("POST", "/v1/customers/{key}/credit", OPERATOR),
    ("POST", "/v1/customers/{key}/reset", OPERATOR),
    ("POST", "/v1/customers/{key}/ban", OPERATOR),
    ("POST", "/v1/customers/{key}/unban", OPERATOR),
    ("POST", "/v1/customers/{key}/freeze", OPERATOR),
    ("POST", "/v1/customers/{key}/unfreeze", OPERATOR),
    ("POST", "/v1/customers/{key}/exempt", OPERATOR),
    ("POST", "/v1/customers/{key}/unexempt", OPERATOR),
    ("GET", "/v1/models", VIEWER),
    ("POST", "/v1/models", ADMIN),
    ("GET", "/v1/models/{digest}", ALL_BUT_SENDERS),
    ("POST", "/v1/models/{digest}/activate", ADMIN),
    ("GET", "/v1/models/{digest}/about", VIEWER),
    ("PUT", "/v1/models/{digest}/about", ADMIN),
    ("POST", "/v1/models/promote", ADMIN),
    ("POST", "/v1/models/{digest}/challenge", ADMIN),
    ("GET", "/v1/models/challenger", VIEWER),
    ("POST", "/v1/models/withdraw", ADMIN),
    ("GET", "/v1/training", VIEWER),
    ("POST", "/v1/training", ADMIN),
    ("POST", "/v1/training/stop", ADMIN),
    ("POST", "/v1/models/rollback", ADMIN),
    ("GET", "/v1/forecasts", VIEWER),
    ("GET", "/v1/allocations", VIEWER),
    ("POST", "/v1/allocations/run", OPERATOR),
    ("GET", "/v1/tuning", VIEWER),
    ("GET", "/v1/anomalies", VIEWER),
    ("GET", "/v1/spillover", VIEWER),
    ("GET", "/v1/spillover/links", VIEWER),
    ("GET", "/v1/loans", VIEWER),
    ("GET", "/v1/statements/{key}", VIEWER),
    ("GET", "/v1/history", VIEWER),
    ("PUT", "/v1/history", ADMIN),
    ("POST", "/v1/gateways/{id}/retire", OPERATOR),
];

const ALL: [bool; 5] = [true; 5];
const ALL_BUT_SENDERS: [bool; 5] = [false, true, true, true, true];
const SENDER: [bool; 5] = [true, false, false, false, false];
const GATEWAY: [bool; 5] = [false, true, false, false, false];
const VIEWER: [bool; 5] = [false, false, true, true, true];
const OPERATOR: [bool; 5] = [false, false, false, true, true];
const ADMIN: [bool; 5] = [false, false, false, false, true];

const TOKENS: [&str; 5] = [
    SENDER_TOKEN,
    GATEWAY_TOKEN,
    VIEWER_TOKEN,
    OPERATOR_TOKEN,
    ADMIN_TOKEN,
];

/// Routes that need no token at all.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

#[test]
fn every_route_is_in_the_truth_table_and_nothing_else() {
    let routes = routes();
    let of_router: BTreeSet<(&str, &str)> = routes
        .iter()
        .map(|route| (route.method.as_str(), route.path))
        .collect();
    let of_table: BTreeSet<(&str, &str)> = TABLE
        .iter()
        .map(|(method, path, _)| (*method, *path))
        .collect();
    assert_eq!(of_router, of_table);
    assert_eq!(routes.len(), TABLE.len());
}

#[tokio::test]
async fn each_route_lets_exactly_the_roles_of_the_truth_table_through() {
    let server = TestServer::new();
    for (method, pattern, allowed) in TABLE {
        let path = pattern
            .replace("{version}", "1")
            .replace("{digest}", &"0".repeat(64))
            .replace("{key}", "acme")
            .replace("{id}", "g1");
        for (token, allowed) in TOKENS.into_iter().zip(allowed) {
            let (status, body) = server.request(method, &path, token, Body::empty()).await;
            let is_through = !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            let said = String::from_utf8_lossy(&body).into_owned();
            assert_eq!(
                is_through, allowed,
                "{method} {path} {token}: {status} {said}"
            );
        }
        let (status, _) = server
            .request(method, &path, "nobody's", Body::empty())
            .await;
        let is_open = OPEN.contains(&pattern);
        assert_eq!(
            status != StatusCode::FORBIDDEN,
            is_open,
            "{method} {path}: {status}"
        );
    }
}

#[tokio::test]
async fn a_viewer_takes_no_route_that_changes_anything() {
    let changes = routes()
        .into_iter()
        .filter(|route| route.method != Method::GET);
    for route in changes {
        assert!(!route.access.admits(Role::Viewer), "{route:?}");
    }
}

#[tokio::test]
async fn a_role_that_is_too_small_is_told_which_is_needed() {
    let server = TestServer::new();
    for (path, token, code, says) in [
        ("/v1/policies", VIEWER_TOKEN, "role_too_small", "admin"),
        ("/v1/policies", OPERATOR_TOKEN, "role_too_small", "admin"),
        (
            "/v1/customers/acme/freeze",
            VIEWER_TOKEN,
            "role_too_small",
            "operator",
        ),
        (
            "/v1/customers/acme/freeze",
            GATEWAY_TOKEN,
            "wrong_token",
            "operator",
        ),
        ("/v1/policies", "nobody's", "wrong_token", "admin"),
        ("/v1/sync", ADMIN_TOKEN, "wrong_token", "gateway"),
        ("/v1/sync", SENDER_TOKEN, "wrong_token", "gateway"),
        ("/v1/policies", SENDER_TOKEN, "wrong_token", "admin"),
        ("/api/v1/write", ADMIN_TOKEN, "wrong_token", "sender"),
        ("/api/v1/write", GATEWAY_TOKEN, "wrong_token", "sender"),
    ] {
        let (status, body) = server.request("POST", path, token, Body::empty()).await;
        let error: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (status.as_u16(), &error["code"]),
            (403, &Value::from(code)),
            "{path} {token}"
        );
        let said = format!("{} {}", error["message"], error["hint"]);
        let variable = format!("FOREBAY_{}_TOKEN", says.to_uppercase());
        assert!(
            said.contains(says) && said.contains(&variable),
            "{path} {token}: {said}"
        );
    }
}

const GOOD: Secrets<'static> = Secrets {
    sender: Some("the-token-of-senders"),
    gateway: Some("the-token-of-gateways"),
    viewer: Some("the-token-of-viewers"),
    operator: Some("the-token-of-operators"),
    admin: "the-token-of-admins",
};

fn of(role: Role) -> &'static str {
    match role {
        Role::Sender => GOOD.sender.unwrap(),
        Role::Gateway => GOOD.gateway.unwrap(),
        Role::Viewer => GOOD.viewer.unwrap(),
        Role::Operator => GOOD.operator.unwrap(),
        Role::Admin => GOOD.admin,
    }
}

/// The good tokens, but for one.
fn with(role: Role, token: &'static str) -> Secrets<'static> {
    match role {
        Role::Sender => Secrets {
            sender: Some(token),
            ..GOOD
        },
        Role::Gateway => Secrets {
            gateway: Some(token),
            ..GOOD
        },
        Role::Viewer => Secrets {
            viewer: Some(token),
            ..GOOD
        },
        Role::Operator => Secrets {
            operator: Some(token),
            ..GOOD
        },
        Role::Admin => Secrets {
            admin: token,
            ..GOOD
        },
    }
}

#[test]
fn a_token_that_can_be_guessed_or_that_no_client_could_send_is_refused_at_the_start() {
    for role in Role::ALL {
        for bad in [
            "0123456789abcdef\n",
            "0123456789 abcdef",
            "0123456789abcdefé",
        ] {
            let unsendable = TokenError::Unsendable(role.variable());
            assert_eq!(
                Tokens::new(with(role, bad)).err(),
                Some(unsendable),
                "{bad:?}"
            );
        }
        for short in ["", "0123456789abcde"] {
            let refused = Tokens::new(with(role, short)).err();
            assert_eq!(refused, Some(TokenError::Short(role.variable())));
        }
    }
}

#[test]
fn two_roles_with_one_token_are_refused_at_the_start() {
    for (position, role) in Role::ALL.into_iter().enumerate() {
        for other in Role::ALL.into_iter().skip(position + 1) {
            let same = with(other, of(role));
            let refused = Tokens::new(same).err();
            assert_eq!(
                refused,
                Some(TokenError::Same(role.variable(), other.variable()))
            );
        }
    }
}

#[test]
fn a_role_that_has_no_token_is_nobodys() {
    let tokens = Tokens::new(Secrets {
        viewer: None,
        operator: None,
        ..GOOD
    })
    .unwrap();
    for role in Role::ALL {
        let bearer = format!("Bearer {}", of(role));
        let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer.parse().unwrap())]);
        let is_known = tokens
            .require(&headers, None, Access::AtLeast(Role::Gateway))
            .is_ok();
        assert_eq!(
            is_known,
            matches!(role, Role::Gateway | Role::Admin),
            "{role:?}"
        );
    }
}
