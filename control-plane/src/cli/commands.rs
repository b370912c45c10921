//! Commands and their options.

use crate::plane::Share;
use crate::serve::ServeOptions;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{
    ArgGroup, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
};
use std::path::PathBuf;

/// Rate limits that are placed before demand arrives: control plane and tools.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, about)]
pub struct Options {
    /// How to reach the server.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Options {
    /// The options of the command line, or the end of the process with what is wrong with them. A value that may hold a password is not
    /// quoted.
    #[must_use]
    pub fn read() -> Self {
        Self::try_read().unwrap_or_else(|error| without_secrets(error).exit())
    }

    fn try_read() -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches()?;
        refuse_client_options_of_a_server(&matches)?;
        let options = Self::from_arg_matches(&matches);
        options.map_err(|error| error.format(&mut Self::command()))
    }
}

/// Options that every client knows would have no effect on a server: whoever gives one means another. In the environment they are for the
/// other commands.
fn refuse_client_options_of_a_server(matches: &ArgMatches) -> Result<(), clap::Error> {
    let Some(serve) = matches.subcommand_matches("serve") else {
        return Ok(());
    };
    let meant = [
        ("server", "--server", "an address to listen on is --listen"),
        (
            "token",
            "--token",
            "those of a server are FOREBAY_ADMIN_TOKEN, FOREBAY_GATEWAY_TOKEN and others of its environment",
        ),
        (
            "tls_ca",
            "--tls-ca",
            "the CA of gateways is --tls-client-ca, that of replicas --tls-replica-ca",
        ),
    ];
    for (id, option, instead) in meant {
        if serve.value_source(id) == Some(ValueSource::CommandLine) {
            let message = format!(
                "{option} is for clients of a server, and `forebay serve` is one: {instead}"
            );
            return Err(Options::command().error(ErrorKind::ArgumentConflict, message));
        }
    }
    Ok(())
}

fn without_secrets(mut error: clap::Error) -> clap::Error {
    let is_secret = matches!(
        error.get(ContextKind::InvalidArg),
        Some(ContextValue::String(argument)) if argument.starts_with("--store")
    );
    if is_secret {
        let hidden = ContextValue::String("(not shown)".to_owned());
        error.insert(ContextKind::InvalidValue, hidden);
    }
    error
}

/// How to reach the server.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Address of the server; https:// with --tls-ca
    #[arg(
        long,
        global = true,
        env = "FOREBAY_SERVER",
        default_value = "http://127.0.0.1:7430"
    )]
    pub server: String,
    /// CA certificates, in PEM, that the server's certificate is verified against
    #[arg(long, global = true, env = "FOREBAY_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Token of the role that you have; otherwise taken from `FOREBAY_OPERATOR_TOKEN` or `FOREBAY_VIEWER_TOKEN` too
    #[arg(
        long,
        global = true,
        env = "FOREBAY_ADMIN_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane
    Serve(Box<ServeOptions>),
    /// Check, apply and list policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Check, sign, upload and release models
    #[command(subcommand)]
    Model(ModelCommand),
    /// Look at a customer, or change one
    #[command(subcommand)]
    Customer(CustomerCommand),
    /// Gateways
    #[command(subcommand)]
    Gateway(GatewayCommand),
    /// Usage history
    #[command(subcommand)]
    History(HistoryCommand),
    /// What customers and groups of customers will ask for, from five minutes to a week ahead
    Forecasts(ForecastsOptions),
    /// Who has a claim on how much of the pools
    Allocations(AllocationsOptions),
    /// Customers that behave as they never did: since when, what speaks for it, and what follows
    Anomalies(AnomaliesOptions),
    /// What of guarantees is lent, who has it, and why
    Loans(LoansOptions),
    /// Whose spike would leave whom short, and the headroom that follows
    Spillover(SpilloverOptions),
    /// Which other values of the allocation's knobs are tried, and what came of them
    Tuning,
    /// What a customer has lent and borrowed in a calendar month
    Statement {
        /// The customer's key, or `hash:` and its hash
        key: String,
        /// Month in UTC, as 2026-11; the running one without it
        #[arg(long)]
        month: Option<String>,
    },
    /// The OpenAPI document of the server's API
    Openapi,
    /// Who has changed what, a record a line, oldest first
    Audit {
        /// Only records behind this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Check instead that nothing was changed, taken out or cut off
        #[arg(long, conflicts_with = "after")]
        verify: bool,
    },
    /// The control plane at a glance
    Status,
    /// Compare ways to limit a fleet under the demand of a trace, without a server
    Simulate(SimulateOptions),
    /// End this process' group when standard input ends: the server starts this beside the trainer
    #[command(hide = true)]
    KeepGroup,
}

/// Options of `forebay simulate`.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("demand").required(true)))]
pub struct SimulateOptions {
    /// File with the demand (.parquet or .csv): a row for each request, or `requests` per step
    #[arg(long, group = "demand")]
    pub trace: Option<PathBuf>,
    /// Generate demand from this number
    #[arg(long, group = "demand", value_name = "SEED")]
    pub generate: Option<u64>,
    /// How much of the demand, from its start on: 600, or with --against all of it
    #[arg(long, value_parser = clap::value_parser!(u32).range(20..=2_678_400))]
    pub seconds: Option<u32>,
    /// Gateways
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub gateways: u16,
    /// What all contracts are together at most, in mean loads
    #[arg(long, default_value_t = 1.35)]
    pub capacity: f64,
    /// Part of each contract that policies with parts of their own keep in the middle, 0 to 0.9
    #[arg(long, default_value_t = 0.0)]
    pub reserve: f64,
    /// Which policies; all by default. With --against, the file of the newer one
    #[arg(long = "policy", value_name = "NAME|FILE", num_args = 1..)]
    pub policies: Vec<String>,
    /// What would have become of the demand under the policy in the file after --policy, and under this one
    #[arg(
        long,
        value_name = "FILE",
        requires = "policies",
        conflicts_with_all = ["gateways", "capacity", "reserve", "seeds", "faults"]
    )]
    pub against: Option<PathBuf>,
    /// Runs of each policy, with the seeds 1, 2, 3 ...
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub seeds: u64,
    /// One run, with this seed
    #[arg(long, conflicts_with = "seeds")]
    pub seed: Option<u64>,
    /// Lose, repeat and delay messages; cut off, kill and restart gateways and the control plane
    #[arg(long)]
    pub faults: bool,
    /// File for the means, each run goes to a .csv file beside it; with --against, for what became of every customer
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

// === impl Command ===

impl Command {
    /// What the process ends with when the command fails.
    #[must_use]
    pub fn exit_code_of_errors(&self) -> u8 {
        match self {
            // 1 says that the policies differ.
            Self::Policy(PolicyCommand::Diff { .. }) => 2,
            _ => 1,
        }
    }
}

/// Policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check a file without a server: YAML, or JSON if its name ends in .json
    Check {
        /// The policy
        file: PathBuf,
    },
    /// Put a file in force
    Apply {
        /// The policy
        file: PathBuf,
        /// For this part of the customers first, 1% to 99%; again with more of them for the same file
        #[arg(long, value_parser = Share::percent_from)]
        share: Option<u8>,
    },
    /// Count beside the policy in force what a file would admit and deny; nothing is enforced
    Try {
        /// The policy
        #[arg(required_unless_present_any = ["show", "stop"])]
        file: Option<PathBuf>,
        /// What has been counted
        #[arg(long, conflicts_with_all = ["file", "stop"])]
        show: bool,
        /// Customers, and loans, of each resource that are shown at most
        #[arg(long, requires = "show")]
        limit: Option<usize>,
        /// End it
        #[arg(long, conflicts_with = "file")]
        stop: bool,
    },
    /// Give the policy that is in force for a share of the customers to all of them
    Promote,
    /// Take the policy that is in force for a share of the customers back
    Rollback,
    /// What one policy changes against another. Exit code 0: nothing, 1: something, 2: an error
    Diff {
        /// A file, the number of a version, or `active`. Alone, it is compared with the policy in force: what would it change?
        #[arg(value_name = "A")]
        first: String,
        /// The newer one
        #[arg(value_name = "B")]
        second: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Versions, newest first
    List,
    /// The document of a version
    Show {
        /// Number of the version, or `active`
        #[arg(default_value = "active")]
        version: String,
    },
    /// Put an older version in force again
    Activate {
        /// Number of the version
        version: u64,
    },
    /// The JSON Schema of policies
    Schema,
}

/// Who ends a canary, or a comparison.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PromoteBy {
    /// The server
    Auto,
    /// `forebay model promote` or `rollback`; of a comparison `activate` or `withdraw`
    Manual,
}

/// Models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Let the forecaster judge a file, without a server
    Check {
        /// The ONNX file
        file: PathBuf,
        /// forecaster.wasm; beside this program by default
        #[arg(long)]
        forecaster_wasm: Option<PathBuf>,
    },
    /// Make a signing key
    Keygen {
        /// File for the key; must not exist
        #[arg(long)]
        out: PathBuf,
    },
    /// Sign a release, on a machine that needs no server
    Sign {
        /// File with the signing key
        #[arg(long)]
        key: PathBuf,
        /// The model file
        #[arg(conflicts_with = "digest", required_unless_present = "digest")]
        file: Option<PathBuf>,
        /// Its SHA-256 instead of the file
        #[arg(long)]
        digest: Option<String>,
        /// Model epoch; must be above the running one
        #[arg(long)]
        epoch: u64,
        /// Sign a roll-back
        #[arg(long)]
        roll_back: bool,
        /// Sign for a comparison only: nobody can put the model in force with it
        #[arg(long, conflicts_with = "roll_back")]
        challenger: bool,
    },
    /// Bring a file into the registry; the server's sandbox judges it
    Upload {
        /// The ONNX file
        file: PathBuf,
        /// The card that forebay-train has written beside it
        #[arg(long)]
        card: Option<PathBuf>,
        /// Digest of the model that it was made from
        #[arg(long)]
        parent: Option<String>,
        /// SHA-256 of the data that it was made from, if there is no card
        #[arg(long)]
        data_digest: Option<String>,
    },
    /// What is known of a model of the registry
    Show {
        /// Its digest
        digest: String,
    },
    /// Release a model of the registry
    Activate {
        /// Its digest
        digest: String,
        /// At this part of the gateways first, 1% to 99%
        #[arg(long, value_parser = Share::percent_from)]
        share: Option<u8>,
        /// Who gives it to all gateways, or takes it back: the server when the evidence is there, or you
        #[arg(long, requires = "share")]
        promote: Option<PromoteBy>,
        /// Epoch that was signed
        #[arg(long, requires = "signature")]
        epoch: Option<u64>,
        /// Signature made elsewhere
        #[arg(long, requires = "epoch")]
        signature: Option<String>,
    },
    /// Train a model on the usage history of the server, beside those that its schedule begins
    Train {
        /// On which resource; the policy's first without it
        #[arg(long)]
        resource: Option<String>,
        /// End the training that runs instead
        #[arg(long, conflicts_with = "resource")]
        stop: bool,
    },
    /// The training that runs, and what has come of those before
    Training,
    /// Give the model that runs at a share of the gateways to all of them
    Promote,
    /// Let all gateways run a model beside the one in force, without effect, and compare their forecasts
    Challenge {
        /// Its digest
        digest: String,
        /// Who releases it, or withdraws it: the server when the evidence is there, or you
        #[arg(long)]
        promote: Option<PromoteBy>,
        /// Epoch that was signed
        #[arg(long, requires = "signature")]
        epoch: Option<u64>,
        /// Signature made elsewhere
        #[arg(long, requires = "epoch")]
        signature: Option<String>,
    },
    /// The model that is compared with the one in force, and how it fares
    Challenger,
    /// End the comparison
    Withdraw,
    /// Go back to the model that ran before, or to a given one; from a share of the gateways, to the one that the others run
    Rollback {
        /// Its digest
        digest: Option<String>,
        /// Epoch that was signed
        #[arg(long, requires = "signature")]
        epoch: Option<u64>,
        /// Signature made elsewhere
        #[arg(long, requires = "epoch")]
        signature: Option<String>,
    },
    /// The registry, newest first
    List,
}

/// Customers. KEY is the customer's key, or `hash:` and its 32-digit hash.
#[derive(Debug, Subcommand)]
pub enum CustomerCommand {
    /// Contract, buckets and counters
    Show {
        /// The customer
        key: String,
    },
    /// Give tokens; a negative number takes them
    Credit {
        /// The customer
        key: String,
        /// Tokens, up to 6 decimals
        #[arg(allow_negative_numbers = true)]
        tokens: f64,
        /// Which resource, if there are several
        #[arg(long)]
        resource: Option<String>,
    },
    /// Fill all buckets and forgive debts
    Reset {
        /// The customer
        key: String,
    },
    /// Deny everything with the reason `banned`
    Ban {
        /// The customer
        key: String,
        /// End of the ban, seconds since 1970; without it there is no end
        #[arg(long)]
        until_unix_s: Option<u64>,
    },
    /// End a ban
    Unban {
        /// The customer
        key: String,
    },
    /// Deny everything and keep the buckets as they are
    Freeze {
        /// The customer
        key: String,
    },
    /// End a freeze
    Unfreeze {
        /// The customer
        key: String,
    },
    /// Admit everything and count it, unless the customer is banned or frozen
    Exempt {
        /// The customer
        key: String,
    },
    /// End an exemption
    Unexempt {
        /// The customer
        key: String,
    },
}

/// Usage history.
#[derive(Debug, Subcommand)]
pub enum HistoryCommand {
    /// Take usage from Prometheus, or from what speaks its API, into the server's history
    Import(Box<ImportOptions>),
}

/// Options of `forebay history import`.
#[derive(Clone, Debug, Args)]
pub struct ImportOptions {
    /// Where Prometheus is: URL below which /api/v1/query_range is found
    #[arg(
        long,
        value_name = "URL",
        env = "FOREBAY_PROMETHEUS",
        hide_env_values = true
    )]
    pub prometheus: String,
    /// Token to show there (Authorization: Bearer), if the URL has no user and password
    #[arg(
        long,
        value_name = "TOKEN",
        env = "FOREBAY_PROMETHEUS_TOKEN",
        hide_env_values = true
    )]
    pub prometheus_token: Option<String>,
    /// One series for each customer, with the tokens of the step that ends at each time. $__interval in it becomes the server's step
    #[arg(long, value_name = "PROMQL")]
    pub query: String,
    /// The query's values are tokens per second, as those of rate() are
    #[arg(long)]
    pub per_second: bool,
    /// The label that holds a customer's key, or `hash:` and its hash
    #[arg(long, value_name = "LABEL", default_value = "customer")]
    pub customer_label: String,
    /// Which resource, if there are several
    #[arg(long)]
    pub resource: Option<String>,
    /// The last so many days; without it all steps that the server keeps
    #[arg(long, value_name = "N", conflicts_with = "from_unix_s", value_parser = clap::value_parser!(u32).range(1..))]
    pub days: Option<u32>,
    /// From this time on, seconds since 1970
    #[arg(long)]
    pub from_unix_s: Option<u64>,
    /// Up to this time, seconds since 1970; a minute ago by default, since measurements arrive late
    #[arg(long)]
    pub to_unix_s: Option<u64>,
}

/// Options of `forebay forecasts`.
#[derive(Clone, Debug, Args)]
pub struct ForecastsOptions {
    /// Of this customer only: its key, or `hash:` and its hash
    #[arg(long, value_name = "KEY", conflicts_with_all = ["group", "after"])]
    pub customer: Option<String>,
    /// Of this group only: all, rest, tier:N or contract:NAME
    #[arg(long, conflicts_with = "after")]
    pub group: Option<String>,
    /// Of this resource only
    #[arg(long)]
    pub resource: Option<String>,
    /// Only those behind this group or customer (`hash:` and its hash)
    #[arg(long)]
    pub after: Option<String>,
    /// At most so many customers and groups, 1000 without it
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Options of `forebay allocations`.
#[derive(Clone, Debug, Args)]
pub struct AllocationsOptions {
    /// Of this customer only: its key, or `hash:` and its hash
    #[arg(long, value_name = "KEY", conflicts_with_all = ["group", "after"])]
    pub customer: Option<String>,
    /// Of this group of linked accounts only, groups within it among them
    #[arg(long)]
    pub group: Option<String>,
    /// Only those behind this customer (`hash:` and its hash)
    #[arg(long)]
    pub after: Option<String>,
    /// At most so many customers, 1000 without it
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Divide the pools anew instead, at once
    #[arg(long, conflicts_with_all = ["customer", "group", "after", "limit"])]
    pub run: bool,
}

/// Options of `forebay anomalies`.
#[derive(Clone, Debug, Args)]
pub struct AnomaliesOptions {
    /// Of this customer only: its key, or `hash:` and its hash
    #[arg(long, value_name = "KEY", conflicts_with = "after")]
    pub customer: Option<String>,
    /// Of this kind only
    #[arg(long, value_parser = ["unusual", "crowd"])]
    pub kind: Option<String>,
    /// Only those behind this customer (`hash:` and its hash)
    #[arg(long)]
    pub after: Option<String>,
    /// At most so many customers, 1000 without it
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Options of `forebay loans`.
#[derive(Clone, Debug, Args)]
pub struct LoansOptions {
    /// Of this customer only: its key, or `hash:` and its hash
    #[arg(long, value_name = "KEY", conflicts_with = "after")]
    pub customer: Option<String>,
    /// Only those behind this customer (`hash:` and its hash)
    #[arg(long)]
    pub after: Option<String>,
    /// At most so many customers, 1000 without it
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Options of `forebay spillover`.
#[derive(Clone, Debug, Args)]
pub struct SpilloverOptions {
    /// Pairs of this customer on either side: its key, or `hash:` and its hash
    #[arg(long, value_name = "KEY")]
    pub customer: Option<String>,
    /// Pairs in which this customer's spike is looked at
    #[arg(long, value_name = "KEY")]
    pub spiker: Option<String>,
    /// Pairs in which this customer would be short
    #[arg(long, value_name = "KEY")]
    pub hit: Option<String>,
    /// Pairs of tiers or groups instead: tier or group
    #[arg(long, conflicts_with_all = ["customer", "spiker", "hit"])]
    pub by: Option<String>,
    /// Of this resource only
    #[arg(long)]
    pub resource: Option<String>,
    /// Leave out the first so many pairs
    #[arg(long, value_name = "N")]
    pub offset: Option<usize>,
    /// At most so many pairs, 1000 without it
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Who rises with whom in the usage history instead, and matrices of correlations
    #[arg(long, conflicts_with_all = ["customer", "spiker", "hit", "by", "offset"])]
    pub links: bool,
}

/// Gateways.
#[derive(Debug, Subcommand)]
pub enum GatewayCommand {
    /// Take back at once what a gateway holds that is surely gone
    Retire {
        /// Its name
        id: String,
    },
}
