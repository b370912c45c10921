//! `forebay serve`: from options to a running server, and down again without losing anything.

use crate::alertmanager::{Notifier, Pace};
use crate::api::{Server, Throttle, router};
use crate::auth::{FilterToken, Secrets, TokenError, Tokens};
use crate::connections;
use crate::covariates::{Chosen, CovariateOptions, CovariateOptionsError};
use crate::exposure;
use crate::history::MAX_STEPS;
use crate::keys::{BadSecret, Keys};
use crate::models::{KeyError, Sandbox, SandboxLimits, SigningKeyFile, from_hex};
use crate::plane::{Clock, Plane, Settings, StartError};
use crate::prometheus::{BadEndpoint, Endpoint, RemoteWrite};
use crate::quota::QuotaFront;
use crate::replica::{self, Assemble, Campaign, Role, lead_or_follow};
use crate::store::{EmbeddedStore, RedisUrl, Store, StoreError};
use crate::tls::{Tls, TlsError, TlsOptions};
use crate::training::{Training, TrainingOptions, TrainingOptionsError};
use axum::Router;
use clap::Args;
use forebay_quota::{GatewayError, GatewayOptions};
use forebay_wire::key::{PREVIOUS_SECRET_ENV, SECRET_ENV};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

/// The name of the gateway behind Envoy's own filters.
const QUOTA_ID: &str = "quota";

/// Assignments to Envoys are in whole seconds and end before the lease that they are made from.
const LEAST_LEASE_OF_FILTERS_MS: u32 = 4_000;

/// How long requests that are under way may take to end when the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Options of `forebay serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeOptions {
    /// Address to listen on. Without --tls-cert: bind to the loopback, or put a proxy in front
    #[arg(long, default_value = "127.0.0.1:7430")]
    pub listen: SocketAddr,
    /// Address for Envoy's own rate limit filters (gRPC); without it they are not served
    #[arg(long, requires = "filter_token")]
    pub grpc_listen: Option<SocketAddr>,
    /// Token of Envoy's own filters, which opens nothing else: it stands in their configuration
    #[arg(long, env = "FOREBAY_FILTER_TOKEN", hide_env_values = true)]
    pub filter_token: Option<String>,
    /// Directory of the embedded store, for one `forebay serve`; made if missing
    #[arg(long, required_unless_present = "store", conflicts_with = "store")]
    pub data: Option<PathBuf>,
    /// Redis as the store, for several replicas: URLs of one node or of some nodes of a cluster, with commas between them
    #[arg(
        long,
        env = "FOREBAY_STORE",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub store: Vec<RedisUrl>,
    /// Where other replicas reach this one, HOST:PORT; the address of --listen by default
    #[arg(long, requires = "store", value_parser = host_and_port)]
    pub advertise: Option<String>,
    /// TLS.
    #[command(flatten)]
    pub tls: TlsOptions,
    /// Training.
    #[command(flatten)]
    pub training: TrainingOptions,
    /// Covariates.
    #[command(flatten)]
    pub covariates: CovariateOptions,
    /// Token of senders of Prometheus' remote write (POST /api/v1/write), for --covariate; it opens nothing else
    #[arg(long, env = "FOREBAY_SENDER_TOKEN", hide_env_values = true)]
    pub sender_token: Option<String>,
    /// Token of gateways (POST /v1/sync). Without it they need certificates
    #[arg(
        long,
        env = "FOREBAY_GATEWAY_TOKEN",
        hide_env_values = true,
        required_unless_present = "tls_gateway_name"
    )]
    pub gateway_token: Option<String>,
    /// Token of the role viewer, which looks and changes nothing; without it nobody has that role
    #[arg(long, env = "FOREBAY_VIEWER_TOKEN", hide_env_values = true)]
    pub viewer_token: Option<String>,
    /// Token of the role operator, for customers, gateways and policies that were in force; without it nobody has that role
    #[arg(long, env = "FOREBAY_OPERATOR_TOKEN", hide_env_values = true)]
    pub operator_token: Option<String>,
    /// Token of the role admin (everything)
    #[arg(long, env = "FOREBAY_ADMIN_TOKEN", hide_env_values = true)]
    pub admin_token: String,
    /// Secret under which customer keys are hashed: 32 hexadecimal digits, the same as at the gateways
    #[arg(long, env = SECRET_ENV, hide_env_values = true)]
    pub key_hash_secret: Option<String>,
    /// The secret before a rotation, for gateways that still use it
    #[arg(long, env = PREVIOUS_SECRET_ENV, hide_env_values = true)]
    pub previous_key_hash_secret: Option<String>,
    /// How long granted rates hold without a sync
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(500..=600_000))]
    pub lease_ttl_ms: u32,
    /// How long fallback rates hold after that
    #[arg(long, default_value_t = 600_000, value_parser = clap::value_parser!(u32).range(0..=86_400_000))]
    pub fallback_ttl_ms: u32,
    /// When gateways are told to sync
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(50..=10_000))]
    pub sync_interval_ms: u32,
    /// Syncs of one gateway that are answered in a second; twice as many at once. A gateway sends 20 at most
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_syncs_per_s: u32,
    /// Length of a step of usage history
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(50..=86_400_000))]
    pub step_ms: u32,
    /// Steps of usage history that are kept per customer and resource
    #[arg(long, default_value_t = 4_032, value_parser = clap::value_parser!(u64).range(1..=MAX_STEPS))]
    pub history_steps: u64,
    /// URL to which the usage of each finished step is sent by Prometheus' remote write, like http://host:9090/api/v1/write
    #[arg(
        long,
        value_name = "URL",
        env = "FOREBAY_REMOTE_WRITE",
        hide_env_values = true
    )]
    pub remote_write: Option<String>,
    /// Token to show there (Authorization: Bearer), if the URL has no user and password
    #[arg(
        long,
        value_name = "TOKEN",
        env = "FOREBAY_REMOTE_WRITE_TOKEN",
        hide_env_values = true,
        requires = "remote_write"
    )]
    pub remote_write_token: Option<String>,
    /// URLs of Alertmanagers that alerts about forecasts and models are sent to, like http://host:9093, with commas between them
    #[arg(
        long,
        value_name = "URL",
        env = "FOREBAY_ALERTMANAGER",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub alertmanager: Vec<String>,
    /// Token to show there (Authorization: Bearer), if the URLs have no user and password
    #[arg(
        long,
        value_name = "TOKEN",
        env = "FOREBAY_ALERTMANAGER_TOKEN",
        hide_env_values = true,
        requires = "alertmanager"
    )]
    pub alertmanager_token: Option<String>,
    /// Accounts of customers outside the policy
    #[arg(long, default_value_t = 100_000)]
    pub max_other_customers: usize,
    /// Records of the audit log that are kept
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub audit_keep: u32,
    /// forecaster.wasm, which judges models; beside this program by default
    #[arg(long)]
    pub forecaster_wasm: Option<PathBuf>,
    /// File with the key that releases are signed with. Without it bring signatures made elsewhere
    #[arg(long)]
    pub model_signing_key: Option<PathBuf>,
    /// Public key (64 hexadecimal digits) that signatures brought from elsewhere must fit
    #[arg(long)]
    pub model_public_key: Option<String>,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The tokens cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A secret cannot be used.
    #[error(transparent)]
    Secret(#[from] BadSecret),
    /// A signing key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The public key is not one.
    #[error("--model-public-key is not 64 hexadecimal digits: `forebay model keygen` prints it")]
    PublicKey,
    /// Usage cannot be sent where the options say.
    #[error("--remote-write: {0}")]
    RemoteWrite(#[from] BadEndpoint),
    /// Only a host is named.
    #[error(
        "--remote-write {0} has no path: Prometheus takes remote write at /api/v1/write, and so does VictoriaMetrics"
    )]
    RemoteWritePath(String),
    /// Alerts cannot be sent where the options say.
    #[error("--alertmanager: {0}")]
    Alertmanager(BadEndpoint),
    /// TLS cannot be spoken.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nothing can be trained.
    #[error(transparent)]
    Training(#[from] TrainingOptionsError),
    /// Covariates cannot be kept.
    #[error(transparent)]
    Covariates(#[from] CovariateOptionsError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state cannot be loaded.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {reason}; choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        reason: std::io::Error,
    },
    /// Nobody can reach it where it says it is.
    #[error(
        "--listen {0} is no address at which other replicas could reach this one: say it with --advertise HOST:PORT"
    )]
    Advertise(SocketAddr),
    /// Leases are too short for assignments.
    #[error(
        "--lease-ttl-ms {0} is too short for --grpc-listen: assignments to Envoy's own filters are in whole seconds, so leases must last {LEAST_LEASE_OF_FILTERS_MS} ms"
    )]
    ShortLease(u32),
    /// The gateway in this process cannot sync.
    #[error(
        "--grpc-listen needs FOREBAY_GATEWAY_TOKEN: the gateway behind Envoy's own filters syncs by it, not by a certificate"
    )]
    NoGatewayToken,
    /// Envoy's own filters cannot be served.
    #[error(transparent)]
    Quota(#[from] GatewayError),
    /// The system gives no threads, or the listener broke.
    #[error("the server broke: {0}")]
    System(#[from] std::io::Error),
}

/// A worker looks after so many tasks for those that another thread has woken. The usual 31 or more let syncs whose changes the journal has
/// made durable wait until all that have come since are answered as well.
const TASKS_PER_LOOK: u32 = 2;

/// Runs the server until it is told to stop.
///
/// # Errors
/// When it does not come up, or does not stop cleanly.
pub fn serve(options: ServeOptions) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .global_queue_interval(TASKS_PER_LOOK)
        .build()?;
    runtime.block_on(run(options))
}

async fn run(options: ServeOptions) -> Result<(), ServeError> {
    let mut signals = Signals::watch()?;
    // What is wrong with the options is said before a store is touched, and not when this replica leads for the first time.
    Prepared::new(&options)?;
    let tls = Tls::new(&options.tls, &options.admin_token, options.data.is_none())?;
    let (stop, stopped) = watch::channel(false);
    let Some(data) = &options.data else {
        return run_replica(options, tls, stop, stopped, signals).await;
    };
    let ports = Ports::take(&options).await?;
    let store = EmbeddedStore::open(data)?;
    let server = assemble(&options, tls.clone(), Arc::new(store), &Handle::current())?
        .begin(&Handle::current());
    let app = router(&server);
    let serving = listen(&options, ports.api, app.clone(), tls, stopped.clone())?;
    let quota = listen_quota(&options, ports.filters, QUOTA_ID.to_owned(), app, stopped)?;
    signals.told_to_stop().await;
    end(&stop, serving, quota).await;
    server.plane.stop().await?;
    Ok(())
}

/// Leads, or stands by for whoever does.
async fn run_replica(
    options: ServeOptions,
    tls: Option<Arc<Tls>>,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
    mut signals: Signals,
) -> Result<(), ServeError> {
    let role = Role::new(tls.clone());
    let app = replica::router(&role);
    let ports = Ports::take(&options).await?;
    let here = ports.api.local_addr()?;
    let address = match &options.advertise {
        Some(address) => address.clone(),
        None if here.ip().is_unspecified() => return Err(ServeError::Advertise(here)),
        None => here.to_string(),
    };
    let serving = listen(
        &options,
        ports.api,
        app.clone(),
        tls.clone(),
        stopped.clone(),
    )?;
    // Each replica is a gateway of its own, and no two of them are reached at one address.
    let quota_id = format!("{QUOTA_ID}-{address}");
    let quota = listen_quota(&options, ports.filters, quota_id, app, stopped)?;
    let (leave, left) = watch::channel(false);
    let nodes = options.store.clone();
    let background = Handle::current();
    let assemble: Assemble =
        Arc::new(move |store| assemble(&options, tls.clone(), store, &background));
    let campaign = Campaign {
        nodes,
        address,
        assemble,
        background: Handle::current(),
    };
    // On a thread of its own: the lead must not be lost because requests keep all others busy.
    let threads = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut leading =
        spawn_blocking(move || threads.block_on(lead_or_follow(campaign, role, left)));
    tokio::select! {
        ended = &mut leading => return ended.map_err(std::io::Error::from)?,
        () = signals.told_to_stop() => {}
    }
    // Whoever leads goes on to do so until the last request is answered.
    end(&stop, serving, quota).await;
    leave.send_replace(true);
    leading.await.map_err(std::io::Error::from)?
}

/// Where somebody can be reached, in the form that a connection takes.
fn host_and_port(text: &str) -> Result<String, String> {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.contains('/') && is_port(port) => {
            Ok(text.to_owned())
        }
        _ => Err("not of the form HOST:PORT".to_owned()),
    }
}

/// Says on standard output where something listens.
fn say(ready: &str) {
    if let Err(error) = writeln!(std::io::stdout(), "{ready}") {
        tracing::warn!(%error, "{ready}, but it cannot be said on standard output");
    }
}

/// Where this server is asked. Taken before the store is opened: a port that is not free must not cost a start, after which the next one
/// counts as one after a crash.
struct Ports {
    api: TcpListener,
    filters: Option<TcpListener>,
}

// === impl Ports ===

impl Ports {
    async fn take(options: &ServeOptions) -> Result<Self, ServeError> {
        let api = bind(options.listen).await?;
        let filters = match options.grpc_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self { api, filters })
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |reason| ServeError::Listen { address, reason };
    TcpListener::bind(address).await.map_err(failed)
}

fn listen(
    options: &ServeOptions,
    listener: TcpListener,
    app: Router,
    tls: Option<Arc<Tls>>,
    mut stopped: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, ServeError> {
    // The port may have been chosen by the system: tools that start this program read it from here.
    let address = listener.local_addr()?;
    say(&format!("listening on {address}"));
    if tls.is_none()
        && let Some(warning) = exposure::warning(
            address,
            "give --tls-cert and --tls-key, or listen on the loopback behind a proxy that speaks TLS",
        )
    {
        tracing::warn!("{warning}");
    }
    if options.key_hash_secret.is_none() {
        tracing::warn!(
            "{SECRET_ENV} is not set: customer keys are hashed under the development secret, which protects nothing"
        );
    }
    if let Some(tls) = &tls {
        tokio::spawn(Arc::clone(tls).watch_files());
    }
    Ok(tokio::spawn(connections::serve(
        listener,
        app,
        tls,
        async move {
            drop(stopped.wait_for(|stop| *stop).await);
        },
    )))
}

/// The listener for Envoy's own filters, if one is asked for.
fn listen_quota(
    options: &ServeOptions,
    listener: Option<TcpListener>,
    id: String,
    app: Router,
    stopped: watch::Receiver<bool>,
) -> Result<Option<JoinHandle<()>>, ServeError> {
    let (Some(listener), Some(token)) = (listener, Prepared::new(options)?.filter_token) else {
        return Ok(None);
    };
    let gateway_token = options
        .gateway_token
        .clone()
        .ok_or(ServeError::NoGatewayToken)?;
    let address = listener.local_addr()?;
    say(&format!("gRPC on {address}"));
    if let Some(warning) = exposure::warning(
        address,
        "--grpc-listen speaks no TLS: listen on the loopback behind a proxy that does",
    ) {
        tracing::warn!("{warning}");
    }
    let front = QuotaFront {
        gateway: GatewayOptions {
            id,
            token: gateway_token,
            key_hash_secret: options.key_hash_secret.clone(),
        },
        token,
        app,
    };
    Ok(Some(front.start(listener, stopped)?))
}

/// Waits for requests that are under way.
async fn end(stop: &watch::Sender<bool>, serving: JoinHandle<()>, quota: Option<JoinHandle<()>>) {
    tracing::info!("stopping");
    stop.send_replace(true);
    let all = async {
        drop(serving.await);
        if let Some(quota) = quota {
            drop(quota.await);
        }
    };
    // A client that takes its answer byte by byte would keep it for ever.
    drop(tokio::time::timeout(STOP_WITHIN, all).await);
}

/// What the options say, checked.
struct Prepared {
    tokens: Tokens,
    filter_token: Option<FilterToken>,
    keys: Keys,
    signing_key: Option<SigningKeyFile>,
    public_key: Option<[u8; 32]>,
    remote_write: Option<Endpoint>,
    alertmanagers: Vec<Endpoint>,
    covariates: Option<Chosen>,
    training: Training,
}

// === impl Prepared ===

impl Prepared {
    fn new(options: &ServeOptions) -> Result<Self, ServeError> {
        let tokens = Tokens::new(Secrets {
            sender: options.sender_token.as_deref(),
            gateway: options.gateway_token.as_deref(),
            viewer: options.viewer_token.as_deref(),
            operator: options.operator_token.as_deref(),
            admin: &options.admin_token,
        })?;
        let filter_token = options
            .filter_token
            .as_deref()
            .map(|token| FilterToken::new(token, &tokens))
            .transpose()?;
        if options.grpc_listen.is_some() && options.gateway_token.is_none() {
            return Err(ServeError::NoGatewayToken);
        }
        if options.grpc_listen.is_some() && options.lease_ttl_ms < LEAST_LEASE_OF_FILTERS_MS {
            return Err(ServeError::ShortLease(options.lease_ttl_ms));
        }
        let keys = Keys::new(
            options.key_hash_secret.as_deref(),
            options.previous_key_hash_secret.as_deref(),
        )?;
        let signing_key = options
            .model_signing_key
            .as_deref()
            .map(SigningKeyFile::read)
            .transpose()?;
        let public_key = options
            .model_public_key
            .as_deref()
            .map(|text| from_hex(text).ok_or(ServeError::PublicKey))
            .transpose()?;
        let remote_write = options
            .remote_write
            .as_deref()
            // Not by clap, which would quote the URL and the password in it.
            .map(|url| {
                let endpoint: Endpoint = url.parse()?;
                if !endpoint.has_path() {
                    return Err(ServeError::RemoteWritePath(endpoint.to_string()));
                }
                Ok(endpoint.with_token(options.remote_write_token.as_deref())?)
            })
            .transpose()?;
        let token = options.alertmanager_token.as_deref();
        let alertmanagers = options.alertmanager.iter();
        let alertmanagers = alertmanagers
            .map(|url| url.parse::<Endpoint>()?.with_token(token))
            .collect::<Result<_, _>>()
            .map_err(ServeError::Alertmanager)?;
        Ok(Self {
            tokens,
            filter_token,
            keys,
            signing_key,
            public_key,
            remote_write,
            alertmanagers,
            covariates: options.covariates.choose()?,
            training: Training::new(
                options
                    .training
                    .choose(options.step_ms, options.history_steps)?,
            ),
        })
    }
}

fn assemble(
    options: &ServeOptions,
    tls: Option<Arc<Tls>>,
    store: Arc<dyn Store>,
    background: &Handle,
) -> Result<Server, ServeError> {
    let prepared = Prepared::new(options)?;
    let mut plane = Plane::start(store, prepared.keys, settings(options), Clock::system())?
        .signed_by(prepared.signing_key.clone());
    if let Some(endpoint) = prepared.remote_write {
        tracing::info!(to = %endpoint, "usage of finished steps leaves by remote write");
        plane = plane.exported_by(RemoteWrite::start(endpoint, background));
    }
    if let Some(chosen) = prepared.covariates {
        plane = plane.measuring(chosen)?;
    }
    if !prepared.alertmanagers.is_empty() {
        plane = plane.notified_by(Notifier::start(
            prepared.alertmanagers,
            Pace::default(),
            background,
        ));
    }
    let forecaster = options
        .forecaster_wasm
        .clone()
        .unwrap_or_else(forecaster_beside_us);
    if !forecaster.is_file() {
        tracing::warn!(path = %forecaster.display(), "there is no forecaster.wasm here, so no model can be uploaded: name it with --forecaster-wasm");
    }
    let sandbox = Sandbox::new(&forecaster, SandboxLimits::default());
    Ok(Server {
        plane,
        sandbox,
        signing_key: prepared.signing_key,
        public_key: prepared.public_key,
        tokens: prepared.tokens,
        throttle: Throttle::new(options.max_syncs_per_s),
        tls,
        training: prepared.training,
    })
}

fn settings(options: &ServeOptions) -> Settings {
    Settings {
        lease_ttl_ms: options.lease_ttl_ms,
        fallback_ttl_ms: options.fallback_ttl_ms,
        sync_interval_ms: options.sync_interval_ms,
        step_ms: options.step_ms,
        history_steps: options.history_steps,
        max_other_customers: options.max_other_customers,
        audit_keep: options.audit_keep as usize,
    }
}

/// Where the forecaster is when nobody says.
#[must_use]
pub fn forecaster_beside_us() -> PathBuf {
    let beside = std::env::current_exe().unwrap_or_default();
    beside.with_file_name("forecaster.wasm")
}

/// SIGTERM and Ctrl-C. Watched from the beginning: one that comes while the store is opened must not end the process uncleanly.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

// === impl Signals ===

impl Signals {
    fn watch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them.
    async fn told_to_stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
