//! One Redis server.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::wait_for;

/// It takes 20 ms, but the machine may be busy.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// Another process may take a free port before Redis does.
const PORTS_TRIED: usize = 5;

/// A running server with a folder of its own. Dropping it kills the process.
#[derive(Debug)]
pub struct Node {
    process: Child,
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    /// Its network namespace, if not ours.
    namespace: Option<String>,
}

/// How a server is asked.
struct Door<'a> {
    namespace: Option<&'a str>,
    port: u16,
    /// Of the account `default`, if it has one.
    password: Option<&'a str>,
}

// === impl Node ===

impl Node {
    /// Starts one that keeps nothing on disk.
    pub fn start() -> Result<Self> {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// Starts one with options of `redis-server`.
    pub fn start_with(options: &[&str]) -> Result<Self> {
        Self::start_in(None, options)
    }

    /// Starts one in a network namespace.
    pub fn start_in(namespace: Option<&str>, options: &[&str]) -> Result<Self> {
        let mut tries = 0..PORTS_TRIED;
        loop {
            tries.next();
            match Self::start_once(namespace, options) {
                Err(_) if !tries.is_empty() => {}
                result => return result,
            }
        }
    }

    fn start_once(namespace: Option<&str>, options: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let port = free_port()?;
        let namespace = namespace.map(str::to_owned);
        let mut node = Self {
            process: spawn(namespace.as_deref(), folder.path(), port, &options)?,
            folder,
            port,
            options,
            namespace,
        };
        node.until_it_answers()?;
        Ok(node)
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What `redis-cli` prints for a command.
    pub fn ask(&self, command: &[&str]) -> Result<String> {
        self.door().ask(command)
    }

    fn door(&self) -> Door<'_> {
        let mut options = self.options.iter();
        let has_password = options.any(|option| option == "--requirepass");
        Door {
            namespace: self.namespace.as_deref(),
            port: self.port,
            password: options.next().filter(|_| has_password).map(String::as_str),
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again on the same port and folder.
    pub fn restart(&mut self) -> Result<()> {
        let (namespace, folder) = (self.namespace.as_deref(), self.folder.path());
        self.process = spawn(namespace, folder, self.port, &self.options)?;
        self.until_it_answers()
    }

    /// Stops it as a machine that hangs does.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.process.id())?;
        Ok(kill_process(
            Pid::from_raw(id).context("no process id")?,
            signal,
        )?)
    }

    fn until_it_answers(&mut self) -> Result<()> {
        let mut ended = None;
        wait_for("redis-server answers", ANSWERS_WITHIN, || {
            ended = self.process.try_wait().ok().flatten();
            let answers = || {
                let answer = self.door().ask(&["PING"]);
                answer.is_ok_and(|answer| answer.contains("PONG"))
            };
            ended.is_some() || answers()
        })?;
        match ended {
            None => Ok(()),
            Some(status) => {
                let log = std::fs::read_to_string(self.folder.path().join("redis.log"));
                bail!(
                    "redis-server ended ({status}):\n{}",
                    log.unwrap_or_default()
                )
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _killed = self.kill();
    }
}

// === impl Door ===

impl Door<'_> {
    /// What `redis-cli` prints for a command.
    fn ask(&self, command: &[&str]) -> Result<String> {
        let mut cli = program(self.namespace, "redis-cli")?;
        if let Some(password) = self.password {
            cli.env("REDISCLI_AUTH", password);
        }
        let output = cli
            .args(["-p", &self.port.to_string()])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .context("cannot start redis-cli")?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            bail!(
                "redis-cli {command:?}: {text} {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(text)
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn spawn(namespace: Option<&str>, folder: &Path, port: u16, options: &[String]) -> Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("redis.log"))?;
    program(namespace, "redis-server")?
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .arg("--dir")
        .arg(folder)
        .args(options)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start redis-server")
}

/// A tool, to be started in a namespace. `ip` becomes the program that it starts.
fn program(namespace: Option<&str>, name: &str) -> Result<Command> {
    let tool = tool(name)?;
    Ok(match namespace {
        None => Command::new(tool),
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(tool);
            command
        }
    })
}

/// An installed tool, `.tools/bin/NAME`.
fn tool(name: &str) -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).unwrap_or(here);
    let path = root.join(".tools/bin").join(name);
    if !path.exists() {
        bail!("{} is missing: run `make setup`", path.display());
    }
    Ok(path)
}
