//! The routes: method, path, who may take it, what answers, and what the OpenAPI document says of it, in one table.
//!
//! The router is built from the table, so there is no route without a role and none that is not in the document. Roles beside the router, looked up by path, were
//! the worse alternative: a route that is forgotten there is open to everybody, or to nobody.

use super::openapi::{self, Description};
use super::{
    Server, Shared, alerts, allocations, anomalies, audit, covariates, customers, forecasts,
    gateways, history, metrics, models, policies, spillover, sync, training,
};
use crate::allocation::{
    AllocationsQuery, AllocationsView, CycleView, LoansQuery, LoansView, StatementView, TuningView,
};
use crate::anomaly::{AnomaliesQuery, AnomaliesView};
use crate::auth::{Access, Role};
use crate::dry_run::{DryRunQuery, DryRunView};
use crate::forecasts::{ForecastsQuery, ForecastsView};
use crate::plane::{
    AlertsView, AuditPage, ChallengerView, CustomerView, ModelView, Release, SeriesView,
    StatusView, VersionInfo,
};
use crate::risk::{LinksQuery, LinksView, SpilloverQuery, SpilloverView};
use crate::training::TrainingView;
use axum::Json;
use axum::extract::State;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{self, MethodRouter};
use forebay_wire::policy::PolicyDocument;
use forebay_wire::sync::CONTENT_TYPE;
use std::sync::Arc;

/// Media type of model files.
const BYTES: &str = "application/octet-stream";

/// Where senders of remote write look for it.
const REMOTE_WRITE: &str = "/api/v1/write";

/// A route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, with `{parameters}`.
    pub path: &'static str,
    /// Who may take it.
    pub access: Access,
    /// What answers.
    pub(super) handler: MethodRouter<Arc<Server>>,
    /// What it is for, for the OpenAPI document.
    pub(super) description: Description,
}

/// All routes.
#[must_use]
pub fn routes() -> Vec<Route> {
    use Role::{Admin, Operator, Viewer};
    let at_least = Access::AtLeast;
    vec![
        get("/healthz", Access::Open, async || "ok\n")
            .says("Whether the server answers")
            .answers_bytes("text/plain"),
        get("/readyz", Access::Open, async || "ok\n")
            .says("Whether the server answers by itself: a replica that stands by says 503")
            .answers_bytes("text/plain"),
        get("/metrics", Access::Open, metrics::metrics)
            .says("Metrics in Prometheus' text format: aggregates only")
            .answers_bytes("text/plain"),
        post("/v1/sync", Access::GatewayOnly, sync::sync)
            .says("A gateway's sync: messages SyncRequest and SyncReply of wire/sync.proto")
            .takes_bytes(CONTENT_TYPE)
            .answers_bytes(CONTENT_TYPE),
        post(REMOTE_WRITE, Access::SenderOnly, covariates::write)
            .says("Takes covariates of customers: Prometheus' remote write 1.0, as one block of Snappy")
            .takes_bytes(CONTENT_TYPE)
            .answers_bytes("text/plain"),
        get("/v1/openapi.json", at_least(Viewer), openapi::openapi)
            .says("This document")
            .answers_any_json(),
        get("/v1/status", at_least(Viewer), status)
            .says("The control plane at a glance")
            .answers::<StatusView>(),
        get("/v1/alerts", at_least(Viewer), alerts::list)
            .says("Alerts about forecasts and models: pending, firing, and resolved lately")
            .answers::<AlertsView>(),
        get("/v1/audit", at_least(Viewer), audit::list)
            .says("Who has changed what, oldest first")
            .queries::<audit::Page>()
            .answers::<AuditPage>(),
        get("/v1/policies", at_least(Viewer), policies::list)
            .says("Policy versions, newest first")
            .answers::<policies::Versions>(),
        post("/v1/policies", at_least(Admin), policies::apply)
            .says("Puts a policy in force, for all customers or a share of them")
            .queries::<policies::For>()
            .takes_policy()
            .answers::<VersionInfo>(),
        post("/v1/policies/promote", at_least(Admin), policies::promote)
            .says("Gives the policy that has a share to all customers")
            .answers::<VersionInfo>(),
        post("/v1/policies/rollback", at_least(Operator), policies::roll_back)
            .says("Takes the policy that has a share back")
            .answers::<VersionInfo>(),
        // It has no effect, as a check has none.
        post(
            "/v1/policies/candidate",
            at_least(Operator),
            policies::try_candidate,
        )
        .says("Counts beside the policy in force what another would admit and deny; nothing is enforced")
        .takes_policy()
        .answers::<DryRunView>(),
        get(
            "/v1/policies/candidate",
            at_least(Viewer),
            policies::show_candidate,
        )
        .says("What the candidate would have admitted and denied, against the policy in force")
        .queries::<DryRunQuery>()
        .answers::<DryRunView>(),
        delete(
            "/v1/policies/candidate",
            at_least(Operator),
            policies::end_candidate,
        )
        .says("Ends the counting, and says how it stood")
        .answers::<DryRunView>(),
        post("/v1/policies/check", at_least(Operator), policies::check)
            .says("Checks a policy and keeps nothing")
            .takes_policy()
            .answers::<policies::Checked>(),
        get("/v1/policies/diff", at_least(Viewer), policies::compare)
            .says("What one policy version changes against another")
            .queries::<policies::FromTo>()
            .answers::<policies::Compared>(),
        get(
            "/v1/policies/{version}",
            at_least(Viewer),
            policies::document,
        )
        .says("The document of a policy version")
        .answers::<PolicyDocument>(),
        // What is restored was in force before: somebody with a larger role has decided it.
        post(
            "/v1/policies/{version}/activate",
            at_least(Operator),
            policies::activate,
        )
        .says("Puts the document of an older version in force again, as a new version")
        .answers::<VersionInfo>(),
        get("/v1/customers", at_least(Viewer), customers::list)
            .says("Customers of the policy and those that were seen, by hash")
            .queries::<customers::Page>()
            .answers::<customers::Customers>(),
        get("/v1/customers/{key}", at_least(Viewer), customers::show)
            .says("Contract, ban, buckets, counters and forecast of a customer")
            .answers::<CustomerView>(),
        post(
            "/v1/customers/{key}/credit",
            at_least(Operator),
            customers::credit,
        )
        .says("Gives tokens; a negative number takes them")
        .takes::<customers::Credit>()
        .answers::<CustomerView>(),
        post(
            "/v1/customers/{key}/reset",
            at_least(Operator),
            customers::reset,
        )
        .says("Fills all buckets and forgives debts")
        .takes::<customers::Nothing>()
        .answers::<CustomerView>(),
        post(
            "/v1/customers/{key}/ban",
            at_least(Operator),
            customers::ban,
        )
        .says("Denies everything with the reason `banned`")
        .takes::<customers::Ban>()
        .answers::<CustomerView>(),
        post(
            "/v1/customers/{key}/unban",
            at_least(Operator),
            customers::unban,
        )
        .says("Ends a ban, the policy's as well")
        .takes::<customers::Nothing>()
        .answers::<CustomerView>(),
        post(
            "/v1/customers/{key}/freeze",
            at_least(Operator),
            customers::freeze,
        )
        .says("Denies everything and keeps the buckets as they are")
        .takes::<customers::Nothing>()
        .answers::<CustomerView>(),
        post(
            "/v1/customers/{key}/unfreeze",
            at_least(Operator),
            customers::unfreeze,
        )
        .says("Ends a freeze, the policy's as well")
        .takes::<customers::Nothing>()
        .answers::<CustomerView>(),
        post(
            "/v1/customers/{key}/exempt",
            at_least(Operator),
            customers::exempt,
        )
        .says("Admits everything and counts it, unless the customer is banned or frozen")
        .takes::<customers::Nothing>()
        .answers::<CustomerView>(),
        post(
            "/v1/customers/{key}/unexempt",
            at_least(Operator),
            customers::unexempt,
        )
        .says("Ends an exemption, the policy's as well")
        .takes::<customers::Nothing>()
        .answers::<CustomerView>(),
        get("/v1/models", at_least(Viewer), models::list)
            .says("The registry of models, newest first")
            .answers::<models::Models>(),
        post("/v1/models", at_least(Admin), models::upload)
            .says("Lets the sandbox judge an ONNX file, and keeps it if it passes")
            .takes_bytes(BYTES)
            .answers::<ModelView>(),
        // Gateways fetch what they are told to run.
        get("/v1/models/{digest}", at_least(Role::Gateway), models::file)
            .says("The file of a model")
            .answers_bytes(BYTES),
        post(
            "/v1/models/{digest}/activate",
            at_least(Admin),
            models::activate,
        )
        .says("Releases a model, everywhere or at a share of the gateways; without a signature the server signs")
        .takes::<models::Activate>()
        .answers::<Release>(),
        get("/v1/models/{digest}/about", at_least(Viewer), models::about)
            .says("What is known of a model")
            .answers::<ModelView>(),
        put("/v1/models/{digest}/about", at_least(Admin), models::describe)
            .says("Keeps where a model comes from: its card, the model before it, its data")
            .takes::<models::Described>()
            .answers::<ModelView>(),
        post("/v1/models/promote", at_least(Admin), models::promote)
            .says("Lets the canary run at all gateways")
            .answers::<Release>(),
        post(
            "/v1/models/{digest}/challenge",
            at_least(Admin),
            models::challenge,
        )
        .says("Lets gateways run a model beside the one in force, without effect, and compares them; without a signature the server signs")
        .takes::<models::Challenge>()
        .answers::<ChallengerView>(),
        get("/v1/models/challenger", at_least(Viewer), models::challenger)
            .says("The model that is compared with the one in force, and how it fares")
            .answers::<ChallengerView>(),
        post("/v1/models/withdraw", at_least(Admin), models::withdraw)
            .says("Ends the comparison")
            .answers::<ChallengerView>(),
        get("/v1/training", at_least(Viewer), training::show)
            .says("The training that runs, when the next one begins, and what has come of those before")
            .answers::<TrainingView>(),
        post("/v1/training", at_least(Admin), training::begin)
            .says("Begins to train a model on the usage history")
            .takes::<training::Train>()
            .answers::<TrainingView>(),
        post("/v1/training/stop", at_least(Admin), training::stop)
            .says("Ends the training that runs")
            .answers::<TrainingView>(),
        post("/v1/models/rollback", at_least(Admin), models::roll_back)
            .says("Releases an older model again, as a signed roll-back with a higher epoch; while a canary runs, the model before it")
            .takes::<models::RollBack>()
            .answers::<Release>(),
        get("/v1/forecasts", at_least(Viewer), forecasts::list)
            .says("What customers and groups of customers will ask for, from five minutes to a week ahead")
            .queries::<ForecastsQuery>()
            .answers::<ForecastsView>(),
        get("/v1/allocations", at_least(Viewer), allocations::list)
            .says("Who has a claim on how much of the pools, and the cycle that has divided them")
            .queries::<AllocationsQuery>()
            .answers::<AllocationsView>(),
        get("/v1/spillover", at_least(Viewer), spillover::list)
            .says("Whose spike would leave whom short, by how much, how surely and why, and the headroom that follows")
            .queries::<SpilloverQuery>()
            .answers::<SpilloverView>(),
        get("/v1/spillover/links", at_least(Viewer), spillover::links)
            .says("Who rises with whom in the usage history, and matrices of correlations")
            .queries::<LinksQuery>()
            .answers::<LinksView>(),
        post("/v1/allocations/run", at_least(Operator), allocations::run)
            .says("Divides the pools anew, at once")
            .answers::<CycleView>(),
        get("/v1/tuning", at_least(Viewer), allocations::tuning)
            .says("Which other values of the allocation's knobs are tried, what came of them, and why none is at this moment")
            .answers::<TuningView>(),
        get("/v1/anomalies", at_least(Viewer), anomalies::list)
            .says("Customers that behave as they never did: since when, what speaks for it, and what follows")
            .queries::<AnomaliesQuery>()
            .answers::<AnomaliesView>(),
        get("/v1/loans", at_least(Viewer), allocations::loans)
            .says("What of guarantees is lent, who has it, and why")
            .queries::<LoansQuery>()
            .answers::<LoansView>(),
        get("/v1/statements/{key}", at_least(Viewer), allocations::statement)
            .says("What a customer has lent and borrowed in a calendar month")
            .queries::<allocations::Period>()
            .answers::<StatementView>(),
        get("/v1/history", at_least(Viewer), history::export)
            .says("Usage of a customer per step, or a covariate, oldest first")
            .queries::<history::Wanted>()
            .answers::<SeriesView>(),
        put("/v1/history", at_least(Admin), history::import)
            .says("Imports usage per step")
            .takes::<history::Import>()
            .answers::<history::Imported>(),
        post(
            "/v1/gateways/{id}/retire",
            at_least(Operator),
            gateways::retire,
        )
        .says("Takes back at once what a gateway holds that is surely gone")
        .answers::<StatusView>(),
    ]
}

async fn status(State(server): Shared) -> Json<StatusView> {
    Json(server.plane.status())
}

fn get<H: Handler<T, Arc<Server>>, T: 'static>(
    path: &'static str,
    access: Access,
    handler: H,
) -> Route {
    let (method, handler) = (Method::GET, routing::get(handler));
    Route {
        method,
        path,
        access,
        handler,
        description: Description::default(),
    }
}

fn post<H: Handler<T, Arc<Server>>, T: 'static>(
    path: &'static str,
    access: Access,
    handler: H,
) -> Route {
    let (method, handler) = (Method::POST, routing::post(handler));
    Route {
        method,
        path,
        access,
        handler,
        description: Description::default(),
    }
}

fn delete<H: Handler<T, Arc<Server>>, T: 'static>(
    path: &'static str,
    access: Access,
    handler: H,
) -> Route {
    let (method, handler) = (Method::DELETE, routing::delete(handler));
    Route {
        method,
        path,
        access,
        handler,
        description: Description::default(),
    }
}

fn put<H: Handler<T, Arc<Server>>, T: 'static>(
    path: &'static str,
    access: Access,
    handler: H,
) -> Route {
    let (method, handler) = (Method::PUT, routing::put(handler));
    Route {
        method,
        path,
        access,
        handler,
        description: Description::default(),
    }
}
