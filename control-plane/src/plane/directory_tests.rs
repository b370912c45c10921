//! How a gateway comes to know the customers of a policy, part by part: apart from the code, because it needs a gateway's side.

use super::*;
use std::collections::BTreeMap;

const COMPILED: &[u8] = b"tables";

fn customers(count: usize) -> Vec<CompiledCustomer> {
    let customer = |number: usize| CompiledCustomer {
        key: format!("c{number}"),
        contract: ContractIndex(0),
        ban_until_unix_ms: 0,
        exempt: false,
        frozen: false,
    };
    (0..count).map(customer).collect()
}

fn keys() -> Keys {
    Keys::new(None, Some("000102030405060708090a0b0c0d0e0f")).unwrap()
}

/// A gateway that applies what it is told, and asks again until there is nothing left.
#[derive(Default)]
struct Gateway {
    epoch: u64,
    cursor: u64,
    known: BTreeMap<(u64, u64), PolicyCustomer>,
}

impl Gateway {
    fn sync(&mut self, directory: &Directory, epoch: u64) -> bool {
        let Some(delta) =
            directory.delta(epoch, COMPILED, self.epoch, self.cursor, Dialect::Current)
        else {
            return false;
        };
        if delta.full {
            assert_eq!(delta.compiled, COMPILED);
            self.known.clear();
        }
        self.known.extend(
            delta
                .customers
                .iter()
                .map(|customer| ((customer.hash_high, customer.hash_low), *customer)),
        );
        (self.epoch, self.cursor) = (delta.epoch, delta.cursor);
        true
    }
}

#[test]
fn a_gateway_loads_the_list_in_parts_and_then_only_changes() {
    let keys = keys();
    let mut directory = Directory::new(5);
    directory.replace(&customers(10_000), &[ContractIndex(0)], None, &keys);
    let mut gateway = Gateway::default();
    assert!(gateway.sync(&directory, 3) && gateway.sync(&directory, 3));
    // A ban in the middle of the load must not be missed, wherever the customer stands in the list.
    let banned = Override {
        ban_until_unix_ms: Some(u64::MAX),
        ..Override::default()
    };
    let (first, last) = (directory.order[0], directory.order[9_999]);
    directory.set_override(first, banned, None);
    directory.set_override(last, banned, None);
    let mut parts = 2;
    while gateway.sync(&directory, 3) {
        parts += 1;
    }
    assert_eq!((gateway.known.len(), parts), (10_000, 4));
    let bans = gateway
        .known
        .values()
        .filter(|customer| customer.ban_until_unix_ms == u64::MAX)
        .count();
    assert_eq!(bans, 2);
}

#[test]
fn a_cursor_of_another_run_or_policy_starts_the_list_again() {
    let keys = keys();
    let mut directory = Directory::new(1_000);
    directory.replace(&customers(3), &[ContractIndex(0)], None, &keys);
    for (epoch_seen, cursor) in [(1, directory.revision), (2, 999), (2, 5_000), (2, 0)] {
        let delta = directory
            .delta(2, COMPILED, epoch_seen, cursor, Dialect::Current)
            .unwrap();
        assert!(delta.full && delta.complete, "{epoch_seen} {cursor}");
    }
    assert_eq!(
        directory.delta(2, COMPILED, 2, directory.revision, Dialect::Current),
        None
    );
}

#[test]
fn a_gateway_with_the_previous_secret_is_spoken_to_in_its_own_hashes() {
    let keys = keys();
    let mut directory = Directory::new(1);
    directory.replace(&customers(1), &[ContractIndex(0)], None, &keys);
    let (current, previous) = (keys.hash("c0"), keys.previous_hash("c0").unwrap());
    assert_eq!(directory.filed(previous, Dialect::Previous), current);
    let delta = directory
        .delta(1, COMPILED, 0, 0, Dialect::Previous)
        .unwrap();
    assert_eq!(
        (delta.customers[0].hash_high, delta.customers[0].hash_low),
        previous.parts()
    );
}

#[test]
fn a_banned_stranger_stays_banned_over_policy_changes() {
    let keys = keys();
    let mut directory = Directory::new(1);
    directory.replace(
        &customers(1),
        &[ContractIndex(0)],
        Some(ContractIndex(0)),
        &keys,
    );
    let stranger = keys.hash("stranger");
    directory.set_override(
        stranger,
        Override {
            ban_until_unix_ms: Some(7),
            ..Override::default()
        },
        Some(ContractIndex(0)),
    );
    directory.replace(
        &customers(2),
        &[ContractIndex(0)],
        Some(ContractIndex(0)),
        &keys,
    );
    let member = *directory.get(stranger).unwrap();
    assert!(!member.in_policy);
    assert_eq!(directory.in_force(stranger, &member).ban_until_unix_ms, 7);
}
