//! The configurations that are alive in this VM, and which stream belongs to which.
//!
//! Nearly always there is one: then nothing is noted for a stream. There are two for a while after a configuration update, or when two
//! filters of one listener share the VM.

use crate::filter::Filter;

/// Streams whose configuration is remembered while there are several. Numbers are issued in order, so the older of two with one place has
/// most likely gone; if not, it is decided by the newest configuration.
const REMEMBERED_STREAMS: usize = 16_384;

/// A configuration that did not tick while the others did so many times is over: Envoy stops the timer of a plugin that it drops.
const TICKS_UNTIL_GONE: u32 = 600;

/// All configurations of the VM, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Roots {
    live: Vec<Root>,
    streams: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct Root {
    id: u32,
    filter: Filter,
    missed_ticks: u32,
}

// === impl Roots ===

impl Roots {
    /// Adds a configuration, or replaces that of the same context.
    pub(super) fn add(&mut self, id: u32, filter: Filter) {
        self.live.retain(|root| root.id != id);
        self.live.push(Root {
            id,
            filter,
            missed_ticks: 0,
        });
    }

    /// Notes a new stream, if it could be confused.
    pub(super) fn note_stream(&mut self, stream: u32, root: u32) {
        if self.live.len() < 2 {
            return;
        }
        if self.streams.is_empty() {
            self.streams.resize(REMEMBERED_STREAMS, (0, 0));
        }
        if let Some(place) = self.streams.get_mut(place(stream)) {
            *place = (stream, root);
        }
    }

    /// The configuration of a stream.
    pub(super) fn of_stream(&mut self, stream: u32) -> Option<&mut Filter> {
        if self.live.len() > 1
            && let Some((_, root)) = self
                .streams
                .get(place(stream))
                .filter(|(noted, _)| *noted == stream)
            && let Some(position) = self.live.iter().position(|live| live.id == *root)
        {
            return self.live.get_mut(position).map(|root| &mut root.filter);
        }
        self.live.last_mut().map(|root| &mut root.filter)
    }

    /// The configuration that ticks, and those that are found to be over.
    pub(super) fn tick(&mut self, id: u32) -> (Option<&mut Filter>, Vec<Filter>) {
        for root in &mut self.live {
            root.missed_ticks = if root.id == id {
                0
            } else {
                root.missed_ticks.saturating_add(1)
            };
        }
        let gone = self
            .live
            .extract_if(.., |root| root.missed_ticks >= TICKS_UNTIL_GONE)
            .map(|root| root.filter);
        let gone = gone.collect();
        if self.live.len() < 2 {
            self.streams = Vec::new();
        }
        (
            self.live
                .iter_mut()
                .find(|root| root.id == id)
                .map(|root| &mut root.filter),
            gone,
        )
    }
}

fn place(stream: u32) -> usize {
    stream as usize & REMEMBERED_STREAMS.saturating_sub(1)
}
