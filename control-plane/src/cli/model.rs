//! `forebay model ...`

use super::client::encode;
use super::output::{print, read_file};
use super::{Client, Connection, ModelCommand};
use crate::models::{
    Sandbox, SandboxLimits, SigningKeyFile, digest_of, from_hex, generate_key, hex, public_key_hex,
    sign,
};
use crate::serve::forecaster_beside_us;
use forebay_wire::model::{ModelStatement, ReleaseKind};
use serde_json::json;
use std::path::Path;

pub(super) fn run(command: ModelCommand, connection: &Connection) -> Result<(), String> {
    match command {
        ModelCommand::Check {
            file,
            forecaster_wasm,
        } => {
            let forecaster = forecaster_wasm.unwrap_or_else(forecaster_beside_us);
            let sandbox = Sandbox::new(&forecaster, SandboxLimits::default());
            let model = read_file(&file)?;
            let verdict = sandbox
                .check(&model)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            if !verdict.ok {
                return Err(format!("{}: {}", file.display(), verdict.message));
            }
            print(
                &json!({"ok": true, "digest": hex(&digest_of(&model)), "bytes": model.len(), "facts": verdict.facts}),
            )
        }
        ModelCommand::Keygen { out } => {
            let key = generate_key(&out).map_err(|error| error.to_string())?;
            print(&json!({"key_file": out, "public_key": public_key_hex(&key)}))
        }
        ModelCommand::Sign {
            key,
            file,
            digest,
            epoch,
            roll_back,
        } => {
            let key = SigningKeyFile::read(&key).map_err(|error| error.to_string())?;
            let digest = digest_to_sign(file.as_deref(), digest.as_deref())?;
            let kind = if roll_back {
                ReleaseKind::RollBack
            } else {
                ReleaseKind::Release
            };
            let signature = sign(
                &key,
                &ModelStatement {
                    digest,
                    epoch,
                    kind,
                },
            );
            print(&json!({
                "digest": hex(&digest),
                "epoch": epoch,
                "roll_back": roll_back,
                "signature": hex(&signature),
                "public_key": public_key_hex(&key),
            }))
        }
        ModelCommand::Upload { file } => {
            let client = Client::new(connection)?;
            print(&client.post_bytes(
                "/v1/models",
                "application/octet-stream",
                read_file(&file)?,
            )?)
        }
        ModelCommand::Activate {
            digest,
            epoch,
            signature,
        } => {
            let body = epoch.map(|epoch| json!({"epoch": epoch, "signature": signature}));
            print(&Client::new(connection)?.post(
                &format!("/v1/models/{}/activate", encode(&digest)),
                body.as_ref(),
            )?)
        }
        ModelCommand::Rollback {
            digest,
            epoch,
            signature,
        } => {
            let body = json!({"digest": digest, "epoch": epoch, "signature": signature});
            print(&Client::new(connection)?.post("/v1/models/rollback", Some(&body))?)
        }
        ModelCommand::List => print(&Client::new(connection)?.get("/v1/models")?),
    }
}

fn digest_to_sign(file: Option<&Path>, digest: Option<&str>) -> Result<[u8; 32], String> {
    match (file, digest) {
        (Some(file), _) => Ok(digest_of(&read_file(file)?)),
        (None, Some(digest)) => {
            from_hex(digest).ok_or_else(|| "--digest is not 64 hexadecimal digits".to_owned())
        }
        (None, None) => Err("give the model file or --digest".to_owned()),
    }
}
