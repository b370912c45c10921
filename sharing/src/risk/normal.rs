//! The normal distribution, and what follows from it about proportions.

use crate::risk::pair::Interval;

/// The quantile of 97.5 %: intervals here are of 95 %.
pub(crate) const TWO_SIDED: f64 = 1.959_964;

/// The probability of a value at least this far from 0, in both directions.
pub(crate) fn two_sided_p(z: f64) -> f64 {
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// The quantile at a probability between 0 and 1: the rational approximation of Acklam, and one step of Halley's method.
pub(crate) fn quantile(probability: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    const TAIL: f64 = 0.024_25;
    let polynomial = |coefficients: &[f64], at: f64| {
        coefficients
            .iter()
            .fold(0.0, |sum, coefficient| sum * at + coefficient)
    };
    let of_tail = |probability: f64| {
        let at = (-2.0 * probability.ln()).sqrt();
        polynomial(&C, at) / polynomial(&D, at)
    };
    let rough = if probability < TAIL {
        of_tail(probability)
    } else if probability > 1.0 - TAIL {
        -of_tail(1.0 - probability)
    } else {
        let off = probability - 0.5;
        off * polynomial(&A, off * off) / polynomial(&B, off * off)
    };
    let error = 0.5 * libm::erfc(-rough / std::f64::consts::SQRT_2) - probability;
    let step = error * (2.0 * std::f64::consts::PI).sqrt() * (rough * rough / 2.0).exp();
    rough - step / (1.0 + rough * step / 2.0)
}

/// Wilson's interval for a proportion that was seen in `count` independent cases (Wilson 1927).
pub(crate) fn wilson(proportion: f64, count: f64) -> Interval {
    if count <= 0.0 {
        return Interval {
            low: 0.0,
            high: 1.0,
        };
    }
    let square = TWO_SIDED * TWO_SIDED;
    let middle = proportion + square / (2.0 * count);
    let half = TWO_SIDED
        * (proportion * (1.0 - proportion) / count + square / (4.0 * count * count)).sqrt();
    let scale = 1.0 + square / count;
    Interval {
        low: ((middle - half) / scale).max(0.0),
        high: ((middle + half) / scale).min(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (probability, expected) in [
            (0.5, 0.0),
            (0.975, 1.959_963_984_540),
            (0.01, -2.326_347_874_041),
            (0.999_9, 3.719_016_485_456),
        ] {
            assert!(
                (quantile(probability) - expected).abs() < 1e-9,
                "{probability}"
            );
        }
        assert!((two_sided_p(TWO_SIDED) - 0.05).abs() < 1e-7);
    }

    #[test]
    fn an_interval_of_a_proportion_is_wilsons() {
        let interval = wilson(0.1, 50.0);
        assert!((interval.low - 0.043_5).abs() < 1e-3, "{interval:?}");
        assert!((interval.high - 0.213_6).abs() < 1e-3, "{interval:?}");
    }
}
