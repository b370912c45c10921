//! What must happen at once in Redis, as Lua.
//!
//! A script and nothing else: MULTI with WATCH would need a round trip before each change to read the fence and the head, and
//! whatever arrives between a check and a write is exactly what the fence is there for.
//!
//! All keys carry one hash tag, so they lie in one slot, and with it on one master: a change of many rows is one step on any Redis,
//! clustered or not. The price is that the store does not grow beyond one shard; a million accounts take less than one gigabyte.

use super::Table;

/// Who leads: term and nonce, or nothing. Every change names it, and is refused under another.
pub(super) const FENCE: &str = "{forebay}:fence";
/// Number of the newest change.
pub(super) const HEAD: &str = "{forebay}:head";
/// Changes that are durable and not in the rows, see [`super::log`].
pub(super) const LOG: &str = "{forebay}:log";
/// Number of the round in which the rows take in what is in the log, while it lasts.
pub(super) const ROUND: &str = "{forebay}:round";
/// Parts of a large change, see [`super::large`].
pub(super) const STAGED: &str = "{forebay}:staged";
/// There while a large change counts as made and is not applied to its end.
pub(super) const SEALED: &str = "{forebay}:sealed";
/// The leader's address, for as long as it leads without saying so again.
pub(super) const LEASE: &str = "{forebay}:lease";
/// Terms so far.
pub(super) const TERM: &str = "{forebay}:term";

/// Slot of all keys in a cluster: CRC-16 (XMODEM) of their tag, `forebay`, modulo 16384.
pub(super) const SLOT: u16 = 5_656;

/// One of the scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// KEYS fence, head, staged, then those of rows; ARGV fence, lowest head, highest head, new head, 1 to drop the first staged part,
    /// then for each row: number of its key, number of its index or 0, field, 1 or 0 to delete it, value.
    ///
    /// The head must be one that this leader has been told of or has tried to set. A lower one: a failover has lost changes that were
    /// acknowledged. A higher one: this attempt was on its way for so long that a later one has overtaken it.
    Change,
    /// KEYS fence, head, log; ARGV fence, lowest head, highest head, new head, entry. The head is looked at as for a change.
    Append,
    /// KEYS fence, head, log, round; ARGV fence, lowest head, highest head, new head, which is the number of the round. It is a change as any
    /// other: whatever was appended before counts when this does, and what arrives late is refused. Answers the length of the log.
    Round,
    /// KEYS fence, round, then those of rows; ARGV fence, number of the round, then rows as for a change. They are in the log, so it does no
    /// harm that some are written twice, or that not all of them are. One of a round that is over is refused: rows may be newer by then.
    TakeIn,
    /// KEYS fence, log, round; ARGV fence, number of the round, how many entries leave. Ends the round, so it is done once.
    Shorten,
    /// KEYS fence, head, staged, sealed; ARGV fence, lowest head, highest head, new head, part, 1 for the first one. Nothing counts of it yet.
    Stage,
    /// KEYS fence, head, staged, sealed; ARGV fence, lowest head, highest head, new head. From here on the parts count.
    Seal,
    /// KEYS fence, head, staged, sealed; ARGV fence, lowest head, highest head, new head. Drops what is left of a large change, all of which is
    /// applied or none of which counts.
    Clear,
    /// KEYS fence, term, lease, head, log, the hash with the mark of a clean stop; ARGV nonce, address, milliseconds, newest head that was seen,
    /// the entry that takes the mark away, its field. Answers the new fence, or an empty one and who leads; and the head. A store that was not empty and is now has lost
    /// its data, and is not taken for a new one; one that went back to a clean stop of long ago did not stop cleanly.
    Lead,
    /// KEYS fence, lease, head; ARGV fence, address, milliseconds. Answers the head.
    Renew,
    /// KEYS fence, lease; ARGV fence. Whatever the leader has still under way is refused from now on.
    Resign,
}

// === impl Script ===

impl Script {
    /// All of them, in the order of [`Self::number`].
    pub(super) const ALL: [Self; 11] = [
        Self::Change,
        Self::Append,
        Self::Round,
        Self::TakeIn,
        Self::Shorten,
        Self::Stage,
        Self::Seal,
        Self::Clear,
        Self::Lead,
        Self::Renew,
        Self::Resign,
    ];

    /// Its place in [`Self::ALL`].
    pub(super) fn number(self) -> usize {
        Self::ALL
            .iter()
            .position(|script| *script == self)
            .unwrap_or(0)
    }

    /// Its text.
    pub(super) fn text(self) -> String {
        let fenced = "
            if redis.call('GET', KEYS[1]) ~= ARGV[1] then
                return redis.error_reply('FENCED another process leads')
            end";
        let headed = "
            local head = tonumber(redis.call('GET', KEYS[2]) or '0')
            if head < tonumber(ARGV[2]) then return redis.error_reply('WENTBACK ' .. head) end
            if head > tonumber(ARGV[3]) then return redis.error_reply('OVERTAKEN ' .. head) end";
        let rows = "
            for at = first, #ARGV, 5 do
                local key, field = KEYS[tonumber(ARGV[at])], ARGV[at + 2]
                local index = tonumber(ARGV[at + 1])
                if ARGV[at + 3] == '1' then
                    redis.call('HSET', key, field, ARGV[at + 4])
                    if index > 0 then redis.call('ZADD', KEYS[index], 0, field) end
                else
                    redis.call('HDEL', key, field)
                    if index > 0 then redis.call('ZREM', KEYS[index], field) end
                end
            end";
        match self {
            Self::Change => format!(
                "{fenced}{headed}
                local first = 6
                {rows}
                if ARGV[5] == '1' then redis.call('LPOP', KEYS[3]) end
                redis.call('SET', KEYS[2], ARGV[4])
                return 1"
            ),
            Self::Append => format!(
                "{fenced}{headed}
                redis.call('RPUSH', KEYS[3], ARGV[5])
                redis.call('SET', KEYS[2], ARGV[4])
                return 1"
            ),
            Self::Round => format!(
                "{fenced}{headed}
                redis.call('SET', KEYS[2], ARGV[4])
                redis.call('SET', KEYS[4], ARGV[4])
                return redis.call('LLEN', KEYS[3])"
            ),
            Self::TakeIn => format!(
                "{fenced}
                if redis.call('GET', KEYS[2]) ~= ARGV[2] then return redis.error_reply('OVERTAKEN 0') end
                local first = 3
                {rows}
                return 1"
            ),
            Self::Shorten => format!(
                "{fenced}
                if redis.call('GET', KEYS[3]) ~= ARGV[2] then return redis.error_reply('OVERTAKEN 0') end
                redis.call('LTRIM', KEYS[2], ARGV[3], -1)
                redis.call('DEL', KEYS[3])
                return 1"
            ),
            Self::Stage => format!(
                "{fenced}{headed}
                if ARGV[6] == '1' then redis.call('DEL', KEYS[3]) end
                redis.call('RPUSH', KEYS[3], ARGV[5])
                redis.call('SET', KEYS[2], ARGV[4])
                return 1"
            ),
            Self::Seal => format!(
                "{fenced}{headed}
                redis.call('SET', KEYS[2], ARGV[4])
                redis.call('SET', KEYS[4], ARGV[4])
                return 1"
            ),
            Self::Clear => format!(
                "{fenced}{headed}
                redis.call('DEL', KEYS[3], KEYS[4])
                redis.call('SET', KEYS[2], ARGV[4])
                return 1"
            ),
            Self::Lead => "
                local head = redis.call('GET', KEYS[4]) or '0'
                if head == '0' and ARGV[4] ~= '0' then return redis.error_reply('EMPTIED no rows are left') end
                local leader = redis.call('GET', KEYS[3])
                if leader then return {'', leader, head} end
                if tonumber(head) < tonumber(ARGV[4]) then
                    redis.call('RPUSH', KEYS[5], ARGV[5])
                    redis.call('HDEL', KEYS[6], ARGV[6])
                end
                local fence = redis.call('INCR', KEYS[2]) .. ':' .. ARGV[1]
                redis.call('SET', KEYS[1], fence)
                redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
                return {fence, ARGV[2], head}"
                .to_owned(),
            Self::Renew => format!(
                "{fenced}
                redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
                return redis.call('GET', KEYS[3]) or '0'"
            ),
            Self::Resign => format!(
                "{fenced}
                redis.call('DEL', KEYS[1], KEYS[2])
                return 1"
            ),
        }
    }
}

/// The hash with the rows of a table whose keys begin with one byte, so that none of them is too large to be read at once.
pub(super) fn hash_of(table: Table, first: u8) -> String {
    format!("{{forebay}}:{}:{first:02x}", table.name())
}

/// The sorted set with all keys of a table of which parts are asked for.
pub(super) fn index_of(table: Table) -> Option<String> {
    table
        .has_ranges()
        .then(|| format!("{{forebay}}:{}:keys", table.name()))
}
