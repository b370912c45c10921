//! `forebay-train drift`: how often detectors of change sound a false alarm, and how soon a true one, beside what theory promises.
//!
//! Series are made, not read: of a trace nobody knows where it changed. They all have mean 0 and standard deviation 1 before the shift.

use forebay_forecast::drift::{Adwin, Cusum, Detector, PageHinkley, run_length};
use forebay_traces::generator::SeededRandom;

use crate::error::TrainError;
use crate::output::Output;

/// Steps without any change in which false alarms are counted.
const STEADY_STEPS: usize = 1_000_000;
/// False alarms are told per so many steps.
const PER_STEPS: f64 = 100_000.0;
/// Steps before a shift.
const BEFORE_STEPS: u32 = 500;
/// Shifts whose delays are averaged; a run with a false alarm before its shift does not count.
const RUNS: u64 = 1_000;
/// A shift that has not been found by now is missed.
const DELAY_MAX: u32 = 5_000;
/// Shifts, in standard deviations.
const SHIFTS: [f64; 3] = [1.0, 2.0, 3.0];
/// Mean steps between false alarms that thresholds are chosen for, and the same as a probability for each step.
const FALSE_ALARM_STEPS: f64 = 10_000.0;
/// Values further from the mean count as this to ADWIN, in standard deviations.
const BOUND: f64 = 5.0;
/// Part of a value that the next one has, where values depend on one another.
const DEPENDENCE: f64 = 0.5;
/// Degrees of freedom of the heavy-tailed values: as few as still have a variance.
const FREEDOM: u32 = 3;

/// How values come about.
#[derive(Clone, Copy)]
enum Source {
    Normal,
    Dependent,
    HeavyTailed,
    Loss,
}

/// Values of a source, one after the other.
struct Values {
    source: Source,
    random: SeededRandom,
    last: f64,
}

/// A detector with its name and what theory says of it.
struct Candidate {
    name: &'static str,
    make: fn() -> Box<dyn Detector>,
    false_alarms: String,
    delays: [f64; 3],
}

/// Prints the table.
pub(crate) fn print(seed: u64, out: &mut Output<'_>) -> Result<(), TrainError> {
    let sources = [
        Source::Normal,
        Source::Dependent,
        Source::HeavyTailed,
        Source::Loss,
    ];
    out.line(
        "| detector | values | false alarms per 100 000 steps | delay at 1 sigma | at 2 | at 3 |\n|---|---|---|---|---|---|",
    )?;
    for candidate in candidates() {
        let [one, two, three] = candidate.delays;
        let (name, promised) = (candidate.name, &candidate.false_alarms);
        out.line(format_args!(
            "| {name} | theory | {promised} | {one:.1} | {two:.1} | {three:.1} |"
        ))?;
        for source in sources {
            let random = SeededRandom::new(seed);
            let alarms = false_alarms((candidate.make)(), Values::of(source, random.fork(0)));
            let delays = SHIFTS.map(|shift| mean_delay(candidate.make, source, &random, shift));
            let [one, two, three] = delays.map(|delay| match delay {
                Some(delay) => format!("{delay:.1}"),
                None => "-".to_owned(),
            });
            let rate = alarms as f64 * PER_STEPS / STEADY_STEPS as f64;
            out.line(format_args!(
                "| {name} | {} | {rate:.1} | {one} | {two} | {three} |",
                source.name()
            ))?;
        }
    }
    Ok(())
}

fn candidates() -> [Candidate; 3] {
    let promised = PER_STEPS / FALSE_ALARM_STEPS;
    let cusum = Cusum::new(FALSE_ALARM_STEPS);
    let page_hinkley = PageHinkley::new(FALSE_ALARM_STEPS);
    let adwin = || Adwin::new(1.0 / FALSE_ALARM_STEPS, -BOUND, BOUND);
    let of_bound = |shift: f64| adwin().delay_bound(BEFORE_STEPS, 1.0, shift);
    [
        Candidate {
            name: "CUSUM",
            make: || Box::new(Cusum::new(FALSE_ALARM_STEPS)),
            false_alarms: format!("{promised:.0}"),
            delays: SHIFTS.map(|shift| run_length(shift, Cusum::ALLOWANCE, cusum.threshold())),
        },
        Candidate {
            name: "Page-Hinkley",
            make: || Box::new(PageHinkley::new(FALSE_ALARM_STEPS)),
            false_alarms: format!("{promised:.0}"),
            delays: SHIFTS
                .map(|shift| run_length(shift, PageHinkley::ALLOWANCE, page_hinkley.threshold())),
        },
        Candidate {
            name: "ADWIN",
            make: || Box::new(Adwin::new(1.0 / FALSE_ALARM_STEPS, -BOUND, BOUND)),
            false_alarms: format!("at most {promised:.0}"),
            delays: SHIFTS.map(|shift| of_bound(shift).map_or(f64::INFINITY, f64::from)),
        },
    ]
}

fn false_alarms(mut detector: Box<dyn Detector>, mut values: Values) -> usize {
    (0..STEADY_STEPS)
        .filter(|_| detector.observe(values.next()).is_some())
        .count()
}

/// Mean steps from a shift to its alarm; `None` if some are missed, or most runs have a false alarm first.
fn mean_delay(
    make: fn() -> Box<dyn Detector>,
    source: Source,
    random: &SeededRandom,
    shift: f64,
) -> Option<f64> {
    let (mut sum, mut runs) = (0.0, 0_u32);
    for run in 1..=RUNS {
        let (mut detector, mut values) = (make(), Values::of(source, random.fork(run)));
        if (0..BEFORE_STEPS).any(|_| detector.observe(values.next()).is_some()) {
            continue;
        }
        let delay = (1..=DELAY_MAX).find(|_| detector.observe(values.next() + shift).is_some())?;
        sum += f64::from(delay);
        runs += 1;
    }
    (u64::from(runs) > RUNS / 2).then(|| sum / f64::from(runs))
}

// === impl Source ===

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Dependent => "AR(1) 0.5",
            Self::HeavyTailed => "Student's t, 3 degrees",
            Self::Loss => "exponential",
        }
    }
}

// === impl Values ===

impl Values {
    fn of(source: Source, mut random: SeededRandom) -> Self {
        let last = random.normal();
        Self {
            source,
            random,
            last,
        }
    }

    fn next(&mut self) -> f64 {
        let normal = self.random.normal();
        match self.source {
            Source::Normal => normal,
            Source::Dependent => {
                let fresh = (1.0 - DEPENDENCE * DEPENDENCE).sqrt();
                self.last = DEPENDENCE * self.last + fresh * normal;
                self.last
            }
            Source::HeavyTailed => {
                let squares: f64 = (0..FREEDOM).map(|_| self.random.normal().powi(2)).sum();
                let freedom = f64::from(FREEDOM);
                normal / (squares / freedom).sqrt() * ((freedom - 2.0) / freedom).sqrt()
            }
            Source::Loss => self.random.exponential() - 1.0,
        }
    }
}
