//! One customer's usage of one resource, from the ledger's cumulative counter to a claim on the pool.
//!
//! The counter is read at most once per step and its difference is the step's usage, scaled to the length of a step by the time that
//! really passed: a tick that comes late would otherwise look like a burst followed by a lull.

use forebay_core::policy::ContractIndex;
use forebay_forecast::{Blender, SeriesWindow, Source, Track, TrackSettings};

use super::fleet::Fleet;
use crate::shadow::Claim;

/// More gaps in a row than this teach the experts nothing that one gap does not.
const GAPS_LEARNED_MOST: u64 = 16;

/// Usage and learned state of one (customer, resource).
#[derive(Clone, Debug)]
pub struct Series {
    /// The claim on the pool that the ledger has.
    pub claim: Claim,
    /// The customer's contract as last seen.
    pub contract: ContractIndex,
    window: SeriesWindow,
    track: Track,
    generation: u32,
    counted: Option<Counted>,
    /// Cumulative demand as last seen, over all lives of the ledger's entry, in micro-tokens.
    demand_cum: u64,
    /// Cumulative deviation as last seen, over all lives, in micro-tokens.
    deviation_cum: u64,
    denied_cum: u64,
    life: Option<Life>,
    forecast: Option<Forecast>,
    /// Which model made `forecast`.
    forecast_generation: u32,
    /// The forecast for the newest finished step, until what the other gateways used in it is known as well.
    awaiting: Option<Forecast>,
    idle_steps: u32,
    fleet: Fleet,
}

/// One life of the ledger's entry: its counters begin at zero with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    /// When it began.
    since_us: u64,
    /// Demand of the lives before, in micro-tokens.
    demand_before: u64,
    /// Deviation of the lives before, in micro-tokens.
    deviation_before: u64,
}

/// What the ledger's entry counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Monotonic time since when.
    pub since_us: u64,
    /// Demand in micro-tokens.
    pub demand_cum: u64,
    /// Demand that the shadow bucket did not foresee, in micro-tokens.
    pub deviation_cum: u64,
    /// Demand that was denied, in micro-tokens.
    pub denied_cum: u64,
}

/// What a look at the counters brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Growth of the deviation since the last look, in micro-tokens.
    pub deviation_grown: u64,
    /// Whether anything was denied since the last look.
    pub is_denied: bool,
    /// The entry is not the one of the last look: it has no claim yet.
    pub is_other_entry: bool,
}

/// What the counter said when a step began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    /// The step that began.
    step: i64,
    /// Cumulative demand in micro-tokens.
    demand_cum: u64,
    /// Monotonic time of the reading.
    at_us: u64,
}

/// What tracks of a series learn when a step begins: the usage of the step that was finished at the last count, if it is known, and how
/// many steps have passed since of which nobody knows anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Due {
    late: Option<f32>,
    gaps: u64,
}

/// What is expected for the running step, in tokens per step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// The step it is for.
    pub step: i64,
    /// The 0.1 quantile.
    pub low: f32,
    /// The 0.5 quantile.
    pub median: f32,
    /// The 0.9 quantile.
    pub high: f32,
    /// The quantile that the policy asks for: it refills the shadow bucket.
    pub claim: f32,
    /// Who made it.
    pub source: Source,
}

// === impl Series ===

impl Series {
    /// A series that nobody has seen before.
    #[must_use]
    pub fn new(history_steps: usize, settings: &TrackSettings, generation: u32) -> Self {
        Self {
            claim: Claim::default(),
            contract: ContractIndex::default(),
            window: SeriesWindow::new(history_steps),
            track: Track::new(settings),
            generation,
            counted: None,
            demand_cum: 0,
            deviation_cum: 0,
            denied_cum: 0,
            life: None,
            forecast: None,
            forecast_generation: generation,
            awaiting: None,
            idle_steps: 0,
            fleet: Fleet::default(),
        }
    }

    /// Takes over the counters that the ledger shows now.
    pub fn observe(&mut self, counters: &Counters) -> Observed {
        let before = self.life;
        let denied_before = std::mem::replace(&mut self.denied_cum, counters.denied_cum);
        let is_same = |life: &Life| life.since_us == counters.since_us;
        let life = before.filter(is_same).unwrap_or_else(|| {
            // All that a new entry counts is new. An older one is an entry that was out of use and counts again: nothing of it is.
            let is_older = before.is_some_and(|life| counters.since_us < life.since_us);
            let (demand, deviation) = if is_older {
                (counters.demand_cum, counters.deviation_cum)
            } else {
                (0, 0)
            };
            Life {
                since_us: counters.since_us,
                demand_before: self.demand_cum.wrapping_sub(demand),
                deviation_before: self.deviation_cum.wrapping_sub(deviation),
            }
        });
        self.life = Some(life);
        let deviation_cum = life.deviation_before.wrapping_add(counters.deviation_cum);
        let grown = deviation_cum.saturating_sub(self.deviation_cum);
        // The first look at a ledger that outlived us is no news.
        let first = self.counted.is_none() && self.deviation_cum == 0;
        self.demand_cum = life.demand_before.wrapping_add(counters.demand_cum);
        self.deviation_cum = deviation_cum;
        Observed {
            deviation_grown: if first { 0 } else { grown },
            is_denied: before == self.life && counters.denied_cum > denied_before,
            is_other_entry: before.is_some_and(|life| !is_same(&life)),
        }
    }

    /// Step `step` has begun: the one before is finished. Returns this gateway's usage in tokens in it when it is known.
    ///
    /// The blender learns from the step before the finished one, of which the others' usage has had a step's time to come:
    /// [`TrackSettings::late_steps`] is 1.
    pub fn roll(
        &mut self,
        step: i64,
        at_us: u64,
        step_us: u64,
        blender: &mut Blender,
    ) -> Option<f32> {
        let now = Counted {
            step,
            demand_cum: self.demand_cum,
            at_us,
        };
        let due = self.due(step);
        let before = self.counted.replace(now)?;
        // Without anything due the calendar was set back: the running step has an unknown length.
        due?.teach(blender, &mut self.track);
        let elapsed_us = at_us.saturating_sub(before.at_us);
        if elapsed_us == 0 {
            return None;
        }
        // A step in which settlements gave back more than it took used nothing.
        let grown = now.demand_cum.saturating_sub(before.demand_cum);
        let per_step = grown as f64 * step_us as f64 / elapsed_us as f64;
        let usage = (per_step / 1e6) as f32;
        let finished = step.saturating_sub(1);
        self.window
            .record(finished, Some(self.fleet.ended(finished, usage)));
        self.idle_steps = if grown == 0 {
            self.idle_steps.saturating_add(1)
        } else {
            0
        };
        Some(usage)
    }

    /// What is to be learned when step `step` begins; `None` if it does not follow a step that was counted.
    #[must_use]
    pub fn due(&self, step: i64) -> Option<Due> {
        let before = self.counted?.step;
        let gaps = u64::try_from(step.checked_sub(before)?.checked_sub(1)?).ok()?;
        Some(Due {
            late: self.known(before.saturating_sub(1)),
            gaps: gaps.min(GAPS_LEARNED_MOST),
        })
    }

    /// What the fleet has used in this step, if that is the window's newest and the others' part of it is known.
    fn known(&self, step: i64) -> Option<f32> {
        let is_known = self.window.newest_step() == Some(step) && self.fleet.is_known(step);
        self.window.back(0).filter(|_| is_known)
    }

    /// What the other gateways together used in a step: the series is the fleet's, not ours. Of a step that has not ended here yet the
    /// newest one is kept.
    pub fn add_others(&mut self, step: i64, usage: f32) {
        if let Some(all) = self.fleet.told(step, usage) {
            self.window.record(step, Some(all));
        }
    }

    /// The part of the customer's traffic that comes through this gateway, 0 to 1.
    #[must_use]
    pub fn own_share(&self) -> f32 {
        self.fleet.own_share()
    }

    /// The same, if that is known: the others' part of it was told, and there was any traffic.
    #[must_use]
    pub fn known_share(&self) -> Option<f32> {
        self.fleet.known_share()
    }

    /// Records steps from the control plane's history, oldest first, ending at step `newest`. What this gateway has seen itself stays.
    pub fn load(&mut self, newest: i64, usage: impl DoubleEndedIterator<Item = Option<f32>>) {
        let own_from = self.fleet.newest_step();
        let mut step = newest;
        // Newest first: the ring then keeps the newest steps whatever the length of what came.
        for value in usage.rev() {
            if own_from != Some(step) {
                self.window.record(step, value);
            }
            step = step.saturating_sub(1);
        }
    }

    /// Makes the series fit for another model: a longer or shorter history, and nothing learned.
    pub fn rebuild(
        &mut self,
        history_steps: usize,
        settings: &TrackSettings,
        generation: u32,
        keep_usage: bool,
    ) {
        let mut window = SeriesWindow::new(history_steps);
        if let Some(newest) = self.window.newest_step()
            && keep_usage
        {
            for back in (0..self.window.len().min(window.capacity())).rev() {
                let step = newest.saturating_sub(i64::try_from(back).unwrap_or(i64::MAX));
                window.record(step, self.window.back(back));
            }
        }
        self.window = window;
        self.track = Track::new(settings);
        self.generation = generation;
        self.awaiting = None;
        if !keep_usage {
            self.counted = None;
            self.fleet.forget_steps();
            self.forecast = None;
        }
    }

    /// Whether anything was used within the newest `steps` steps.
    #[must_use]
    pub fn is_active(&self, steps: usize) -> bool {
        self.window
            .max_of_last(steps)
            .is_some_and(|most| most > 0.0)
    }

    /// The usage window.
    #[must_use]
    pub fn window(&self) -> &SeriesWindow {
        &self.window
    }

    /// The learned state, to forecast from, beside the window that it goes with.
    pub fn track_and_window(&mut self) -> (&mut Track, &SeriesWindow) {
        (&mut self.track, &self.window)
    }

    /// The forecast for the running step.
    #[must_use]
    pub fn forecast(&self) -> Option<&Forecast> {
        self.forecast.as_ref()
    }

    /// Sets the forecast for the running step.
    pub fn set_forecast(&mut self, forecast: Option<Forecast>) {
        self.forecast = forecast;
        self.forecast_generation = self.generation;
    }

    /// The forecast that was put by a step ago, and what the whole fleet has used in the step that it was made for; `None` when that is
    /// not known. Call it before [`Self::roll`]: the newest step of the window is then one of which the other gateways' usage has had a
    /// step's time to come.
    pub fn take_judged(&mut self) -> Option<(Forecast, f32)> {
        let forecast = self.awaiting.take()?;
        Some((forecast, self.known(forecast.step)?))
    }

    /// The step of the present forecast is over: puts it by until what other gateways have used is known. One that the model before has
    /// made says nothing about the one that runs.
    pub fn put_by(&mut self, finished: i64) {
        let is_ours = self.forecast_generation == self.generation;
        self.awaiting = self
            .forecast
            .filter(|forecast| is_ours && forecast.step == finished);
    }

    /// Which model the learned state belongs to.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The step that began at the last count.
    #[must_use]
    pub fn running_step(&self) -> Option<i64> {
        self.counted.map(|counted| counted.step)
    }

    /// Steps without usage in a row.
    #[must_use]
    pub fn idle_steps(&self) -> u32 {
        self.idle_steps
    }
}

// === impl Due ===

impl Due {
    /// Lets a track of the series learn it. [`TrackSettings::late_steps`] has to be 1.
    pub fn teach(&self, blender: &mut Blender, track: &mut Track) {
        blender.mature(track, self.late);
        for _ in 0..self.gaps {
            blender.mature(track, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_US: u64 = 1_000_000;

    fn blender() -> Blender {
        let mut settings = TrackSettings::without_model(&[1], &[0.1, 0.5, 0.9], 24);
        settings.late_steps = 1;
        Blender::new(settings)
    }

    fn series(blender: &Blender) -> Series {
        Series::new(32, blender.settings(), 1)
    }

    fn forecast_of(step: i64) -> Forecast {
        Forecast {
            step,
            low: 10.0,
            median: 30.0,
            high: 50.0,
            claim: 50.0,
            source: Source::Fallback,
        }
    }

    /// One step in which this gateway uses 10 tokens, and a forecast of the next.
    fn live(series: &mut Series, blender: &mut Blender, step: u64) {
        series.observe(&counted(step * 10_000_000));
        let began = i64::try_from(step).unwrap();
        series.roll(began, step * STEP_US, STEP_US, blender);
        let (track, window) = series.track_and_window();
        blender.forecast(track, window, None, None);
    }

    /// What was learned, without the forecasts that wait.
    fn learned(series: &Series) -> String {
        let all = format!("{:?}", series.track);
        all.split("pending").next().unwrap().to_owned()
    }

    fn counted(demand_cum: u64) -> Counters {
        Counters {
            demand_cum,
            ..Counters::default()
        }
    }

    #[test]
    fn usage_is_the_growth_of_the_counter_scaled_to_a_step() {
        let mut blender = blender();
        let mut series = series(&blender);
        series.observe(&counted(7_000_000));
        assert_eq!(series.roll(100, 0, STEP_US, &mut blender), None);
        series.observe(&counted(27_000_000));
        assert_eq!(series.roll(101, STEP_US, STEP_US, &mut blender), Some(20.0));
        // This tick came a quarter late and counted a quarter more.
        series.observe(&counted(52_000_000));
        assert_eq!(
            series.roll(102, 2_250_000, STEP_US, &mut blender),
            Some(20.0)
        );
        assert_eq!(series.window().newest_step(), Some(101));
    }

    #[test]
    fn steps_in_which_nobody_looked_are_gaps() {
        let mut blender = blender();
        let mut series = series(&blender);
        series.roll(100, 0, STEP_US, &mut blender);
        series.observe(&counted(40_000_000));
        assert_eq!(
            series.roll(104, 4 * STEP_US, STEP_US, &mut blender),
            Some(10.0)
        );
        assert_eq!(series.window().back(0), Some(10.0));
        assert_eq!(series.window().back(1), None);
    }

    #[test]
    fn an_entry_that_is_made_anew_goes_on_from_where_the_one_before_was() {
        let mut blender = blender();
        let mut series = series(&blender);
        series.observe(&counted(4_000_000));
        series.roll(1, 0, STEP_US, &mut blender);
        series.observe(&counted(6_000_000));
        // More than the one before ever counted, and all of it is new.
        let anew = Counters {
            since_us: 7,
            demand_cum: 9_000_000,
            deviation_cum: 5,
            denied_cum: 0,
        };
        assert_eq!(
            series.observe(&anew),
            Observed {
                deviation_grown: 5,
                is_denied: false,
                is_other_entry: true
            }
        );
        assert_eq!(series.observe(&anew), Observed::default());
        assert_eq!(series.roll(2, STEP_US, STEP_US, &mut blender), Some(11.0));
    }

    #[test]
    fn an_older_entry_that_counts_again_brings_nothing_a_second_time() {
        let mut blender = blender();
        let mut series = series(&blender);
        series.observe(&counted(4_000_000));
        series.roll(1, 0, STEP_US, &mut blender);
        let listed = Counters {
            since_us: 7,
            demand_cum: 1_000_000,
            ..Counters::default()
        };
        series.observe(&listed);
        series.observe(&counted(4_000_000));
        series.observe(&counted(6_000_000));
        assert_eq!(series.roll(2, STEP_US, STEP_US, &mut blender), Some(3.0));
    }

    #[test]
    fn a_step_that_only_gave_tokens_back_used_none() {
        let mut blender = blender();
        let mut series = series(&blender);
        series.observe(&counted(90_000_000));
        series.roll(1, 0, STEP_US, &mut blender);
        // Settlements gave back a part of estimates that were charged in earlier steps.
        series.observe(&counted(81_000_000));
        assert_eq!(series.roll(2, STEP_US, STEP_US, &mut blender), Some(0.0));
        series.observe(&counted(84_000_000));
        assert_eq!(
            series.roll(3, 2 * STEP_US, STEP_US, &mut blender),
            Some(3.0)
        );
    }

    #[test]
    fn a_calendar_that_goes_back_records_nothing() {
        let mut blender = blender();
        let mut series = series(&blender);
        series.roll(10, 0, STEP_US, &mut blender);
        series.observe(&counted(3_000_000));
        assert_eq!(series.roll(5, STEP_US, STEP_US, &mut blender), None);
        assert!(series.window().is_empty());
    }

    #[test]
    fn history_from_the_control_plane_goes_under_what_was_seen_here() {
        let mut blender = blender();
        let mut series = series(&blender);
        series.roll(100, 0, STEP_US, &mut blender);
        series.observe(&counted(5_000_000));
        series.roll(101, STEP_US, STEP_US, &mut blender);
        series.load(100, [Some(1.0), None, Some(3.0), Some(99.0)].into_iter());
        let seen: Vec<_> = (0..4).map(|back| series.window().back(back)).collect();
        assert_eq!(seen, [Some(5.0), Some(3.0), None, Some(1.0)]);
    }

    #[test]
    fn the_share_of_the_traffic_follows_the_other_gateways() {
        let mut blender = blender();
        let mut series = series(&blender);
        series.roll(0, 0, STEP_US, &mut blender);
        assert_eq!(series.own_share(), 1.0);
        for step in 1..40_u64 {
            series.observe(&counted(step * 10_000_000));
            series.roll(
                i64::try_from(step).unwrap(),
                step * STEP_US,
                STEP_US,
                &mut blender,
            );
            series.add_others(i64::try_from(step).unwrap() - 1, 30.0);
        }
        assert!(
            (series.own_share() - 0.25).abs() < 0.01,
            "{}",
            series.own_share()
        );
        assert_eq!(series.window().back(0), Some(40.0));
    }

    #[test]
    fn a_forecast_is_judged_by_what_the_whole_fleet_used() {
        let mut blender = blender();
        let mut series = series(&blender);
        series.roll(0, 0, STEP_US, &mut blender);
        series.set_forecast(Some(forecast_of(0)));
        series.observe(&counted(10_000_000));
        assert_eq!(series.take_judged(), None);
        series.roll(1, STEP_US, STEP_US, &mut blender);
        series.put_by(0);
        series.add_others(0, 30.0);
        series.set_forecast(Some(forecast_of(1)));
        series.observe(&counted(20_000_000));
        assert_eq!(series.take_judged(), Some((forecast_of(0), 40.0)));
        series.roll(2, 2 * STEP_US, STEP_US, &mut blender);
        series.put_by(1);
        // Another model runs: what waits was said by the one before, and so was what the running step was expected to bring.
        series.set_forecast(Some(forecast_of(2)));
        series.rebuild(32, blender.settings(), 2, true);
        assert_eq!(series.take_judged(), None);
        series.roll(3, 3 * STEP_US, STEP_US, &mut blender);
        series.put_by(2);
        assert_eq!(series.take_judged(), None);
    }

    #[test]
    fn a_step_of_which_the_others_part_is_not_known_judges_and_teaches_nothing() {
        let mut blender = blender();
        let mut series = series(&blender);
        for step in 0..40_u64 {
            live(&mut series, &mut blender, step);
            series.add_others(i64::try_from(step).unwrap() - 1, 30.0);
        }
        series.set_forecast(Some(forecast_of(39)));
        // Nobody tells what the others used in step 39.
        live(&mut series, &mut blender, 40);
        series.put_by(39);
        let estimate = series.window().back(0).unwrap();
        assert!((estimate - 40.0).abs() < 0.1, "{estimate}");
        let before = learned(&series);
        assert_eq!(series.take_judged(), None);
        live(&mut series, &mut blender, 41);
        assert_eq!(learned(&series), before);
        series.add_others(40, 30.0);
        live(&mut series, &mut blender, 42);
        assert_ne!(learned(&series), before);
    }

    #[test]
    fn a_gap_leaves_each_forecast_with_the_step_that_it_was_made_for() {
        let mut blender = blender();
        let mut series = series(&blender);
        for step in 0..20 {
            live(&mut series, &mut blender, step);
        }
        let before = learned(&series);
        // Steps 19 to 21 are one count; step 18 is learned from with it.
        live(&mut series, &mut blender, 22);
        let after_gap = learned(&series);
        assert_ne!(after_gap, before);
        // Nothing was forecast for the last step of the gap.
        live(&mut series, &mut blender, 23);
        assert_eq!(learned(&series), after_gap);
        live(&mut series, &mut blender, 24);
        assert_ne!(learned(&series), after_gap);
    }

    #[test]
    fn what_others_used_in_a_step_that_has_not_ended_here_is_kept_until_it_has() {
        let mut blender = blender();
        let mut series = series(&blender);
        live(&mut series, &mut blender, 0);
        series.add_others(0, 7.0);
        live(&mut series, &mut blender, 1);
        assert_eq!(series.window().back(0), Some(17.0));
    }

    #[test]
    fn only_growth_of_the_deviation_is_news() {
        let blender = blender();
        let mut series = series(&blender);
        let mut look = |demand_cum, deviation_cum| {
            let counters = Counters {
                demand_cum,
                deviation_cum,
                ..Counters::default()
            };
            series.observe(&counters).deviation_grown
        };
        assert_eq!(look(0, 0), 0);
        assert_eq!(look(50, 20), 0, "the first look at an old ledger");
        assert_eq!(look(60, 25), 5);
        assert_eq!(look(60, 25), 0);
    }
}
