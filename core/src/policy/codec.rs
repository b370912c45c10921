//! The binary form of a compiled policy, as it lies in shared data and travels in a sync reply.
//!
//! Every field at a fixed place, nothing optional, and a check of all bounds after reading: what decodes can be used.

use super::{
    Contract, ContractIndex, Limits, Policy, PoolRule, Resource, ShadowRule, Tier, Unknown,
};
use crate::amount::{Micro, Rate};
use crate::bytes::Reader;
use crate::deviation::ContentionRule;
use crate::error::CoreError;
use crate::limits::MAX_CONTRACTS;
use crate::resource::PerResource;

const MARK: [u8; 3] = *b"FBP";
const VERSION: u8 = 1;
const WHAT: &str = "policy";

impl Policy {
    /// The binary form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MARK);
        out.push(VERSION);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.push(u8::from(self.dry_run));
        out.push(self.resources.len() as u8);
        out.extend_from_slice(&(self.contracts.len() as u32).to_le_bytes());
        encode_unknown(self.unknown, &mut out);
        encode_shadow(&self.shadow, &mut out);
        for resource in &self.resources {
            encode_resource(resource, &mut out);
        }
        for contract in &self.contracts {
            encode_contract(contract, self.resources.len(), &mut out);
        }
        out
    }

    /// Reads the binary form and checks every bound.
    pub fn decode(bytes: &[u8]) -> Result<Policy, CoreError> {
        let mut reader = Reader::new(WHAT, bytes);
        reader.mark(MARK, VERSION)?;
        let epoch = reader.u64()?;
        let dry_run = decode_bool(&mut reader, "dry_run")?;
        let resource_count = usize::from(reader.u8()?);
        let contract_count = reader.u32()? as usize;
        if contract_count > MAX_CONTRACTS {
            return Err(CoreError::OutOfBounds {
                what: WHAT,
                field: "contracts",
                found: contract_count as u64,
                allowed: "at most 65536",
            });
        }
        let unknown = decode_unknown(&mut reader)?;
        let shadow = decode_shadow(&mut reader)?;
        // No capacity is reserved up front: the counts are the blob's word, the rows are its proof.
        let mut resources = Vec::new();
        for row in 0..resource_count {
            resources.push(decode_resource(&mut reader, row)?);
        }
        let mut contracts = Vec::new();
        for row in 0..contract_count {
            contracts.push(decode_contract(&mut reader, resource_count, row)?);
        }
        reader.end()?;
        let policy = Policy {
            epoch,
            dry_run,
            resources,
            contracts,
            unknown,
            shadow,
        };
        policy.check()?;
        Ok(policy)
    }
}

fn encode_name(name: &str, out: &mut Vec<u8>) {
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

fn decode_name(
    reader: &mut Reader<'_>,
    what: &'static str,
    row: usize,
) -> Result<String, CoreError> {
    let len = usize::from(reader.u8()?);
    let bytes = reader.slice(len)?;
    core::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| CoreError::BadName { what, row })
}

fn decode_bool(reader: &mut Reader<'_>, field: &'static str) -> Result<bool, CoreError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(CoreError::OutOfBounds {
            what: WHAT,
            field,
            found: u64::from(found),
            allowed: "0 or 1",
        }),
    }
}

fn decode_rate(reader: &mut Reader<'_>, field: &'static str) -> Result<Rate, CoreError> {
    let found = reader.u64()?;
    if found > Rate::MAX.get() {
        return Err(CoreError::OutOfBounds {
            what: WHAT,
            field,
            found,
            allowed: "at most 10^18 micro-tokens per second",
        });
    }
    Ok(Rate::new(found))
}

fn encode_unknown(unknown: Unknown, out: &mut Vec<u8>) {
    let (kind, contract, v4, v6) = match unknown {
        Unknown::Deny => (0, 0, 0, 0),
        Unknown::DefaultContract(contract) => (1, contract.0, 0, 0),
        Unknown::Commons {
            contract,
            prefix_len_v4,
            prefix_len_v6,
        } => (2, contract.0, prefix_len_v4, prefix_len_v6),
    };
    out.push(kind);
    out.extend_from_slice(&contract.to_le_bytes());
    out.extend_from_slice(&[v4, v6]);
}

fn decode_unknown(reader: &mut Reader<'_>) -> Result<Unknown, CoreError> {
    let kind = reader.u8()?;
    let contract = ContractIndex(reader.u16()?);
    let [prefix_len_v4, prefix_len_v6] = reader.array()?;
    match kind {
        0 => Ok(Unknown::Deny),
        1 => Ok(Unknown::DefaultContract(contract)),
        2 => Ok(Unknown::Commons {
            contract,
            prefix_len_v4,
            prefix_len_v6,
        }),
        found => Err(CoreError::OutOfBounds {
            what: WHAT,
            field: "unknown",
            found: u64::from(found),
            allowed: "0 (deny), 1 (default contract) or 2 (commons)",
        }),
    }
}

fn encode_shadow(shadow: &ShadowRule, out: &mut Vec<u8>) {
    out.push(u8::from(shadow.enabled));
    out.extend_from_slice(&shadow.quantile_permille.to_le_bytes());
    out.extend_from_slice(&shadow.span_us.to_le_bytes());
    out.extend_from_slice(&shadow.depth_factor.to_le_bytes());
    out.extend_from_slice(&shadow.protected_permille.to_le_bytes());
    out.extend_from_slice(&shadow.contention.window_us.to_le_bytes());
    out.extend_from_slice(&[shadow.contention.windows_needed, shadow.contention.windows]);
}

fn decode_shadow(reader: &mut Reader<'_>) -> Result<ShadowRule, CoreError> {
    Ok(ShadowRule {
        enabled: decode_bool(reader, "shadow enabled")?,
        quantile_permille: reader.u16()?,
        span_us: reader.u32()?,
        depth_factor: reader.u32()?,
        protected_permille: reader.u16()?,
        contention: ContentionRule {
            window_us: reader.u32()?,
            windows_needed: reader.u8()?,
            windows: reader.u8()?,
        },
    })
}

fn encode_resource(resource: &Resource, out: &mut Vec<u8>) {
    encode_name(&resource.name, out);
    let pool = resource.pool.unwrap_or(PoolRule {
        capacity: Rate::ZERO,
        depth: Micro::ZERO,
    });
    out.push(u8::from(resource.pool.is_some()));
    out.extend_from_slice(&pool.capacity.get().to_le_bytes());
    out.extend_from_slice(&pool.depth.get().to_le_bytes());
}

fn decode_resource(reader: &mut Reader<'_>, row: usize) -> Result<Resource, CoreError> {
    let name = decode_name(reader, "resource", row)?;
    let has_pool = decode_bool(reader, "pool")?;
    let capacity = decode_rate(reader, "pool capacity")?;
    let depth = Micro::new(reader.i64()?);
    Ok(Resource {
        name,
        pool: has_pool.then_some(PoolRule { capacity, depth }),
    })
}

fn encode_contract(contract: &Contract, resource_count: usize, out: &mut Vec<u8>) {
    encode_name(&contract.name, out);
    out.extend_from_slice(&[contract.tier.number(), contract.priority]);
    out.extend_from_slice(&contract.weight.to_le_bytes());
    for limits in contract.limits.iter().take(resource_count) {
        for rate in [limits.rate, limits.guarantee, limits.ceiling] {
            out.extend_from_slice(&rate.get().to_le_bytes());
        }
        for amount in [limits.burst, limits.debt_limit, limits.borrow_limit] {
            out.extend_from_slice(&amount.get().to_le_bytes());
        }
    }
}

fn decode_contract(
    reader: &mut Reader<'_>,
    resource_count: usize,
    row: usize,
) -> Result<Contract, CoreError> {
    let name = decode_name(reader, "contract", row)?;
    let tier = reader.u8()?;
    let tier = Tier::from_number(tier).ok_or(CoreError::OutOfBounds {
        what: "contract",
        field: "tier",
        found: u64::from(tier),
        allowed: "1 to 3",
    })?;
    let priority = reader.u8()?;
    let weight = reader.u32()?;
    let mut limits = PerResource::<Limits>::default();
    for limits in limits.iter_mut().take(resource_count) {
        limits.rate = decode_rate(reader, "rate")?;
        limits.guarantee = decode_rate(reader, "guarantee")?;
        limits.ceiling = decode_rate(reader, "ceiling")?;
        limits.burst = Micro::new(reader.i64()?);
        limits.debt_limit = Micro::new(reader.i64()?);
        limits.borrow_limit = Micro::new(reader.i64()?);
    }
    Ok(Contract {
        name,
        tier,
        priority,
        weight,
        limits,
    })
}
