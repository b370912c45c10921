//! What is seen of a customer in a step, before anything is concluded from it.

/// What may be a sign of abuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// Far more than usual for minutes.
    Burst,
    /// More than usual for some tens of minutes.
    Rise,
    /// More than usual for hours.
    Level,
    /// More than the forecast's upper quantile.
    Forecast,
    /// More than usual is denied by the contract.
    Denied,
    /// More gateways or distinct keys than usual.
    Keys,
}

/// The signs of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signs {
    /// By [`Sign::ALL`]; `None`: nothing is known of it in this step.
    pub(crate) seen: [Option<Seen>; Sign::COUNT],
    /// Demand over the three windows as if no event were known.
    pub(crate) plain: [Seen; 3],
    /// Whether the customer has been watched for long enough.
    pub(crate) is_learned: bool,
    pub(crate) unix_ms: u64,
    pub(crate) demand: f64,
    pub(crate) denied_share: f64,
    /// Whether it has risen enough to count as one of a crowd.
    pub(crate) has_risen: bool,
    /// Milliseconds since the step before.
    pub(crate) elapsed_ms: u64,
    /// Demand over minutes as a logarithm above the mean level.
    pub(crate) log_demand: f64,
    pub(crate) is_event: bool,
}

/// One sign.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// What its middle and spread are learned from.
    pub value: f64,
    pub z: f64,
    /// As a multiple of what is usual.
    pub times: f64,
    /// Whether it was seen for long enough to be held against the customer.
    pub is_learned: bool,
}

/// Less than half as much again matters to nobody.
pub(crate) const TIMES_LEAST: f64 = 1.5;

// === impl Sign ===

impl Sign {
    pub(crate) const COUNT: usize = 6;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Burst,
        Self::Rise,
        Self::Level,
        Self::Forecast,
        Self::Denied,
        Self::Keys,
    ];

    /// Its name in JSON and in labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Burst => "burst",
            Self::Rise => "rise",
            Self::Level => "level",
            Self::Forecast => "forecast",
            Self::Denied => "denied",
            Self::Keys => "keys",
        }
    }
}

// === impl Signs ===

impl Signs {
    /// Demand as if no event were known.
    pub(crate) fn plain_of(&self, sign: Sign) -> Option<Seen> {
        let [burst, rise, level] = self.plain;
        match sign {
            Sign::Burst => Some(burst),
            Sign::Rise => Some(rise),
            Sign::Level => Some(level),
            Sign::Forecast | Sign::Denied | Sign::Keys => None,
        }
    }

    /// How many times the usual demand it is, in the window where that is most.
    pub(crate) fn demand_times(&self) -> f64 {
        self.plain.iter().map(|seen| seen.times).fold(0.0, f64::max)
    }
}

// === impl Seen ===

impl Seen {
    /// A z counts if there is enough of it to matter.
    pub(crate) fn z_that_matters(&self) -> f64 {
        if self.times >= TIMES_LEAST {
            self.z
        } else {
            0.0
        }
    }

    /// As a multiple of where its z would be this.
    pub(crate) fn times_above(&self, z: f64) -> f64 {
        if self.z <= z {
            return 1.0;
        }
        self.times.powf(1.0 - z / self.z)
    }
}
