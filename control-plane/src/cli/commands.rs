//! Commands and their options.

use crate::serve::ServeOptions;
use clap::{Args, Parser, Subcommand};
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

/// How to reach the server.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Address of the server
    #[arg(
        long,
        global = true,
        env = "FOREBAY_SERVER",
        default_value = "http://127.0.0.1:7430"
    )]
    pub server: String,
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
    },
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
    },
    /// Bring a file into the registry; the server's sandbox judges it
    Upload {
        /// The ONNX file
        file: PathBuf,
    },
    /// Release a model of the registry
    Activate {
        /// Its digest
        digest: String,
        /// Epoch that was signed
        #[arg(long, requires = "signature")]
        epoch: Option<u64>,
        /// Signature made elsewhere
        #[arg(long, requires = "epoch")]
        signature: Option<String>,
    },
    /// Go back to the model that ran before, or to a given one
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
