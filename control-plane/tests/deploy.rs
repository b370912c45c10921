//! What deploy/ ships and docs/guide/deploy-*.md says, done: the units' commands, the configuration of Redis, the scripts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod pki;
mod process;
mod unit;

use forebay_redis_tests::{Cluster, Node};
use pki::{Ca, Client, Files};
use process::{Process, send};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use unit::{Unit, commands, environment, placed, redis_options, root, shipped};

/// A failover of Redis takes three seconds, that of a replica six, a start of Envoy ten on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

const BIN: &str = "/usr/local/bin/";
const LIB: &str = "/usr/local/lib/forebay";
const ETC: &str = "/etc/forebay";
const DATA: &str = "/var/lib/forebay";

/// A machine on which the page's commands have been entered.
struct Machine {
    folder: tempfile::TempDir,
    secrets: Vec<(String, String)>,
}

// === impl Machine ===

impl Machine {
    async fn set_up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Self {
            folder,
            secrets: Vec::new(),
        };
        let etc = machine.path("etc");
        let made = commands("deploy-one.md", "FOREBAY_ADMIN_TOKEN=");
        machine.enter(&placed(&made, &[(ETC, &etc)])).await;
        let secrets = machine.path("etc/forebay.env");
        assert_private(Path::new(&secrets));
        assert_private(Path::new(&machine.path("etc/model.key")));
        let secrets = environment(&std::fs::read_to_string(secrets).unwrap());
        Self { secrets, ..machine }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn secret(&self, name: &str) -> &str {
        let secret = self.secrets.iter().find(|(other, _)| other == name);
        &secret.unwrap_or_else(|| panic!("no {name}")).1
    }

    fn token(&self) -> &str {
        self.secret("FOREBAY_ADMIN_TOKEN")
    }

    /// Enters commands in the root of the checkout, with `forebay` and what else lies beside it on the `PATH`.
    async fn enter(&self, commands: &str) {
        let mut path = OsString::from(self.path("bin"));
        let ours = Path::new(env!("CARGO_BIN_EXE_forebay")).parent().unwrap();
        let tools = root().join(".tools/bin");
        let usual = std::env::var_os("PATH").unwrap();
        for folder in [ours.as_os_str(), tools.as_os_str(), &usual] {
            path.push(":");
            path.push(folder);
        }
        let output = Command::new("sh")
            .args(["-e", "-c", commands])
            .current_dir(root())
            .env("PATH", path)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands}\n{said}");
    }

    /// Puts a program of the test before all others of its name.
    fn put_program(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let file = self.path(&format!("bin/{name}"));
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Starts what the unit does.
    async fn start(&self) -> Process {
        let places = [
            (BIN, ""),
            (DATA, &*self.path("data")),
            ("127.0.0.1:7430", "127.0.0.1:0"),
            ("%d/", &*format!("{}/", self.path("etc"))),
            (LIB, &*wasm()),
        ];
        let unit = Unit::read(&["forebay.service"]);
        let command = unit.command(&self.secrets, &places);
        self.spawn(&command, &[]).await
    }

    async fn spawn(&self, command: &[String], further: &[(&str, &str)]) -> Process {
        assert_eq!(command[0], "forebay");
        let mut program = Command::new(env!("CARGO_BIN_EXE_forebay"));
        program.args(&command[1..]).env_clear();
        program.envs(self.secrets.iter().map(|(name, value)| (name, value)));
        program.envs(further.iter().copied()).stderr(Stdio::null());
        Process::spawned(program, false).await
    }

    async fn ask(
        &self,
        server: &Process,
        method: &str,
        path: &str,
        body: Value,
    ) -> Option<(u16, Value)> {
        let body = match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        let (status, bytes) = send(&server.address, method, path, self.token(), body).await?;
        Some((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }
}

fn wasm() -> String {
    root().join("target/wasm").to_str().unwrap().to_owned()
}

fn assert_private(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "others can read {}", file.display());
}

fn policy() -> Value {
    json!({
        "version": 1,
        "resources": {"requests": {}},
        "contracts": {"gold": {"limits": {"requests": {"rate_per_s": 10, "burst": 10}}}},
        "customers": [{"key": "acme", "contract": "gold"}],
    })
}

/// Looks until something is there.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test]
async fn the_unit_of_one_machine_starts_a_server_and_the_script_a_backup_that_can_be_put_back() {
    let machine = Machine::set_up().await;
    let unit = Unit::read(&["forebay.service"]);
    assert_eq!(format!("/var/lib/{}", unit.value("StateDirectory")), DATA);
    assert_eq!(unit.value("EnvironmentFile"), "/etc/forebay/forebay.env");
    assert_eq!(
        unit.value("LoadCredential"),
        "model.key:/etc/forebay/model.key"
    );
    let server = machine.start().await;
    let applied = machine.ask(&server, "POST", "/v1/policies", policy()).await;
    assert_eq!(applied.unwrap().0, 200);

    // A stop, as systemd does it, and a start that only leaves a mark: this test starts the server.
    let pid = server.id();
    let systemctl = format!(
        "#!/bin/sh\ncase \"$1\" in\nstop) kill -TERM {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.02; done;;\n\
         start) touch '{}';;\nesac\n",
        machine.path("started")
    );
    std::fs::create_dir(machine.path("bin")).unwrap();
    machine.put_program("systemctl", &systemctl);
    let reaping = tokio::spawn(async move {
        let mut server = server;
        server.ended().await
    });
    let script = root().join("deploy/forebay-backup");
    let (data, backups) = (machine.path("data"), machine.path("backups"));
    let script = format!("{} {data} {backups}", script.display());
    machine.enter(&script).await;
    assert!(reaping.await.unwrap().success(), "a proper stop");
    assert!(Path::new(&machine.path("started")).exists());
    let mut files: Vec<PathBuf> = std::fs::read_dir(&backups)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    let backup = files.pop().unwrap();
    assert!(files.is_empty(), "this is left there too: {files:?}");
    assert_private(&backup);
    let left = std::fs::read_dir(machine.folder.path()).unwrap();
    let copies = left.filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("tmp.")
    });
    assert_eq!(copies.count(), 0);

    let restore = commands("deploy-one.md", "tar -C /var/lib/forebay -xzf");
    let restore = restore
        .lines()
        .filter(|line| !line.contains("systemctl") && !line.contains("chown"))
        .collect::<Vec<_>>()
        .join("\n");
    let name = "/var/backups/forebay/forebay-20260101T030000Z.tar.gz";
    let places = [(name, backup.to_str().unwrap()), (DATA, &*data)];
    machine.enter(&placed(&restore, &places)).await;
    let server = machine.start().await;
    let (status, answer) = machine
        .ask(&server, "GET", "/v1/status", Value::Null)
        .await
        .unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["policy_version"], 1);
    assert_eq!(
        answer["store_epoch"], 1,
        "the backup is that of a proper stop: {answer}"
    );
}

#[tokio::test]
async fn a_gateway_of_the_page_and_its_unit_joins_the_server_of_the_other_unit() {
    let machine = Machine::set_up().await;
    let server = machine.start().await;
    machine
        .ask(&server, "POST", "/v1/policies", policy())
        .await
        .unwrap();
    let made = commands("deploy-one.md", "envoy/with-control-plane.yaml");
    machine
        .enter(&placed(
            &made,
            &[(ETC, &machine.path("etc")), (LIB, &wasm())],
        ))
        .await;
    // What must be free on the machine of the test.
    let config = machine.path("etc/envoy-2.yaml");
    let (_, port) = server.address.rsplit_once(':').unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let text = placed(
        &text,
        &[
            ("port_value: 10001", "port_value: 0"),
            ("port_value: 9902", "port_value: 0"),
            ("port_value: 7430", &format!("port_value: {port}")),
        ],
    );
    std::fs::write(&config, text).unwrap();
    let _envoy = start_envoy(&machine);
    let gateway = until("the gateway has joined", async || {
        let answer = machine
            .ask(&server, "GET", "/v1/status", Value::Null)
            .await?;
        let gateway = answer.1["gateways"][0].clone();
        (gateway["policy_version"] == 1).then_some(gateway)
    })
    .await;
    let id = gateway["id"].as_str().unwrap_or_default();
    assert!(id.ends_with("-2"), "{gateway}");
}

fn start_envoy(machine: &Machine) -> Child {
    let unit = Unit::read(&["envoy@.service"]);
    let etc = machine.path("etc");
    let places = [
        // Other tests have Envoys too.
        ("--base-id %i", "--use-dynamic-base-id"),
        ("%i", "2"),
        (BIN, ""),
        (ETC, &*etc),
    ];
    let command = unit.command(&[], &places);
    assert_eq!(command[0], "envoy");
    let secrets = unit.value("EnvironmentFile");
    let secrets = std::fs::read_to_string(placed(secrets, &[(ETC, &etc)])).unwrap();
    Command::new(root().join(".tools/bin/envoy"))
        .args(&command[1..])
        .args(["--concurrency", "1"])
        .env_clear()
        .envs(environment(&secrets))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("Envoy is there after `make setup`")
}

/// Two replicas that speak TLS, and the cluster that they are on.
struct Replicas<'a> {
    machine: &'a Machine,
    files: Files,
    ca: String,
    store: String,
}

// === impl Replicas ===

impl<'a> Replicas<'a> {
    fn on(machine: &'a Machine, redis: &Cluster, password: &str) -> Self {
        let ca = Ca::new("ours");
        let nodes = redis.nodes().iter();
        let urls =
            nodes.map(|node| format!("redis://forebay:{password}@127.0.0.1:{}", node.port()));
        Self {
            machine,
            files: Files::new(&ca.server(), &ca),
            ca: ca.pem(),
            store: urls.collect::<Vec<_>>().join(","),
        }
    }

    /// Starts what the drop-in does.
    async fn start(&self) -> Process {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let address = port.unwrap().to_string();
        let unit = Unit::read(&["forebay.service", "replica.conf"]);
        let of_machine = [("FOREBAY_ADVERTISE".to_owned(), address.clone())];
        let file = |name: &str| self.files.path(name).to_str().unwrap().to_owned();
        let places = [
            (BIN, ""),
            ("0.0.0.0:7430", &*address),
            ("/etc/forebay/tls/tls.crt", &*file("server.pem")),
            ("/etc/forebay/tls/tls.key", &*file("server.key")),
            ("/etc/forebay/tls/ca.crt", &*file("ca.pem")),
            ("%d/", &*format!("{}/", self.machine.path("etc"))),
            (LIB, &*wasm()),
        ];
        let command = unit.command(&of_machine, &places);
        let further = [("FOREBAY_STORE", self.store.as_str())];
        self.machine.spawn(&command, &further).await
    }

    async fn ask(
        &self,
        replica: &Process,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Option<(u16, Value)> {
        let body = match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        let bearer = format!("Bearer {}", self.machine.token());
        let headers = [("authorization", bearer.as_str())];
        let mut client = Client::connect(&replica.address, &self.ca, None).await?;
        let (status, body) = client.ask(method, path, &headers, body).await?;
        Some((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    async fn until_ready(&self, replica: &Process) {
        until("a replica leads", async || {
            let answer = self.ask(replica, "GET", "/readyz", &Value::Null).await?;
            (answer.0 == 200).then_some(())
        })
        .await;
    }

    /// Applies a policy, as soon as that is possible. Returns how many there are, as far as it is known.
    async fn apply(&self, replica: &Process) -> u64 {
        until("a policy is applied", async || {
            let (status, answer) = self.ask(replica, "POST", "/v1/policies", &policy()).await?;
            (status == 200).then(|| answer["version"].as_u64().unwrap())
        })
        .await
    }

    async fn newest(&self, replica: &Process) -> u64 {
        let answer = until("policies are listed", async || {
            let (status, answer) = self
                .ask(replica, "GET", "/v1/policies", &Value::Null)
                .await?;
            (status == 200).then_some(answer)
        })
        .await;
        answer["active"].as_u64().unwrap()
    }
}

/// A cluster of the shipped configuration, and the password of `forebay serve`.
fn cluster() -> (Cluster, &'static str) {
    let (of_nodes, of_server) = ("password-of-nodes", "password-of-forebay");
    let users = placed(
        &shipped("deploy/redis/users.conf"),
        &[("CHANGE-THIS-1", of_nodes), ("CHANGE-THIS-2", of_server)],
    );
    let of_machine = ["port", "bind", "dir", "include"];
    let mut options = redis_options(&shipped("deploy/redis/redis-7000.conf"), &of_machine);
    options.extend(redis_options(&users, &[]));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    (Cluster::start_with(&options).unwrap(), of_server)
}

/// The key that lies where all of Forebay's do.
const KEY: &str = "{forebay}:head";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_the_drop_in_outlive_masters_of_a_cluster_of_the_shipped_configuration() {
    let machine = Machine::set_up().await;
    let (mut redis, password) = cluster();
    let replicas = Replicas::on(&machine, &redis, password);
    let mut first = replicas.start().await;
    replicas.until_ready(&first).await;
    let second = replicas.start().await;
    assert_eq!(replicas.apply(&second).await, 1, "by way of the other one");

    let place = redis.master_of(KEY).unwrap();
    for forbidden in [
        "CLUSTER RESET",
        "CLUSTER FAILOVER",
        "FLUSHALL",
        "CONFIG GET *",
    ] {
        let mut command = vec!["ACL", "DRYRUN", "forebay"];
        command.extend(forbidden.split(' '));
        let said = redis.nodes()[place].ask(&command).unwrap();
        assert!(said.contains("no permissions"), "{forbidden}: {said}");
    }
    redis.node_mut(place).kill().unwrap();
    let version = replicas.apply(&second).await;
    assert!(version > 1);
    redis.node_mut(place).restart().unwrap();
    until("the old master is a replica", async || {
        redis.is_ready().then_some(())
    })
    .await;

    // A shard that holds nothing of ours is lost altogether.
    let ours = redis.master_of(KEY).unwrap();
    let other = redis.master_of("{other}").unwrap();
    assert_ne!(ours, other, "choose another key");
    let its_replica = redis.replica_of(other).unwrap();
    for place in [other, its_replica] {
        redis.node_mut(place).kill().unwrap();
    }
    until("the others have noticed", async || {
        let table = redis.nodes()[ours].ask(&["CLUSTER", "NODES"]).ok()?;
        (table.matches("fail ").count() == 2).then_some(())
    })
    .await;
    let version = replicas.apply(&second).await;
    assert_eq!(replicas.newest(&first).await, version);

    first.terminate().await;
    replicas.until_ready(&second).await;
    assert_eq!(replicas.newest(&second).await, version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_redis_by_the_page_is_put_back_into_an_empty_cluster_by_the_page() {
    let machine = Machine::set_up().await;
    let (redis, password) = cluster();
    let replicas = Replicas::on(&machine, &redis, password);
    let mut replica = replicas.start().await;
    replicas.until_ready(&replica).await;
    assert_eq!(replicas.apply(&replica).await, 1);

    let from = redis.replica_of(redis.master_of(KEY).unwrap()).unwrap();
    let from = redis.nodes()[from].port().to_string();
    let copy = machine.path("copy.rdb");
    let take = line_of("deploy-replicas.md", "--rdb");
    let take = placed(
        &take,
        &[
            ("-h 10.0.0.22 -p 7001", &*format!("-p {from}")),
            ("/var/backups/forebay/$(date -u +%Y%m%d).rdb", &*copy),
        ],
    );
    machine.enter(&format!("{AS_ADMIN}{take}")).await;
    replica.terminate().await;
    drop(redis);

    let (empty, password) = cluster();
    let source = Node::start_with(&[
        "--dir",
        &machine.path(""),
        "--dbfilename",
        "copy.rdb",
        "--requirepass",
        "password-of-nodes",
    ])
    .unwrap();
    let to = format!("127.0.0.1:{}", empty.nodes()[0].port());
    let put = line_of("deploy-replicas.md", "--cluster import");
    let put = placed(
        &put,
        &[
            ("10.0.0.21:7000", &*to),
            ("127.0.0.1:7999", &*format!("127.0.0.1:{}", source.port())),
        ],
    );
    machine.enter(&format!("{AS_ADMIN}{put}")).await;
    let replicas = Replicas::on(&machine, &empty, password);
    let replica = replicas.start().await;
    assert_eq!(replicas.newest(&replica).await, 1);
}

/// As the page says once.
const AS_ADMIN: &str = "export REDISCLI_AUTH=password-of-nodes\n";

/// The one line of a page's commands that holds some words.
fn line_of(page: &str, words: &str) -> String {
    let block = commands(page, words);
    let line = block.lines().find(|line| line.contains(words));
    line.unwrap().to_owned()
}
