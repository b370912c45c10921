//! The rules as compiled at configure time: nothing is parsed or compared by name when a request comes.

use forebay_core::policy::Policy;
use forebay_core::resource::ResourceIndex;
use forebay_wire::config::{ChargeConfig, RuleConfig};

use crate::cost::Cost;
use crate::key::KeySource;
use crate::matcher::Matcher;
use crate::request::Fetch;

/// Which requests are charged, whom and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) matcher: Matcher,
    pub(crate) key: KeySource,
    pub(crate) charges: Vec<Charge>,
}

/// What is taken of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    /// Name of the resource.
    pub(crate) name: String,
    /// Its position in the policy in force; `None` if that policy does not have it.
    pub(crate) resource: Option<ResourceIndex>,
    pub(crate) cost: Cost,
}

// === impl Rule ===

impl Rule {
    pub(crate) fn compile(config: &RuleConfig) -> Self {
        Self {
            matcher: Matcher::compile(&config.matches),
            key: KeySource::compile(&config.key),
            charges: config.charges.iter().map(Charge::compile).collect(),
        }
    }

    fn header_names(&self) -> impl Iterator<Item = &str> {
        let costs = self
            .charges
            .iter()
            .filter_map(|charge| charge.cost.header_name());
        self.matcher
            .header_names()
            .chain(self.key.header_name())
            .chain(costs)
    }
}

/// Points every charge to its resource in this policy. Returns the path of the first charge without one.
pub(crate) fn bind(rules: &mut [Rule], policy: &Policy) -> Option<String> {
    let mut first_unbound = None;
    for (rule_index, rule) in rules.iter_mut().enumerate() {
        for (charge_index, charge) in rule.charges.iter_mut().enumerate() {
            let position = policy
                .resources
                .iter()
                .position(|resource| resource.name == charge.name);
            charge.resource = position.and_then(ResourceIndex::new);
            if charge.resource.is_none() {
                first_unbound.get_or_insert_with(|| {
                    format!("rules[{rule_index}].charges[{charge_index}].resource")
                });
            }
        }
    }
    first_unbound
}

/// How headers are fetched best for these rules.
pub(crate) fn fetch(rules: &[Rule]) -> Fetch {
    if rules.iter().flat_map(Rule::header_names).take(2).count() > 1 {
        Fetch::Together
    } else {
        Fetch::Single
    }
}

// === impl Charge ===

impl Charge {
    fn compile(config: &ChargeConfig) -> Self {
        Self {
            name: config.resource.clone(),
            resource: None,
            cost: Cost::compile(&config.cost),
        }
    }
}
