//! What the types alone cannot refuse: ranges, names, and fields that exclude each other.
//!
//! Every check names the place in the document. Checks that need the compiled policy (does a rule name a resource that exists) are made by
//! the plugin, because a policy from the control plane arrives later.

use super::{
    ChargeConfig, ColdStart, ConfigError, CostConfig, HeaderMatch, KeyConfig, MAX_COST_TOKENS,
    MAX_RULES, MatchConfig, PLUGIN_CONFIG_VERSION, PluginConfig, RuleConfig,
};
use crate::key::MAX_KEY_BYTES;
use crate::policy::Decimal;

/// Resources that one rule can charge, which is what a deployment can have.
const MAX_CHARGES: usize = 4;

/// Conditions of one rule at most: each header condition is a host call.
const MAX_CONDITIONS: usize = 16;

const MAX_RULE_NAME_BYTES: usize = 32;
const MAX_HEADER_NAME_BYTES: usize = 256;
const MAX_BODY_BYTES: usize = 16 << 10;
const MAX_LEDGER_CUSTOMERS: u32 = 4 << 20;

/// Bytes that can stand in a header name besides letters and digits (RFC 9110, token).
const HEADER_NAME_MARKS: &[u8] = b"!#$%&'*+-.^_`|~";

type Checked = Result<(), ConfigError>;

pub(super) fn check(config: &PluginConfig) -> Checked {
    if config.version != PLUGIN_CONFIG_VERSION {
        return refuse(
            "version",
            format!(
                "version {} is not known; this build reads version {PLUGIN_CONFIG_VERSION}",
                config.version
            ),
        );
    }
    check_rules(&config.rules)?;
    check_source(config)?;
    check_denial(config)?;
    for (name, customers) in [
        ("max_policy_customers", config.ledger.max_policy_customers),
        ("max_other_customers", config.ledger.max_other_customers),
    ] {
        if !(1..=MAX_LEDGER_CUSTOMERS).contains(&customers) {
            return refuse(
                format!("ledger.{name}"),
                format!("must be 1 to {MAX_LEDGER_CUSTOMERS}, is {customers}"),
            );
        }
    }
    Ok(())
}

fn check_rules(rules: &[RuleConfig]) -> Checked {
    if rules.is_empty() {
        return refuse(
            "rules",
            "there is no rule, so nothing would be limited; give at least one",
        );
    }
    if rules.len() > MAX_RULES {
        return refuse(
            "rules",
            format!("{} rules are more than {MAX_RULES}", rules.len()),
        );
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("rules[{index}]");
        check_rule_name(&rule.name, &path)?;
        if rules
            .iter()
            .take(index)
            .any(|earlier| earlier.name == rule.name)
        {
            return refuse(
                format!("{path}.name"),
                format!("an earlier rule is named `{}` as well", rule.name),
            );
        }
        check_match(&rule.matches, &format!("{path}.match"))?;
        check_key(&rule.key, &format!("{path}.key"))?;
        check_charges(&rule.charges, &format!("{path}.charges"))?;
    }
    Ok(())
}

fn check_rule_name(name: &str, path: &str) -> Checked {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > MAX_RULE_NAME_BYTES || !name.bytes().all(allowed) {
        return refuse(
            format!("{path}.name"),
            format!(
                "`{name}` must be 1 to {MAX_RULE_NAME_BYTES} lower-case letters, digits or hyphens: it is part of metric names"
            ),
        );
    }
    Ok(())
}

fn check_match(matches: &MatchConfig, path: &str) -> Checked {
    if let Some(prefix) = &matches.path_prefix
        && !prefix.starts_with('/')
    {
        return refuse(
            format!("{path}.path_prefix"),
            format!("`{prefix}` must start with a slash"),
        );
    }
    for (index, method) in matches.methods.iter().enumerate() {
        if method.is_empty()
            || !method
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'-')
        {
            return refuse(
                format!("{path}.methods[{index}]"),
                format!("`{method}` must be a method in capital letters"),
            );
        }
    }
    if matches.methods.len() > MAX_CONDITIONS || matches.headers.len() > MAX_CONDITIONS {
        return refuse(
            path,
            format!("more than {MAX_CONDITIONS} methods or headers"),
        );
    }
    for (index, header) in matches.headers.iter().enumerate() {
        check_header_match(header, &format!("{path}.headers[{index}]"))?;
    }
    Ok(())
}

fn check_header_match(header: &HeaderMatch, path: &str) -> Checked {
    check_header_name(&header.name, &format!("{path}.name"))?;
    let given = [
        header.exact.is_some(),
        header.prefix.is_some(),
        header.present.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() != 1 {
        return refuse(path, "give exactly one of exact, prefix and present");
    }
    Ok(())
}

fn check_key(key: &KeyConfig, path: &str) -> Checked {
    match key {
        KeyConfig::Header(header) => {
            check_header_name(&header.name, &format!("{path}.header.name"))?;
            check_trusted(header.trusted, &format!("{path}.header.trusted"))
        }
        KeyConfig::Property(property) => {
            let path = format!("{path}.property.path");
            if property.path.is_empty() || property.path.len() > MAX_CONDITIONS {
                return refuse(path, format!("give 1 to {MAX_CONDITIONS} parts"));
            }
            for (index, part) in property.path.iter().enumerate() {
                if part.is_empty() || part.contains('\0') {
                    return refuse(
                        format!("{path}[{index}]"),
                        "a part must have at least one character and no NUL",
                    );
                }
            }
            Ok(())
        }
        KeyConfig::SourceAddress(address) => {
            if !(1..=32).contains(&address.prefix_len_v4) {
                return refuse(
                    format!("{path}.source_address.prefix_len_v4"),
                    format!("must be 1 to 32, is {}", address.prefix_len_v4),
                );
            }
            if !(1..=128).contains(&address.prefix_len_v6) {
                return refuse(
                    format!("{path}.source_address.prefix_len_v6"),
                    format!("must be 1 to 128, is {}", address.prefix_len_v6),
                );
            }
            Ok(())
        }
        KeyConfig::Constant(key) => {
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                return refuse(
                    format!("{path}.constant"),
                    format!("must have 1 to {MAX_KEY_BYTES} bytes"),
                );
            }
            Ok(())
        }
    }
}

fn check_charges(charges: &[ChargeConfig], path: &str) -> Checked {
    if charges.is_empty() || charges.len() > MAX_CHARGES {
        return refuse(
            path,
            format!(
                "give 1 to {MAX_CHARGES} charges, there are {}",
                charges.len()
            ),
        );
    }
    for (index, charge) in charges.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if charge.resource.is_empty() {
            return refuse(format!("{path}.resource"), "name a resource of the policy");
        }
        if charges
            .iter()
            .take(index)
            .any(|earlier| earlier.resource == charge.resource)
        {
            return refuse(
                format!("{path}.resource"),
                format!("`{}` is charged twice by this rule", charge.resource),
            );
        }
        check_cost(&charge.cost, &format!("{path}.cost"))?;
    }
    Ok(())
}

fn check_cost(cost: &CostConfig, path: &str) -> Checked {
    match cost {
        CostConfig::Constant(tokens) => check_amount(*tokens, &format!("{path}.constant")),
        CostConfig::Header(header) => {
            let path = format!("{path}.header");
            check_header_name(&header.name, &format!("{path}.name"))?;
            check_trusted(header.trusted, &format!("{path}.trusted"))?;
            check_at_most(header.default, header.max, &format!("{path}.default"))?;
            check_amount(header.max, &format!("{path}.max"))
        }
        CostConfig::Settle(settle) => {
            let path = format!("{path}.settle");
            check_header_name(&settle.response_header, &format!("{path}.response_header"))?;
            check_at_most(settle.estimate, settle.max, &format!("{path}.estimate"))?;
            check_amount(settle.max, &format!("{path}.max"))
        }
    }
}

fn check_source(config: &PluginConfig) -> Checked {
    match (&config.policy, &config.control_plane) {
        (None, None) => refuse(
            ".",
            "neither policy nor control_plane is given; a gateway that stands alone needs policy, one with a control plane needs control_plane: {}",
        ),
        (Some(_), Some(_)) => refuse(
            "control_plane",
            "policy is given as well; the control plane sends its own, so remove one",
        ),
        (None, Some(control_plane)) => match &control_plane.cold_start {
            ColdStart::Deny => Ok(()),
            ColdStart::Shared(shared) => {
                check_amount(
                    shared.rate_per_s,
                    "control_plane.cold_start.shared.rate_per_s",
                )?;
                check_amount(shared.burst, "control_plane.cold_start.shared.burst")
            }
        },
        (Some(_), None) => Ok(()),
    }
}

fn check_denial(config: &PluginConfig) -> Checked {
    let denial = &config.denial;
    if !(400..=599).contains(&denial.status) {
        return refuse(
            "denial.status",
            format!("must be 400 to 599, is {}", denial.status),
        );
    }
    if !(1..=16).contains(&denial.grpc_status) {
        return refuse(
            "denial.grpc_status",
            format!("must be 1 to 16, is {}", denial.grpc_status),
        );
    }
    if denial.body.len() > MAX_BODY_BYTES {
        return refuse(
            "denial.body",
            format!(
                "has {} bytes, more than {MAX_BODY_BYTES}",
                denial.body.len()
            ),
        );
    }
    if !denial
        .content_type
        .bytes()
        .all(|byte| (0x20..0x7f).contains(&byte))
    {
        return refuse("denial.content_type", "must be printable ASCII");
    }
    Ok(())
}

fn check_header_name(name: &str, path: &str) -> Checked {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || HEADER_NAME_MARKS.contains(&byte)
    };
    let plain = name.strip_prefix(':').unwrap_or(name);
    if plain.is_empty() || name.len() > MAX_HEADER_NAME_BYTES || !plain.bytes().all(allowed) {
        return refuse(path, format!("`{name}` is no header name in lower case"));
    }
    Ok(())
}

fn check_trusted(trusted: bool, path: &str) -> Checked {
    if trusted {
        return Ok(());
    }
    refuse(
        path,
        "must be true. Clients can send any header: set it only when something before this filter sets or verifies the header, else use a property",
    )
}

fn check_amount(tokens: Decimal, path: &str) -> Checked {
    match Decimal::from_tokens(MAX_COST_TOKENS) {
        Ok(most) if tokens > most => {
            refuse(path, format!("must be at most {MAX_COST_TOKENS} tokens"))
        }
        _ => Ok(()),
    }
}

fn check_at_most(tokens: Decimal, max: Decimal, path: &str) -> Checked {
    if tokens > max {
        return refuse(path, "must not be above max");
    }
    Ok(())
}

fn refuse(path: impl Into<String>, message: impl Into<String>) -> Checked {
    Err(ConfigError::at(path, message))
}
