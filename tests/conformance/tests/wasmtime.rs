//! The cases against the shipped module in the wasmtime host, in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use forebay_conformance::{Case, Seen, Sent};
use forebay_host::{Gateway, Headers, Plugin, Request, Response, Worker};

#[test]
fn every_case_has_its_answers_in_wasmtime() {
    let plugin = Plugin::shipped("admission").unwrap();
    let cases = forebay_conformance::all();
    let mut wrong = Vec::new();
    for case in &cases {
        wrong.extend(
            run(&plugin, case)
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

fn run(plugin: &Plugin, case: &Case) -> Result<(), String> {
    let mut gateway = Gateway::new();
    let mut worker = match gateway.worker(plugin, &case.config) {
        Ok(worker) if case.refused.is_empty() => worker,
        Ok(_) => return Err("the configuration was accepted".to_owned()),
        Err(error) if case.refused.is_empty() => {
            return Err(format!("the configuration was refused: {error:#}"));
        }
        Err(error) => {
            let text = format!("{error:#}");
            let missing = case.refused.iter().find(|word| !text.contains(**word));
            return missing.map_or(Ok(()), |word| {
                Err(format!("the error lacks `{word}`: {text}"))
            });
        }
    };
    let mut now_ms = 0;
    for (index, step) in case.steps.iter().enumerate() {
        while now_ms < step.at_ms {
            let step_ms = (step.at_ms - now_ms).min(u64::from(worker.tick_period_ms()));
            gateway.clock.advance_ms(step_ms);
            now_ms += step_ms;
            worker.tick().map_err(|error| format!("{error:#}"))?;
        }
        let seen = send(&mut worker, &step.sent)
            .map_err(|error| format!("request {}: {error:#}", index + 1))?;
        if let Some(difference) = step.expected.difference(&seen) {
            return Err(format!("request {}: {difference}", index + 1));
        }
    }
    Ok(())
}

fn send(worker: &mut Worker, sent: &Sent) -> anyhow::Result<Seen> {
    let mut request = Request::get(&[])
        .with(":method", sent.method.as_bytes())
        .with(":path", sent.path.as_bytes())
        .with_property(
            "source.address",
            format!("127.0.0.{}:4711", sent.source).as_bytes(),
        );
    for (name, value) in &sent.headers {
        request = request.with(name, value);
        if *name == "x-claim-sub" {
            request = request.with_property("metadata.filter_metadata.claims.sub", value);
        }
    }
    let in_flight = worker.begin(request)?;
    let mut response = Response::default();
    if let Some(cost) = sent.upstream_cost {
        response.headers = Headers::from_text(&[("x-cost", cost)]);
    }
    let outcome = worker.finish(in_flight, response)?;
    let seen = Seen {
        status: u16::try_from(outcome.status())?,
        headers: outcome.headers.0.clone(),
        body: outcome
            .local_reply
            .as_ref()
            .map_or(b"ok".to_vec(), |reply| reply.body.clone()),
        grpc_status: None,
    };
    match outcome.local_reply.and_then(|reply| reply.grpc_status) {
        Some(status) if sent.is_grpc() => Ok(seen.for_grpc(status)),
        _ => Ok(seen),
    }
}
