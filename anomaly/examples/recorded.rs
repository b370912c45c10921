//! How many customers of recorded traces are flagged as they are: `FOREBAY_DATA=DIR cargo run -p forebay-anomaly --features traces --example recorded`.
//!
//! Nobody knows whether somebody abused something in them, so each flag counts as false.

use forebay_anomaly::{Customer, Kind, Peers, Step, Watch};
use forebay_traces::{ReadOptions, Series, TraceError, read};
use std::path::Path;
use std::time::Instant;

/// Eight hours are too few to learn from: of a short trace, so many copies follow one another.
const SHORT_COPIES: usize = 42;

fn main() -> Result<(), TraceError> {
    let Some(folder) = std::env::var_os("FOREBAY_DATA") else {
        println!("set FOREBAY_DATA to the folder with the traces");
        return Ok(());
    };
    for (name, value) in [
        ("servegen_10m", "requests"),
        ("servegen_10m", "tokens_in+tokens_out"),
        ("azfunc_1m", "requests"),
    ] {
        let file = Path::new(&folder).join(format!("{name}.parquet"));
        let all = read(&file, &ReadOptions::value(value))?;
        show(&format!("{name} {value}"), &all, 1);
        if name == "azfunc_1m" {
            show(
                &format!("{name} {value}, {SHORT_COPIES} times"),
                &all,
                SHORT_COPIES,
            );
        }
    }
    Ok(())
}

fn show(name: &str, all: &[Series], copies: usize) {
    let Some(step_s) = all.first().map(|series| series.step_s) else {
        return;
    };
    let start_s = all.iter().map(|series| series.start_s).min().unwrap_or(0);
    let end_s = all
        .iter()
        .map(|series| series.stamp_s(series.len()))
        .max()
        .unwrap_or(0);
    let steps = usize::try_from((end_s - start_s) / i64::from(step_s)).unwrap_or(0);
    let watch = Watch::new(step_s * 1_000);
    let mut peers = Peers::new(&watch);
    let mut customers = vec![Customer::default(); all.len()];
    let (mut alarms, mut crowds, mut flagged, mut judged) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut flagged_once = vec![false; all.len()];
    let mut observed_steps = 0_u64;
    #[expect(clippy::disallowed_methods, reason = "how long it takes is measured")]
    let began = Instant::now();
    for number in 0..steps * copies {
        let since_s = start_s + i64::from(step_s) * i64::try_from(number % steps).unwrap_or(0);
        let unix_s = start_s + i64::from(step_s) * i64::try_from(number).unwrap_or(0);
        let unix_ms = u64::try_from(unix_s).unwrap_or(0) * 1_000;
        peers.begin();
        let observed: Vec<_> = customers
            .iter_mut()
            .zip(all)
            .map(|(customer, series)| {
                let place = (since_s - series.start_s) / i64::from(step_s);
                let asked = series.values.get(usize::try_from(place).ok()?).copied();
                let asked = asked.filter(|asked| asked.is_finite())?;
                let step = Step {
                    unix_ms,
                    asked,
                    ..Step::default()
                };
                watch.observe(customer, &step)
            })
            .collect();
        observed_steps += observed.iter().flatten().count() as u64;
        observed.iter().flatten().for_each(|signs| peers.add(signs));
        for ((customer, signs), once) in customers.iter_mut().zip(&observed).zip(&mut flagged_once)
        {
            let Some(signs) = signs else { continue };
            let is_learning = customer.is_learning(&watch);
            let verdict = watch.judge(customer, signs, peers.around(signs));
            judged += u64::from(!is_learning);
            flagged += u64::from(verdict.kind == Kind::Unusual);
            if verdict.since_unix_ms == Some(unix_ms) {
                match verdict.kind {
                    Kind::Unusual => {
                        alarms += 1;
                        *once = true;
                    }
                    Kind::Crowd => crowds += 1,
                    Kind::Normal => {}
                }
            }
        }
    }
    let each_ns = began.elapsed().as_nanos() as f64 / (observed_steps as f64).max(1.0);
    let weeks = judged as f64 * f64::from(step_s) / (7.0 * 86_400.0);
    println!(
        "{name}: {alarms} flags of {} of {} customers in {weeks:.1} customer-weeks ({:.3} each), {:.2} % of the time; {crowds} times in a crowd; {each_ns:.0} ns a step",
        flagged_once.iter().filter(|once| **once).count(),
        all.len(),
        alarms as f64 / weeks.max(1e-9),
        100.0 * flagged as f64 / (judged as f64).max(1.0),
    );
}
