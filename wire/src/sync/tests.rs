//! `wire/sync.proto` and the Rust structs are one schema: both are read as text and compared line by line of meaning.

use prost::Message;
use std::collections::BTreeMap;

const PROTO: &str = include_str!("../../sync.proto");
const RUST: [&str; 2] = [include_str!("request.rs"), include_str!("reply.rs")];

/// Message or enum -> number -> "type name".
type Schema = BTreeMap<String, BTreeMap<u32, String>>;

fn schema_of_proto() -> Schema {
    let mut schema = Schema::new();
    let mut current = String::new();
    for line in PROTO
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
    {
        if let Some(rest) = line
            .strip_prefix("message ")
            .or_else(|| line.strip_prefix("enum "))
        {
            current = rest.trim_end_matches(" {").to_string();
        } else if let Some((left, number)) = line.trim_end_matches(';').split_once(" = ")
            && let Ok(number) = number.parse()
        {
            schema
                .entry(current.clone())
                .or_default()
                .insert(number, left.to_string());
        }
    }
    schema
}

fn schema_of_rust() -> Schema {
    let mut schema = Schema::new();
    for source in RUST {
        let (mut current, mut attribute, mut is_enum) = (String::new(), String::new(), false);
        for line in source.lines().map(str::trim) {
            if let Some(rest) = line
                .strip_prefix("pub struct ")
                .or_else(|| line.strip_prefix("pub enum "))
            {
                is_enum = line.starts_with("pub enum");
                current = rest.trim_end_matches(" {").to_string();
            } else if let Some(rest) = line.strip_prefix("#[prost(") {
                attribute = rest.trim_end_matches(")]").to_string();
            } else if let Some((name, kind)) = line
                .strip_prefix("pub ")
                .and_then(|rest| rest.split_once(": "))
            {
                let number = attribute
                    .split("tag = \"")
                    .nth(1)
                    .unwrap()
                    .trim_end_matches('"')
                    .parse()
                    .unwrap();
                let left = format!("{} {name}", proto_type(&attribute, kind));
                schema
                    .entry(current.clone())
                    .or_default()
                    .insert(number, left);
            } else if is_enum
                && let Some((name, number)) = line.trim_end_matches(',').split_once(" = ")
                && let Ok(number) = number.parse()
            {
                let left = format!("{}_{}", shouted(&current), shouted(name));
                schema
                    .entry(current.clone())
                    .or_default()
                    .insert(number, left);
            }
        }
    }
    schema
}

fn proto_type(attribute: &str, rust: &str) -> String {
    let base = attribute.split([',', ' ']).next().unwrap();
    let kind = match base {
        "message" => rust
            .trim_end_matches(',')
            .trim_end_matches('>')
            .rsplit('<')
            .next()
            .unwrap(),
        "enumeration" => attribute.split('"').nth(1).unwrap(),
        other => other,
    };
    let repeated = if attribute.contains("repeated") {
        "repeated "
    } else {
        ""
    };
    format!("{repeated}{kind}")
}

fn shouted(camel: &str) -> String {
    let mut out = String::new();
    for (index, letter) in camel.char_indices() {
        if index > 0 && letter.is_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}

#[test]
fn the_proto_file_and_the_structs_are_one_schema() {
    let (proto, rust) = (schema_of_proto(), schema_of_rust());
    assert!(
        proto.len() >= 15,
        "the reader of sync.proto found only {} messages",
        proto.len()
    );
    assert_eq!(
        proto
            .keys()
            .filter(|name| *name != "bytes")
            .collect::<Vec<_>>(),
        rust.keys().collect::<Vec<_>>()
    );
    for (name, fields) in &rust {
        let written: BTreeMap<u32, String> = fields
            .iter()
            .map(|(number, left)| (*number, left.replace("bytes = \"vec\"", "bytes")))
            .collect();
        assert_eq!(&proto[name], &written, "{name}");
    }
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    let request = super::SyncRequest {
        gateway_id: "g".into(),
        customers: vec![super::CustomerReport::default(); 3],
        ..Default::default()
    };
    let bytes = request.encode_to_vec();
    for cut in 0..bytes.len() {
        let _ = super::SyncRequest::decode(&bytes[..cut]);
    }
    assert!(super::SyncRequest::decode(&[0xff; 64][..]).is_err());
}
