//! What would have been forecast of each customer at the start of each cycle: the mixture of simple methods, one cycle ahead.
//!
//! Learned families would be better forecasters, and would have to be trained on what came before the record. What is compared is two policies, and both are told the same.

use forebay_families::{
    Family, Forecasts, Frame, History, MixtureSettings, Priors, QUANTILES, SIMPLE, mix,
};
use forebay_sharing::Outlook;

const DAY_S: usize = 86_400;
const HOUR_S: usize = 3_600;
/// Cycles whose errors make the simple methods' quantiles.
const ERRORS: usize = 288;

/// `[cycle][customer]`, from `[customer][cycle]`: made from what was asked for before the cycle, and nothing later. Where that is too little
/// to forecast from it is what was measured in the cycle before, and of the first cycle nothing is known.
pub(super) fn outlooks(usage_per_s: &[Vec<f64>], cycle_s: u32) -> Vec<Vec<Outlook>> {
    let cycles = usage_per_s.iter().map(Vec::len).max().unwrap_or(0);
    let mut outlooks = vec![Vec::with_capacity(usage_per_s.len()); cycles];
    for usage in usage_per_s {
        let forecasts = forecast(usage, cycle_s);
        let mut last_per_s = 0.0;
        for (cycle, outlooks) in outlooks.iter_mut().enumerate() {
            let before = cycle.checked_sub(1);
            if let Some(usage) = before.and_then(|before| usage.get(before))
                && !usage.is_nan()
            {
                last_per_s = *usage;
            }
            let row = before.and_then(|before| Some(forecasts.as_ref()?.of(before, 1)));
            outlooks.push(outlook(row, last_per_s));
        }
    }
    outlooks
}

/// From the end of every cycle but the last.
fn forecast(usage: &[f64], cycle_s: u32) -> Option<Forecasts> {
    let newest = usage.len().checked_sub(2)?;
    // Who never asks needs no forecast.
    if !usage.iter().any(|per_s| *per_s > 0.0) {
        return None;
    }
    let cycles_of = |seconds: usize| (seconds / cycle_s.max(1) as usize).max(1);
    let day = cycles_of(DAY_S);
    let frame = Frame {
        season: match usage.len() > day {
            true => day,
            false => cycles_of(HOUR_S),
        },
        long_season: (usage.len() > 8 * day).then_some(7 * day),
        horizons: 1,
        error_rows: ERRORS,
    };
    let history = History::new(0, cycle_s, usage.to_vec());
    let forecasts = SIMPLE.map(|family| family.forecast(&history, &frame, 0..=newest));
    let families: Vec<Option<&Forecasts>> = forecasts.iter().map(Option::as_ref).collect();
    mix(
        &history,
        &frame,
        &families,
        &Priors::equal(),
        &MixtureSettings::default(),
    )
}

fn outlook(row: Option<&[f32]>, last_per_s: f64) -> Outlook {
    match row {
        Some([_, median, nine_tenths, upper]) if upper.is_finite() => Outlook {
            quantiles_per_s: [*median, *nine_tenths, *upper].map(f64::from),
        },
        _ => Outlook::of_demand(last_per_s),
    }
}

const _: () = assert!(QUANTILES.len() == 4);

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cycles: usize) -> Vec<f64> {
        (0..cycles)
            .map(|cycle| match cycle % 7 {
                3 => f64::NAN,
                phase => 10.0 + phase as f64,
            })
            .collect()
    }

    #[test]
    fn forecasts_know_nothing_of_what_comes_later() {
        let (was, mut other) = (usage(400), usage(400));
        for later in other.iter_mut().skip(200) {
            *later = 9_999.0;
        }
        let (one, two) = (outlooks(&[was], 300), outlooks(&[other], 300));
        assert_eq!(one[..=200], two[..=200]);
        assert_ne!(one[201], two[201]);
        assert_eq!(one[0], [Outlook::of_demand(0.0)]);
        assert_eq!(one[1], [Outlook::of_demand(10.0)]);
        let [median, .., upper] = one[200][0].quantiles_per_s;
        assert!(9.0 < median && median <= upper && upper < 20.0, "{one:?}");
    }

    #[test]
    fn the_shortest_records_and_those_of_who_never_asks_have_outlooks_too() {
        for cycles in 0..4 {
            let made = outlooks(
                &[usage(cycles), vec![0.0; cycles], vec![f64::NAN; cycles]],
                3_600,
            );
            assert_eq!(made.len(), cycles);
            for of_cycle in made {
                assert_eq!(of_cycle.len(), 3);
                assert_eq!(of_cycle[1..], [Outlook::default(); 2]);
            }
        }
    }
}
