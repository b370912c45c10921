//! `forebay model ...`

use super::client::encode;
use super::commands::PromoteBy;
use super::output::{print, read_file};
use super::{Client, Connection, ModelCommand};
use crate::models::{
    Sandbox, SandboxLimits, SigningKeyFile, digest_of, from_hex, generate_key, hex, public_key_hex,
    sign,
};
use crate::serve::forecaster_beside_us;
use forebay_wire::model::{ModelStatement, ReleaseKind};
use serde_json::{Value, json};
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
            challenger,
        } => {
            let key = SigningKeyFile::read(&key).map_err(|error| error.to_string())?;
            let digest = digest_to_sign(file.as_deref(), digest.as_deref())?;
            let kind = match (roll_back, challenger) {
                (true, _) => ReleaseKind::RollBack,
                (false, true) => ReleaseKind::Challenger,
                (false, false) => ReleaseKind::Release,
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
                "challenger": challenger,
                "signature": hex(&signature),
                "public_key": public_key_hex(&key),
            }))
        }
        ModelCommand::Upload {
            file,
            card,
            parent,
            data_digest,
        } => {
            let about = about(card.as_deref(), parent, data_digest)?;
            let client = Client::new(connection)?;
            let model =
                client.post_bytes("/v1/models", "application/octet-stream", read_file(&file)?)?;
            let digest = model.get("digest").and_then(Value::as_str);
            let (Some(about), Some(digest)) = (about, digest) else {
                return print(&model);
            };
            let path = format!("/v1/models/{}/about", encode(digest));
            print(&client.put(&path, &about)?)
        }
        ModelCommand::Show { digest } => {
            let path = format!("/v1/models/{}/about", encode(&digest));
            print(&Client::new(connection)?.get(&path)?)
        }
        ModelCommand::Train { stop: true, .. } => {
            print(&Client::new(connection)?.post("/v1/training/stop", None)?)
        }
        ModelCommand::Train { resource, .. } => {
            let body = json!({"resource": resource});
            print(&Client::new(connection)?.post("/v1/training", Some(&body))?)
        }
        ModelCommand::Training => print(&Client::new(connection)?.get("/v1/training")?),
        ModelCommand::Promote => print(&Client::new(connection)?.post("/v1/models/promote", None)?),
        ModelCommand::Activate {
            digest,
            share,
            promote,
            epoch,
            signature,
        } => {
            let promote = promote.map(PromoteBy::name);
            let mut body = json!({
                "epoch": epoch, "signature": signature, "promote": promote,
            });
            // The server refuses a share that is null.
            if let (Some(share), Some(body)) = (share, body.as_object_mut()) {
                body.insert("share".to_owned(), json!(share));
            }
            print(&Client::new(connection)?.post(
                &format!("/v1/models/{}/activate", encode(&digest)),
                Some(&body),
            )?)
        }
        ModelCommand::Challenge {
            digest,
            promote,
            epoch,
            signature,
        } => {
            let promote = promote.map(PromoteBy::name);
            let body = json!({"epoch": epoch, "signature": signature, "promote": promote});
            print(&Client::new(connection)?.post(
                &format!("/v1/models/{}/challenge", encode(&digest)),
                Some(&body),
            )?)
        }
        ModelCommand::Challenger => print(&Client::new(connection)?.get("/v1/models/challenger")?),
        ModelCommand::Withdraw => {
            print(&Client::new(connection)?.post("/v1/models/withdraw", None)?)
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

impl PromoteBy {
    /// As in requests.
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
        }
    }
}

/// What is told of a model beside its file, if anything is.
fn about(
    card: Option<&Path>,
    parent: Option<String>,
    data_digest: Option<String>,
) -> Result<Option<Value>, String> {
    if card.is_none() && parent.is_none() && data_digest.is_none() {
        return Ok(None);
    }
    let card: Option<Value> = card
        .map(|path| {
            serde_json::from_slice(&read_file(path)?)
                .map_err(|error| format!("{}: not a card in JSON: {error}", path.display()))
        })
        .transpose()?;
    Ok(Some(
        json!({"card": card, "parent": parent, "data_digest": data_digest}),
    ))
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
