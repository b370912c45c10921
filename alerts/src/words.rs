//! What people read of an alert: what is wrong in a line, and what to do about it.

use crate::round::UnusualCustomer;

/// Of digests, people need the beginning.
const DIGEST_CHARS: usize = 12;

/// What is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub summary: String,
    pub description: String,
}

// === impl Words ===

impl Words {
    fn of(summary: String, description: impl Into<String>) -> Self {
        Self {
            summary,
            description: description.into(),
        }
    }

    pub(crate) fn loss(model: &str, times_usual: f64) -> Self {
        Self::of(
            format!(
                "Forecasts of model {} lose {times_usual:.1} times what is usual for them at this hour",
                short(model)
            ),
            "In most of the last 30 steps loss per usage was more than twice what it is at this hour of the day. Demand has changed, or is \
             unusual today. Look at `forebay status` and the usage history; if it lasts, train on new history, or put a model back that did \
             better: `forebay model rollback`.",
        )
    }

    pub(crate) fn coverage(model: &str, covered: f64) -> Self {
        Self::of(
            format!(
                "Only {:.0} % of the upper forecasts of model {} held, 90 % should",
                100.0 * covered,
                short(model)
            ),
            "Customers use more than their claims foresee more often than promised, so shadow buckets protect them less. Bursts are new, or \
             the model was trained on calmer demand: train on new history, or put a model back that did better: `forebay model rollback`.",
        )
    }

    pub(crate) fn drift(model: &str, times_usual: f64) -> Self {
        Self::of(
            format!(
                "The loss of model {} has moved to another level: {times_usual:.1} times what is usual for it",
                short(model)
            ),
            "The change is more than chance explains and is still there. Demand is not what the model has learned: train on new history. \
             Without a new model the present level counts as usual after about a week.",
        )
    }

    pub(crate) fn gateway(gateway: &str, model: &str) -> Self {
        Self::of(
            format!(
                "Gateway {gateway} loses more than twice as much as the others by the same model {}",
                short(model)
            ),
            "All gateways forecast the same usage, so the reason is at this one: it syncs too seldom or too late, its clock is wrong, or it is \
             starved of CPU. Look at its last sync and lease in `forebay status`, and at its log.",
        )
    }

    pub(crate) fn refused(gateway: &str, model: &str, reason: &str) -> Self {
        Self::of(
            format!("Gateway {gateway} has refused model {}", short(model)),
            format!(
                "It says: {}. It goes on with the model that it has, or with the fallback. Check the file with `forebay model check FILE`, \
                 and that the gateway trusts the key that releases are signed with; then release it again, or another one.",
                plain(reason)
            ),
        )
    }

    pub(crate) fn missing(gateway: &str, model: &str) -> Self {
        Self::of(
            format!(
                "Gateway {gateway} runs no model and forecasts by the fallback; it should run {}",
                short(model)
            ),
            "It could not fetch the file, or has been fetching it for long. Look at `model_state` in `forebay status`, at the gateway's log, \
             and whether it reaches GET /v1/models/DIGEST of this server.",
        )
    }

    pub(crate) fn unusual(unusual: &UnusualCustomer) -> Self {
        let follows = match unusual.is_capped {
            true => "It is allocated nothing beyond its contract for as long as that lasts.",
            false => "Nothing else follows.",
        };
        let customer = &unusual.customer;
        Self::of(
            format!("Customer {customer} behaves as it never did, and its peers do not"),
            format!(
                "What speaks for it: {}. {follows} A leaked key, scraping or a client that runs away look like this, and so does success that \
                 nobody announced. Look at `forebay anomalies` and `forebay customer show {customer}`; what is to stop now can be frozen or banned.",
                plain(&unusual.says)
            ),
        )
    }

    pub(crate) fn taken_back(model: &str) -> Self {
        Self::of(
            format!("Model {} was taken back as a canary", short(model)),
            "It lost more than the model before it, a gateway refused it, or somebody took it back: `forebay audit` says which. All gateways \
             run the model before. This alert ends after a day, or with the next release.",
        )
    }
}

fn short(digest: &str) -> String {
    digest.chars().take(DIGEST_CHARS).collect()
}

/// What a gateway says may have any characters in it, and as many as it likes.
fn plain(text: &str) -> String {
    let printable = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(printable).take(200).collect()
}
