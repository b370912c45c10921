//! The real `forebay serve`, as a process of its own.

#![allow(dead_code, reason = "each test file uses its own part")]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

pub(crate) const GATEWAY_TOKEN: &str = "gateway-token-of-the-tests";
pub(crate) const VIEWER_TOKEN: &str = "viewer-token-of-the-tests";
pub(crate) const FILTER_TOKEN: &str = "filter-token-of-the-tests";
pub(crate) const ADMIN_TOKEN: &str = "admin-token-of-the-tests";

/// The option by which Envoy's own filters are served.
const FILTERS: &str = "--grpc-listen=127.0.0.1:0";

pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
    /// Where Envoy's own filters are served, if they are.
    pub(crate) grpc_address: String,
}

impl Process {
    pub(crate) async fn start(data: &Path) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_forebay")), data).await
    }

    /// Starts it on a disk that has room for so many bytes in each file.
    pub(crate) async fn start_on_small_disk(data: &Path, bytes: u64) -> Self {
        let mut shell = Command::new("sh");
        let blocks = bytes / 512;
        // Ignored, the signal becomes an error of the write, as it is on a full disk.
        shell
            .arg("-c")
            .arg(format!(
                "trap '' XFSZ; ulimit -S -f {blocks}; exec \"$0\" \"$@\""
            ))
            .arg(env!("CARGO_BIN_EXE_forebay"));
        Self::start_by(shell, data).await
    }

    /// Makes the disk as large as any.
    pub(crate) async fn enlarge_disk(&self) {
        self.limit_disk("unlimited").await;
    }

    /// Leaves no room on the disk for anything.
    pub(crate) async fn fill_disk(&self) {
        self.limit_disk("1:unlimited").await;
    }

    async fn limit_disk(&self, bytes: &str) {
        let id = self.child.id().unwrap().to_string();
        let limited = Command::new("prlimit")
            .args(["--pid", &id, &format!("--fsize={bytes}")])
            .status()
            .await
            .unwrap();
        assert!(limited.success());
    }

    /// Starts a replica on the store at some nodes of Redis.
    pub(crate) async fn start_replica(nodes: &str) -> Self {
        Self::start_replica_with(nodes, &[]).await
    }

    /// Starts one with what goes to it by its environment.
    pub(crate) async fn start_replica_with(nodes: &str, environment: &[(&str, &str)]) -> Self {
        let mut program = Command::new(env!("CARGO_BIN_EXE_forebay"));
        program.envs(environment.iter().copied());
        Self::start_on(program, "--store", nodes.as_ref()).await
    }

    /// Starts it with what goes to it by its environment.
    pub(crate) async fn start_with(data: &Path, environment: &[(&str, &str)]) -> Self {
        let mut program = Command::new(env!("CARGO_BIN_EXE_forebay"));
        program.envs(environment.iter().copied());
        Self::start_by(program, data).await
    }

    /// Starts one that serves Envoy's own filters too.
    pub(crate) async fn start_with_filters(kind: &str, store: &OsStr) -> Self {
        Self::start_with_options(kind, store, &[FILTERS.to_owned()], true).await
    }

    /// Starts one with further options, and perhaps without the gateways' token.
    pub(crate) async fn start_with_options(
        kind: &str,
        store: &OsStr,
        options: &[String],
        has_gateway_token: bool,
    ) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_forebay"));
        Self::started(program, kind, store, options, has_gateway_token).await
    }

    async fn start_by(program: Command, data: &Path) -> Self {
        Self::start_on(program, "--data", data.as_ref()).await
    }

    async fn start_on(program: Command, kind: &str, store: &OsStr) -> Self {
        Self::started(program, kind, store, &[], true).await
    }

    async fn started(
        mut program: Command,
        kind: &str,
        store: &OsStr,
        options: &[String],
        has_gateway_token: bool,
    ) -> Self {
        if has_gateway_token {
            program.env("FOREBAY_GATEWAY_TOKEN", GATEWAY_TOKEN);
        } else {
            program.env_remove("FOREBAY_GATEWAY_TOKEN");
        }
        let has_steps = options
            .iter()
            .any(|option| option.starts_with("--step-ms="));
        program
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                // Gateways of tests sync as fast as they can.
                "--max-syncs-per-s",
                "100000",
                kind,
            ])
            .arg(store)
            .args((!has_steps).then_some("--step-ms=100"))
            .args(options)
            .env("FOREBAY_VIEWER_TOKEN", VIEWER_TOKEN)
            .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("FOREBAY_FILTER_TOKEN", FILTER_TOKEN)
            .stderr(Stdio::null());
        let serves_filters = options.iter().any(|option| option.starts_with(FILTERS));
        Self::spawned(program, serves_filters).await
    }

    /// Starts a whole command line, and waits until it says where it listens.
    pub(crate) async fn spawned(mut program: Command, serves_filters: bool) -> Self {
        let mut child = program
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = async |words: &str| {
            let line = lines.next_line().await.unwrap();
            let line = line.expect("the server says where it listens");
            line.strip_prefix(words).unwrap().to_owned()
        };
        let address = said("listening on ").await;
        let grpc_address = match serves_filters {
            true => said("gRPC on ").await,
            false => String::new(),
        };
        Self {
            child,
            address,
            grpc_address,
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn terminate(&mut self) {
        self.signal("TERM").await;
        assert!(self.ended().await.success());
    }

    /// Stops it as a machine that hangs does, or lets it go on.
    pub(crate) async fn signal(&self, signal: &str) {
        let id = self.id();
        let sent = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{signal} {id}"))
            .status()
            .await
            .unwrap();
        assert!(sent.success());
    }

    /// Kills it without warning.
    pub(crate) async fn kill(&mut self) {
        self.child.start_kill().unwrap();
        self.child.wait().await.unwrap();
    }
}

/// Sends a request; `None` if the server died before it answered.
pub(crate) async fn send(
    address: &str,
    method: &str,
    path: &str,
    token: &str,
    body: Vec<u8>,
) -> Option<(u16, Bytes)> {
    let bearer = format!("Bearer {token}");
    http(address, method, path, &[("authorization", &bearer)], body).await
}

/// Sends a request to any server; `None` if it does not answer.
pub(crate) async fn http(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Option<(u16, Bytes)> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let response = sender.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    driver.abort();
    Some((status, body))
}
