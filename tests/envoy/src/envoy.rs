//! One Envoy process: started, waited for, asked, and ended with its owner.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bootstrap::{Bootstrap, Listener};
use crate::client::{Client, Protocol, Reply};
use crate::place::tool;
use crate::wait::until;

/// Compiling a large module takes seconds on a machine that is busy with other tests.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A running Envoy. Dropping it ends the process.
#[derive(Debug)]
pub struct Envoy {
    process: Child,
    folder: TempDir,
    admin: SocketAddr,
    ports: HashMap<String, SocketAddr>,
    /// From the start of the process to the first answer of `/ready`.
    pub ready_after: Duration,
}

/// How a process is started, beyond its bootstrap.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads.
    pub concurrency: u32,
    /// A TCP port for the upstream listener instead of a socket file.
    pub hop_port: Option<u16>,
    /// Environment variables of the process.
    pub environment: Vec<(String, String)>,
}

// === impl Envoy ===

impl Envoy {
    /// Starts with so many workers and waits until it is ready.
    pub async fn start(bootstrap: &Bootstrap, concurrency: u32) -> Result<Self> {
        let options = Options {
            concurrency,
            hop_port: None,
            environment: Vec::new(),
        };
        Self::start_with(bootstrap, &options).await
    }

    /// Starts with all options and waits until it is ready.
    pub async fn start_with(bootstrap: &Bootstrap, options: &Options) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for Envoy")?;
        let config = folder.path().join("bootstrap.json");
        if bootstrap.dynamic_listeners {
            fs::write(
                folder.path().join("lds.json"),
                json!({ "resources": [] }).to_string(),
            )?;
        }
        fs::write(
            &config,
            bootstrap
                .to_json(folder.path(), options.hop_port)
                .to_string(),
        )?;
        let log = fs::File::create(folder.path().join("envoy.log"))?;
        let started = Instant::now();
        let process = Command::new(tool("envoy")?)
            .arg("-c")
            .arg(&config)
            .args(["--concurrency", &options.concurrency.to_string()])
            .args([
                "--disable-hot-restart",
                "--log-level",
                "warning",
                "--component-log-level",
                "wasm:info",
            ])
            .arg("--admin-address-path")
            .arg(folder.path().join("admin.txt"))
            .envs(
                options
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start Envoy")?;
        let mut envoy = Self {
            process,
            folder,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            ports: HashMap::new(),
            ready_after: Duration::ZERO,
        };
        envoy.wait_ready(started + READY_WITHIN).await?;
        envoy.ready_after = started.elapsed();
        envoy.find_ports().await?;
        Ok(envoy)
    }

    /// Checks a bootstrap as `envoy --mode validate` does; the error is what Envoy said.
    pub fn validate(bootstrap: &Bootstrap) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("bootstrap.json");
        fs::write(&config, bootstrap.to_json(folder.path(), None).to_string())?;
        let output = Command::new(tool("envoy")?)
            .args([
                "--mode",
                "validate",
                "--disable-hot-restart",
                "-l",
                "warning",
                "-c",
            ])
            .arg(&config)
            .output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// The process's id, for /proc.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The folder with the process's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that Envoy logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("envoy.log")).unwrap_or_default()
    }

    /// The lines of a listener's access log so far.
    pub fn access_log(&self, listener: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join(format!("{listener}.log")))
            .unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The address of a listener.
    pub fn address(&self, listener: &str) -> SocketAddr {
        *self
            .ports
            .get(listener)
            .unwrap_or_else(|| panic!("no listener `{listener}`: {:?}", self.ports))
    }

    /// A new connection to a listener.
    pub async fn connect(&self, listener: &str, protocol: Protocol) -> Result<Client> {
        Client::connect(self.address(listener), protocol).await
    }

    /// Replaces all dynamic listeners; the file is swapped in one step, as Envoy's file watch demands.
    pub fn set_listeners(&self, version: u32, listeners: &[Listener]) -> Result<()> {
        let resources: Vec<Value> = listeners
            .iter()
            .map(|listener| {
                let mut resource = listener.to_json(self.folder.path());
                resource["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
                resource
            })
            .collect();
        let text =
            json!({ "version_info": version.to_string(), "resources": resources }).to_string();
        let next = self.folder.path().join("lds.next");
        fs::write(&next, text)?;
        fs::rename(next, self.folder.path().join("lds.json")).context("cannot swap lds.json")
    }

    /// Asks the admin endpoint.
    pub async fn admin(&self, path: &str) -> Result<Reply> {
        Client::connect(self.admin, Protocol::Http1)
            .await?
            .get(path, &[])
            .await
    }

    /// A counter or gauge by its exact name; 0 when Envoy does not know it.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let reply = self
            .admin(&format!("/stats?filter=^{name}$&format=json"))
            .await?;
        let stats: Value = serde_json::from_slice(&reply.body).context("/stats is no JSON")?;
        Ok(stats["stats"][0]["value"].as_u64().unwrap_or(0))
    }

    /// Reads the listeners' ports again, after [`Self::set_listeners`].
    pub async fn find_ports(&mut self) -> Result<()> {
        let reply = self.admin("/listeners?format=json").await?;
        let answer: Value = serde_json::from_slice(&reply.body).context("/listeners is no JSON")?;
        for listener in answer["listener_statuses"].as_array().into_iter().flatten() {
            let socket = &listener["local_address"]["socket_address"];
            let (Some(name), Some(port)) =
                (listener["name"].as_str(), socket["port_value"].as_u64())
            else {
                continue;
            };
            self.ports.insert(
                name.to_owned(),
                SocketAddr::from(([127, 0, 0, 1], u16::try_from(port)?)),
            );
        }
        Ok(())
    }

    /// CPU time of the worker threads so far, in nanoseconds.
    pub fn worker_cpu_ns(&self) -> Result<u64> {
        let mut total = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let task: PathBuf = task?.path();
            if fs::read_to_string(task.join("comm"))?.starts_with("wrk:") {
                total += cpu_ns(&task)?;
            }
        }
        Ok(total)
    }

    /// CPU time of the main thread so far, in nanoseconds: singletons tick there.
    pub fn main_cpu_ns(&self) -> Result<u64> {
        let pid = self.pid();
        cpu_ns(&PathBuf::from(format!("/proc/{pid}/task/{pid}")))
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        resident_bytes(self.pid())
    }

    async fn wait_ready(&mut self, deadline: Instant) -> Result<()> {
        let path = self.folder.path().join("admin.txt");
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!(
                    "Envoy ended ({status}) before it was ready:\n{}",
                    self.log()
                );
            }
            if let Some(admin) = fs::read_to_string(&path)
                .ok()
                .and_then(|text| text.trim().parse().ok())
            {
                self.admin = admin;
                if self
                    .admin("/ready")
                    .await
                    .is_ok_and(|reply| reply.status == 200)
                {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                bail!(
                    "Envoy was not ready after {READY_WITHIN:?}:\n{}",
                    self.log()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the log holds a text.
    pub async fn until_logged(&self, text: &str) {
        until(
            format!("Envoy logs `{text}`; it logged:\n{}", self.log()),
            Duration::from_secs(30),
            || async { self.log().contains(text).then_some(()) },
        )
        .await;
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- Envoy logged:\n{}", self.log());
        }
    }
}

fn cpu_ns(task: &Path) -> Result<u64> {
    let schedule = fs::read_to_string(task.join("schedstat"))?;
    let first = schedule.split_whitespace().next();
    Ok(first.context("empty schedstat")?.parse()?)
}

/// Memory that a process has resident.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes.context("/proc/PID/status is odd")?.parse()?;
    Ok(kilobytes * 1024)
}
