//! The cases against the filter compiled for this machine, with a host in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod memory_host;

use forebay_admission::{Action, configure};
use forebay_conformance::{Case, Seen, Sent};
use memory_host::MemoryHost;

#[test]
fn every_case_has_its_answers_natively() {
    let cases = forebay_conformance::all();
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        wrong.extend(
            run(case)
                .err()
                .map(|error| format!("{}: {error}", case.name)),
        );
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let mut names: Vec<&str> = forebay_conformance::all()
        .iter()
        .map(|case| case.name)
        .collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

fn run(case: &Case) -> Result<(), String> {
    let mut host = MemoryHost::new();
    let mut filter = match configure(&mut host, case.config.as_bytes(), None) {
        Ok(filter) if case.refused.is_empty() => filter,
        Ok(_) => return Err("the configuration was accepted".to_owned()),
        Err(error) if case.refused.is_empty() => {
            return Err(format!("the configuration was refused: {error}"));
        }
        Err(error) => {
            let text = error.to_string();
            let missing = case.refused.iter().find(|word| !text.contains(**word));
            return missing.map_or(Ok(()), |word| {
                Err(format!("the error lacks `{word}`: {text}"))
            });
        }
    };
    let mut now_ms = 0;
    for (index, step) in case.steps.iter().enumerate() {
        while now_ms < step.at_ms {
            let step_ms = (step.at_ms - now_ms).min(u64::from(forebay_admission::TICK_MS));
            host.advance_ms(step_ms);
            now_ms += step_ms;
            filter.on_tick(&mut host);
        }
        let seen = send(
            &mut host,
            &mut filter,
            &step.sent,
            u32::try_from(index).unwrap() + 1,
        );
        if let Some(difference) = step.expected.difference(&seen) {
            return Err(format!("request {}: {difference}", index + 1));
        }
    }
    Ok(())
}

fn send(
    host: &mut MemoryHost,
    filter: &mut forebay_admission::Filter,
    sent: &Sent,
    stream: u32,
) -> Seen {
    host.begin(sent);
    let action = filter.on_request_headers(host, stream);
    let answered = host.take_reply();
    assert_eq!(
        action == Action::Stop,
        answered.is_some(),
        "a request is stopped by answering it"
    );
    match answered {
        None => {
            host.upstream_answers(sent);
            filter.on_response_headers(host, stream);
            Seen {
                status: 200,
                headers: host.response_headers(),
                body: b"ok".to_vec(),
                grpc_status: None,
            }
        }
        Some(reply) => {
            let seen = Seen {
                status: reply.status,
                headers: reply.headers,
                body: reply.body,
                grpc_status: None,
            };
            if sent.is_grpc() {
                seen.for_grpc(reply.grpc_status)
            } else {
                seen
            }
        }
    }
}
