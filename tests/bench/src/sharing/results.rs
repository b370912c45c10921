//! Means over seeds, as a table and as JSON.

use forebay_simulator::Mean;
use forebay_simulator::pool::{Arrivals, PoolFigures};
use serde_json::{Map, Value, json};

use super::trial::{Key, Trial};

/// Whom others are compared with, pair by pair.
pub(crate) const YARDSTICK: &str = "reactive";
const CENTRAL: &str = "central";
const ORACLE: &str = "oracle";

/// All seeds of one trace under one process of arrivals.
pub(crate) struct Results {
    pub(crate) trace: &'static str,
    pub(crate) has_bars: bool,
    pub(crate) arrivals: Arrivals,
    pub(crate) trials: Vec<Trial>,
}

/// One figure of a run.
pub(crate) type Figure = fn(&PoolFigures) -> f64;

// === impl Results ===

impl Results {
    /// The mean of a figure.
    pub(crate) fn mean(&self, key: Key, figure: Figure) -> Mean {
        self.over_seeds(|trial| figure(&trial.figures[&key]))
    }

    /// The same in a spike of tier 3.
    pub(crate) fn mean_in_spike(&self, key: Key, figure: Figure) -> Mean {
        self.over_seeds(|trial| figure(&trial.spikes[&key]))
    }

    /// What was served over what could have been.
    pub(crate) fn goodput_vs_oracle(&self, key: Key) -> Mean {
        self.over_seeds(|trial| vs_oracle(trial, key, key.2))
    }

    /// By how much that is more than the yardstick's by the same mechanism and with the same seed.
    pub(crate) fn goodput_vs_reactive(&self, key: Key) -> Mean {
        self.over_seeds(|trial| vs_oracle(trial, key, key.2) - vs_oracle(trial, key, YARDSTICK))
    }

    fn over_seeds(&self, value: impl Fn(&Trial) -> f64) -> Mean {
        Mean::of(&self.trials.iter().map(value).collect::<Vec<f64>>())
    }

    fn keys(&self) -> impl Iterator<Item = Key> {
        self.trials
            .iter()
            .take(1)
            .flat_map(|trial| trial.figures.keys().copied())
    }

    /// `capacity / mechanism / policy / figure`: mean and half of the interval.
    pub(crate) fn json(&self) -> Value {
        let mut all = Map::new();
        for key in self.keys() {
            let (capacity, mechanism, policy) = key;
            let mut figures = Map::new();
            // What is no number is null there.
            let mut put = |name: &str, mean: Mean| {
                figures.insert(name.to_owned(), json!([mean.mean, mean.ci95]));
            };
            put("goodput_vs_oracle", self.goodput_vs_oracle(key));
            if mechanism != CENTRAL {
                put("goodput_vs_reactive", self.goodput_vs_reactive(key));
            }
            for (place, name) in PoolFigures::NAMES.iter().enumerate() {
                put(
                    name,
                    self.over_seeds(|trial| trial.figures[&key].values()[place]),
                );
            }
            if self.trials[0].spikes.contains_key(&key) {
                for (name, figure) in TIERS {
                    put(&format!("{name}_in_spike"), self.mean_in_spike(key, figure));
                }
            }
            let of_capacity = entry(&mut all, &format!("{:.2}", f64::from(capacity) / 100.0));
            entry(of_capacity, mechanism).insert(policy.to_owned(), Value::Object(figures));
        }
        Value::Object(all)
    }

    /// A line for each policy at one capacity, in per cent.
    pub(crate) fn print(&self, capacity: u32) {
        println!(
            "\n{}, {} arrivals, capacity {:.2} x the mean of the first half; in %, +- half of the 95 % interval",
            self.trace,
            self.arrivals.name(),
            f64::from(capacity) / 100.0
        );
        println!(
            "{:<34} {:>15} {:>15} {:>8} {:>8} {:>8} {:>7} {:>7} {:>8} {:>8} {:>8}",
            "",
            "of the oracle",
            "vs reactive",
            "false",
            "missed",
            "by sums",
            "over",
            "Jain",
            "inverted",
            "tier 1",
            "msg/req"
        );
        for key in self.keys().filter(|key| key.0 == capacity) {
            let (_, mechanism, policy) = key;
            let percent =
                |mean: Mean| format!("{:.2} +-{:.2}", 100.0 * mean.mean, 100.0 * mean.ci95);
            let figure = |figure: Figure| self.mean(key, figure).mean;
            let in_spike = match self.trials[0].spikes.contains_key(&key) {
                true => format!(
                    "{:.2}",
                    100.0 * self.mean_in_spike(key, |f| f.tier1_admitted).mean
                ),
                false => String::new(),
            };
            let paired = match mechanism {
                CENTRAL => String::new(),
                _ => percent(self.goodput_vs_reactive(key)),
            };
            println!(
                "{:<34} {:>15} {:>15} {:>8.3} {:>8.3} {:>8.3} {:>7.3} {:>7.2} {:>8.2} {:>8} {:>8.4}",
                format!("{mechanism} {policy}"),
                percent(self.goodput_vs_oracle(key)),
                paired,
                100.0 * figure(|f| f.false_rejected),
                100.0 * figure(|f| f.guarantee_missed_steady),
                100.0 * figure(|f| f.guarantee_missed),
                100.0 * figure(|f| f.over_admitted),
                100.0 * figure(|f| f.jain),
                100.0 * figure(|f| f.inverted),
                in_spike,
                figure(|f| f.messages_per_request),
            );
        }
    }
}

const TIERS: [(&str, Figure); 3] = [
    ("tier1_admitted", |figures| figures.tier1_admitted),
    ("tier2_admitted", |figures| figures.tier2_admitted),
    ("tier3_admitted", |figures| figures.tier3_admitted),
];

fn vs_oracle(trial: &Trial, (capacity, mechanism, _): Key, policy: &'static str) -> f64 {
    let goodput = |mechanism, policy| trial.figures[&(capacity, mechanism, policy)].goodput;
    goodput(mechanism, policy) / goodput(CENTRAL, ORACLE)
}

/// The object under a name, made if missing.
fn entry<'a>(map: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    map.entry(name)
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
        .expect("only objects are put here")
}
