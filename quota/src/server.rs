//! The listener: gRPC, for filters that carry the token.
//!
//! Both services are put together here and not by the generated servers, because those read their own types: see [`crate::asked`].

use crate::asked::{Question, Reports};
use crate::desk::Desk;
use crate::rlqs::{Replies, Rlqs};
use crate::rls::Rls;
use envoy_types::pb::envoy::service::rate_limit_quota::v3::RateLimitQuotaResponse;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitResponse;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderMap};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// Says whether a request's headers carry the token of filters.
pub type Authorize = Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>;

/// Largest question that is read: sixteen descriptors, each with all of the headers that Envoy takes.
const MAX_QUESTION_BYTES: usize = 2 << 20;

/// Largest report that is read: all buckets of an Envoy, named by headers of any length.
const MAX_REPORT_BYTES: usize = 64 << 20;

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
    let rls = RlsServer(Rls::new(Arc::clone(&desk)));
    let rlqs = RlqsServer(Rlqs::new(desk, stopped.clone()));
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
                "the token of filters is missing or wrong: set it as initial_metadata of the grpc_service, key authorization, value `Bearer TOKEN`",
            ))
        }
    }
}

#[derive(Clone)]
struct RlsServer(Rls);

#[derive(Clone)]
struct RlqsServer(Rlqs);

impl NamedService for RlsServer {
    const NAME: &'static str = "envoy.service.ratelimit.v3.RateLimitService";
}

impl NamedService for RlqsServer {
    const NAME: &'static str = "envoy.service.rate_limit_quota.v3.RateLimitQuotaService";
}

impl UnaryService<Question> for RlsServer {
    type Response = RateLimitResponse;
    type Future = Ready<Result<Response<RateLimitResponse>, Status>>;

    fn call(&mut self, request: Request<Question>) -> Self::Future {
        ready(self.0.answer(request.get_ref()).map(Response::new))
    }
}

impl StreamingService<Reports> for RlqsServer {
    type Response = RateLimitQuotaResponse;
    type ResponseStream = Replies;
    type Future = Ready<Result<Response<Replies>, Status>>;

    fn call(&mut self, request: Request<Streaming<Reports>>) -> Self::Future {
        ready(Ok(Response::new(self.0.serve(request.into_inner()))))
    }
}

impl Service<http::Request<Body>> for RlsServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        let codec = ProstCodec::<RateLimitResponse, Question>::default();
        let mut grpc =
            Grpc::new(codec).apply_max_message_size_config(Some(MAX_QUESTION_BYTES), None);
        Box::pin(async move {
            Ok(match method(&request) {
                "ShouldRateLimit" => grpc.unary(service, request).await,
                _ => unknown_method(),
            })
        })
    }
}

impl Service<http::Request<Body>> for RlqsServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        let codec = ProstCodec::<RateLimitQuotaResponse, Reports>::default();
        let mut grpc = Grpc::new(codec).apply_max_message_size_config(Some(MAX_REPORT_BYTES), None);
        Box::pin(async move {
            Ok(match method(&request) {
                "StreamRateLimitQuotas" => grpc.streaming(service, request).await,
                _ => unknown_method(),
            })
        })
    }
}

fn method(request: &http::Request<Body>) -> &str {
    let path = request.uri().path();
    path.rsplit_once('/').map_or(path, |(_, method)| method)
}

fn unknown_method() -> http::Response<Body> {
    Status::unimplemented("the service has no such method").into_http()
}
