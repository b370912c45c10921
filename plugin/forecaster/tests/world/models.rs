//! A gateway that takes models, and whoever signs them.

use ed25519_dalek::{Signer, SigningKey};
use forebay_wire::model::{ModelStatement, ReleaseKind};
use forebay_wire::sync::ModelRelease;
use sha2::{Digest, Sha256};

fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

pub fn config() -> String {
    let public: String = signing_key()
        .verifying_key()
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        r#"{{"version": 1, "control_plane": {{"cluster": "plane", "gateway_id": "gw-1"}},
            "series": {{"step_s": 600}}, "calendar": {{"speed_up": 600, "wall_start_ms": 1760000000000, "calendar_start_ms": 1760000400000}},
            "model": {{"public_keys": ["{public}"]}}}}"#
    )
}

pub fn release(epoch: u64, kind: ReleaseKind, file: &[u8]) -> ModelRelease {
    let digest: [u8; 32] = Sha256::digest(file).into();
    let statement = ModelStatement {
        digest,
        epoch,
        kind,
    };
    ModelRelease {
        epoch,
        digest: digest.to_vec(),
        kind: u32::from(kind.code()),
        signature: signing_key()
            .sign(&statement.to_bytes())
            .to_bytes()
            .to_vec(),
        path: "/v1/models/file".to_owned(),
        bytes: u64::try_from(file.len()).unwrap(),
    }
}
