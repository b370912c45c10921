//! A run in which what came of a cycle may move the values that the next one is made by.
//!
//! A [`super::Plan`] is made for all cycles before anything is admitted, which no tuning can do. What is asked for is the same whatever is
//! admitted, so a tuned run and one by fixed values see the same requests and the same forecasts.

use super::CYCLE_S;
use super::claims::Claims;
use super::demand::Demand;
use super::figures::{PoolFigures, Score};
use super::guard::Guard;
use super::leases::Leases;
use super::market::Market;
use super::plan::{Carried, Planner, View, leased};
use super::run::Mechanism;
use forebay_sharing::tuning::{Context, Outcome};
use forebay_sharing::{Outlook, Settings};

/// Who says what each cycle is made by.
pub trait Ask {
    /// The values for the next cycle, which begins at this time since the start of the trace.
    fn choose(&mut self, now_ms: u64, context: &Context) -> Settings;

    /// What came of it, when it is over.
    fn observe(&mut self, now_ms: u64, outcome: &Outcome);
}

/// Runs the demand against a pool that is divided by our allocation, with a credit of each guarantee where it is claimed. Each cycle is
/// made by the values that `ask` says.
#[must_use]
pub fn run_tuned(
    market: &Market,
    demand: &Demand,
    outlooks: &[Vec<Outlook>],
    capacity_per_s: f64,
    mechanism: Mechanism,
    ask: &mut impl Ask,
) -> PoolFigures {
    let sub_step_s = demand.sub_step_s as f64;
    let run = Tuned {
        market,
        demand,
        outlooks,
        capacity_per_s,
        mechanism,
    };
    match mechanism {
        Mechanism::Claims => run.drive(Claims::new(market, capacity_per_s, sub_step_s), ask),
        Mechanism::Leases => run.drive(
            Leases::new(demand.customers, capacity_per_s, sub_step_s),
            ask,
        ),
    }
}

struct Tuned<'a> {
    market: &'a Market,
    demand: &'a Demand,
    outlooks: &'a [Vec<Outlook>],
    capacity_per_s: f64,
    mechanism: Mechanism,
}

// === impl Tuned ===

impl Tuned<'_> {
    fn drive(&self, mut guard: impl Guard, ask: &mut impl Ask) -> PoolFigures {
        let demand = self.demand;
        let planner = Planner::new(self.market, self.capacity_per_s, 0.0);
        let mut carried = Carried::of(self.market);
        let mut score = Score::new(self.market, self.capacity_per_s, demand.sub_step_s);
        let mut denied = vec![0.0; demand.customers];
        let (_, first) = demand.usage_per_s();
        for (cycle, outlooks) in (0..demand.cycles()).zip(self.outlooks) {
            let at_s = (first + cycle) * CYCLE_S;
            let context = Context::of(outlooks, self.capacity_per_s, at_s as f64);
            let settings = ask.choose(at_s as u64 * 1_000, &context);
            let last = demand.before(cycle);
            let allocated = planner.ours(View::Forecast, &settings, &last, outlooks, &mut carried);
            guard.allocate(&self.parts(&planner, &settings, &allocated));
            let before = score.outcome();
            for asked in demand.cycle(cycle) {
                let served = guard.serve(asked, &mut denied);
                score.see(asked, &denied, served);
            }
            let end_ms = (at_s + CYCLE_S) as u64 * 1_000;
            ask.observe(end_ms, &since(&before, &score.outcome()));
        }
        let messages = (demand.cycles() * demand.customers + score.beyond()) as f64;
        score.figures(messages, demand.offered)
    }

    fn parts(&self, planner: &Planner<'_>, settings: &Settings, allocated: &[f64]) -> Vec<f64> {
        match self.mechanism {
            Mechanism::Claims => {
                let each = allocated.iter().zip(&planner.guarantees_per_s);
                each.map(|(one, other)| one.max(*other)).collect()
            }
            Mechanism::Leases => {
                let unreserved_per_s =
                    self.capacity_per_s - self.capacity_per_s * settings.reserve_share;
                leased(allocated, unreserved_per_s, &planner.weights)
            }
        }
    }
}

/// What was added to sums.
fn since(before: &Outcome, now: &Outcome) -> Outcome {
    Outcome {
        asked: now.asked - before.asked,
        admitted: now.admitted - before.admitted,
        over_admitted: now.over_admitted - before.over_admitted,
        false_rejected: now.false_rejected - before.false_rejected,
        promised: now.promised - before.promised,
        missed: now.missed - before.missed,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{demand_of, market, outlooks};
    use super::*;
    use crate::pool::{Decider, Plan, Rule, Scheme, run};

    /// Always the same values, and what was heard.
    struct Same(Settings, Vec<Outcome>);

    impl Ask for Same {
        fn choose(&mut self, _: u64, context: &Context) -> Settings {
            assert!(*context != Context::default());
            self.0
        }

        fn observe(&mut self, _: u64, outcome: &Outcome) {
            self.1.push(*outcome);
        }
    }

    #[test]
    fn by_the_same_values_a_tuned_run_is_the_run_of_a_plan() {
        let market = market(1);
        let demand = demand_of(&market, 1);
        let outlooks = outlooks(&demand);
        let capacity = 0.9 * market.mean_per_s;
        let mut missed = 0.0;
        for settings in [
            Settings::default(),
            Settings {
                quantiles: [0.9, 0.5, 0.5],
                reserve_share: 0.1,
                quiet_share: 0.0,
                ..Settings::default()
            },
        ] {
            let scheme = Scheme {
                rule: Rule::Ours(View::Forecast, settings),
                reserve_share: settings.reserve_share,
                has_credit: true,
            };
            let plan = Plan::new(scheme, &market, &demand, &outlooks, capacity);
            for mechanism in Mechanism::ALL {
                let decider = Decider::Allocated(mechanism, &plan);
                let planned = run(&market, &demand, capacity, decider);
                let mut same = Same(settings, Vec::new());
                let tuned = run_tuned(&market, &demand, &outlooks, capacity, mechanism, &mut same);
                assert_eq!(tuned.values(), planned.values(), "{mechanism:?}");

                let sum = |of: fn(&Outcome) -> f64| same.1.iter().map(of).sum::<f64>();
                let asked = sum(|outcome| outcome.asked);
                let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9);
                near(
                    sum(|outcome| outcome.admitted - outcome.over_admitted) / asked,
                    planned.goodput,
                );
                near(
                    sum(|outcome| outcome.false_rejected) / asked,
                    planned.false_rejected,
                );
                near(
                    sum(|outcome| outcome.missed) / sum(|outcome| outcome.promised),
                    planned.guarantee_missed_steady,
                );
                assert!(planned.goodput < 0.999, "{planned:?}");
                missed += planned.guarantee_missed_steady;
                assert_eq!(same.1.len(), demand.cycles());
            }
        }
        assert!(missed > 0.0);
    }
}
