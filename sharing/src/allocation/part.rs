//! What a cycle gives to a customer, by where it comes from.

use forebay_core::resource::PerResource;

/// One customer's allocation of one resource. All in tokens per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part {
    /// Of its guarantee: what it may need, and what it does not lend.
    pub kept_per_s: f64,
    /// Of the guarantees of accounts that are linked to it.
    pub shared_per_s: f64,
    /// Extra room before a spike.
    pub headroom_per_s: f64,
    /// Of the pool, up to the rate that it has bought.
    pub bought_per_s: f64,
    /// Of the pool, beyond that rate.
    pub borrowed_per_s: f64,
    /// What it had, does not need, and nobody else does either.
    pub eased_per_s: f64,
    /// What others have of its guarantee.
    pub lent_per_s: f64,
    /// What it may need and does not have. The reserve may still serve it.
    pub unmet_per_s: f64,
    /// Whether some of what it had was about to be taken back.
    pub is_releasing: bool,
}

/// What one cycle gives to all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    /// One for each customer, in the order in which they came.
    pub parts: Vec<PerResource<Part>>,
    /// Of each resource, in tokens per second: what is nobody's until it is asked for.
    pub reserve_per_s: PerResource<f64>,
    /// Of each resource, in tokens per second: what is left beside the reserve because nobody wants it.
    pub idle_per_s: PerResource<f64>,
}

// === impl Part ===

impl Part {
    /// All that it has, in tokens per second.
    #[must_use]
    pub fn allocated_per_s(&self) -> f64 {
        self.kept_per_s + self.shared_per_s + self.eased_per_s + self.of_pool_per_s()
    }

    /// What of it comes from the pool: capacity that nobody was guaranteed, and guarantees that are lent.
    #[must_use]
    pub fn of_pool_per_s(&self) -> f64 {
        self.headroom_per_s + self.bought_per_s + self.borrowed_per_s
    }
}
