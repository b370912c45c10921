//! What a forecaster is started with: configuration and environment, read and checked once.
//!
//! Apart from the forecaster, because a VM is configured before it is known whether it will ever lead, and a mistake must be said then.

use forebay_core::ledger::LedgerSize;
use forebay_wire::forecaster_config::{
    ControlPlaneConfig, Credential, ForecasterConfig, ForecasterConfigError,
};
use forebay_wire::key::KeySecret;
use sha2::{Digest, Sha256};

use crate::model::TrustedKeys;

/// What comes from the environment of the process: secrets never stand in a configuration, which Envoy shows to whoever may see its
/// admin page.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `FOREBAY_GATEWAY_TOKEN`.
    pub gateway_token: Option<String>,
    /// `FOREBAY_GATEWAY_ID`.
    pub gateway_id: Option<String>,
    /// `FOREBAY_KEY_HASH_SECRET`.
    pub key_hash_secret: Option<String>,
    /// Any number that another VM, of this gateway or another one, is unlikely to have.
    pub random: u64,
}

/// Why the plugin cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ForecasterConfigError),
    /// A public key is not one.
    #[error(
        "forecaster configuration: model.public_keys: not a point of the curve; paste the key that `forebay model keygen` printed"
    )]
    PublicKey,
    /// The gateway has no name.
    #[error(
        "the gateway has no id: set control_plane.gateway_id, or the environment variable FOREBAY_GATEWAY_ID (see host_env_keys)"
    )]
    NoGatewayId,
    /// The gateway has no token.
    #[error(
        "the gateway has no token: set the environment variable FOREBAY_GATEWAY_TOKEN and name it in host_env_keys, or set control_plane.credential to `certificate` if the cluster shows one"
    )]
    NoToken,
    /// The secret for hashing keys is not one.
    #[error("FOREBAY_KEY_HASH_SECRET: expected 32 hexadecimal digits")]
    KeySecret,
}

/// Configuration and environment of a forecaster.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) config: ForecasterConfig,
    pub(crate) keys: TrustedKeys,
    pub(crate) key_fingerprint: u64,
    pub(crate) control_plane: Option<Access>,
    pub(crate) random: u64,
    /// The same for the same build and configuration.
    pub(crate) mark: u64,
}

/// How the gateway shows itself to the control plane.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) config: ControlPlaneConfig,
    pub(crate) gateway_id: String,
    /// None where the connection has a certificate instead.
    pub(crate) token: Option<String>,
}

// === impl Settings ===

impl Settings {
    pub(crate) fn read(bytes: &[u8], environment: &Environment) -> Result<Self, ConfigureError> {
        let config = ForecasterConfig::parse(bytes)?;
        let keys =
            TrustedKeys::from_hex(&config.model.public_keys).ok_or(ConfigureError::PublicKey)?;
        let secret = match &environment.key_hash_secret {
            Some(hex) => KeySecret::from_hex(hex).map_err(|_| ConfigureError::KeySecret)?,
            None => KeySecret::development(),
        };
        let control_plane = config
            .control_plane
            .as_ref()
            .map(|settings| Access::read(settings, environment))
            .transpose()?;
        Ok(Self {
            config,
            keys,
            key_fingerprint: secret.fingerprint(),
            control_plane,
            random: environment.random,
            mark: mark(bytes),
        })
    }

    pub(crate) fn ledger_size(&self) -> LedgerSize {
        LedgerSize {
            max_policy_customers: u64::from(self.config.ledger.max_policy_customers),
            max_other_customers: u64::from(self.config.ledger.max_other_customers),
        }
    }
}

// === impl Access ===

impl Access {
    fn read(
        settings: &ControlPlaneConfig,
        environment: &Environment,
    ) -> Result<Self, ConfigureError> {
        let gateway_id = settings
            .gateway_id
            .clone()
            .or_else(|| environment.gateway_id.clone());
        let gateway_id = gateway_id
            .filter(|id| !id.is_empty())
            .ok_or(ConfigureError::NoGatewayId)?;
        let token = match settings.credential {
            // A token that is in the environment still could be one that no longer opens anything.
            Credential::Certificate => None,
            Credential::Token => {
                let token = environment.gateway_token.clone();
                let token = token.filter(|token| is_token(token));
                Some(token.ok_or(ConfigureError::NoToken)?)
            }
        };
        Ok(Self {
            config: settings.clone(),
            gateway_id,
            token,
        })
    }
}

/// A token must not be able to end its header line.
fn is_token(token: &str) -> bool {
    !token.is_empty() && token.len() <= 512 && token.bytes().all(|byte| byte.is_ascii_graphic())
}

fn mark(config: &[u8]) -> u64 {
    let digest = Sha256::new()
        .chain_update(env!("CARGO_PKG_VERSION"))
        .chain_update(config)
        .finalize();
    digest
        .first_chunk::<8>()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
