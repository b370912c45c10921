//! The listener: gRPC, for gateways that carry the token.

use crate::desk::Desk;
use crate::rlqs::Rlqs;
use crate::rls::Rls;
use envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_service_server::RateLimitQuotaServiceServer;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::codegen::http::HeaderMap;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Status};

/// Says whether a request's headers carry the token of a gateway.
pub type Authorize = Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>;

/// Largest question that is read. A descriptor is a few names.
const MAX_QUESTION_BYTES: usize = 256 << 10;

/// Largest report that is read: all buckets of an Envoy.
const MAX_REPORT_BYTES: usize = 4 << 20;

/// Requests under way on one connection.
const MAX_STREAMS: u32 = 1_024;

/// A connection that says nothing for so long is asked whether it is there, and has as long to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Serves until `stopped`.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    desk: Arc<Mutex<Desk>>,
    authorize: Authorize,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let rls = RateLimitServiceServer::new(Rls::new(Arc::clone(&desk)))
        .max_decoding_message_size(MAX_QUESTION_BYTES);
    let rlqs = RateLimitQuotaServiceServer::new(Rlqs::new(desk, stopped.clone()))
        .max_decoding_message_size(MAX_REPORT_BYTES);
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(InterceptedService::new(rls, guard(Arc::clone(&authorize))))
        .add_service(InterceptedService::new(rlqs, guard(authorize)))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), async move {
            drop(stopped.wait_for(|stop| *stop).await);
        })
        .await
}

fn guard(
    authorize: Authorize,
) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone + Send + Sync + 'static {
    move |request| {
        if authorize(request.metadata().as_ref()) {
            Ok(request)
        } else {
            Err(Status::unauthenticated(
                "the token of gateways is missing or wrong: set it as initial_metadata of the grpc_service, key authorization, value `Bearer TOKEN`",
            ))
        }
    }
}
