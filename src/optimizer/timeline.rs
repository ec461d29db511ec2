//! When each bucket was communicated and what the rank did meanwhile, for a Chrome trace.

use std::time::Instant;

use serde::Serialize;

/// Something that took time on this rank.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// What: `compute`, `backward`, `reduce_scatter`, `all_gather`, `step`; `ready` is an instant.
    pub name: &'static str,
    /// The bucket, or another number that tells such events apart.
    pub number: usize,
    /// Nanoseconds since the timeline was made.
    pub start_ns: u64,
    /// The same, at the end.
    pub end_ns: u64,
}

/// Events of one rank, if they are recorded.
#[derive(Clone, Debug)]
pub struct Timeline {
    origin: Instant,
    events: Option<Vec<Event>>,
}

impl Timeline {
    /// A timeline that starts now, and records or not.
    pub fn new(records: bool) -> Self {
        Timeline { origin: Instant::now(), events: records.then(Vec::new) }
    }

    /// Adds what started at `start` and ends now.
    pub fn add(&mut self, name: &'static str, number: usize, start: Instant) {
        self.add_until(name, number, start, Instant::now());
    }

    /// Adds what started at `start` and ended at `end`.
    pub fn add_until(&mut self, name: &'static str, number: usize, start: Instant, end: Instant) {
        let at =
            |instant: Instant| instant.saturating_duration_since(self.origin).as_nanos() as u64;
        let (start_ns, end_ns) = (at(start), at(end));
        if let Some(events) = &mut self.events {
            events.push(Event { name, number, start_ns, end_ns });
        }
    }

    /// Whether it records.
    pub fn records(&self) -> bool {
        self.events.is_some()
    }

    /// What was recorded, in the order of the ends.
    pub fn events(&self) -> &[Event] {
        self.events.as_deref().unwrap_or(&[])
    }
}

/// When the gradients of a bucket are complete.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ready {
    /// The number of the bucket.
    pub bucket: usize,
    /// Its elements, without padding.
    pub elements: usize,
    /// Its parameters, the last registered first.
    pub parameters: Vec<String>,
    /// When its last gradient was written, as a share of the backward pass from the first gradient
    /// that was asked for to the end: the mean over the micro-batches of all ranks.
    pub share: f64,
}

/// For each of `buckets` buckets, the sum of the shares of [`Ready`] and how many there are, from
/// `ready` events that each come before the end of their `backward`.
pub fn ready_shares(events: &[Event], buckets: usize) -> Vec<(f64, u64)> {
    let mut shares = vec![(0.0, 0); buckets];
    let mut waiting: Vec<&Event> = Vec::new();
    for event in events {
        match event.name {
            "ready" => waiting.push(event),
            "backward" => {
                let length = (event.end_ns - event.start_ns).max(1) as f64;
                for ready in waiting.drain(..) {
                    let after = ready.start_ns.saturating_sub(event.start_ns);
                    let (sum, count) = &mut shares[ready.number];
                    *sum += (after as f64 / length).min(1.0);
                    *count += 1;
                }
            }
            _ => {}
        }
    }
    shares
}

/// The share of the time of `communication` events that lies inside `work` events: 1 if all of it
/// is hidden, 0 if none.
pub fn hidden_share(events: &[Event], communication: &[&str], work: &[&str]) -> f64 {
    let spans = |names: &[&str]| {
        let chosen = events.iter().filter(|event| names.contains(&event.name));
        let mut spans: Vec<(u64, u64)> = chosen.map(|e| (e.start_ns, e.end_ns)).collect();
        spans.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (start, end) in spans {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        merged
    };
    let (communication, work) = (spans(communication), spans(work));
    let total: u64 = communication.iter().map(|(start, end)| end - start).sum();
    let overlap = |a: &(u64, u64), b: &(u64, u64)| a.1.min(b.1).saturating_sub(a.0.max(b.0));
    let hidden: u64 =
        communication.iter().map(|c| work.iter().map(|w| overlap(c, w)).sum::<u64>()).sum();
    if total == 0 { 1.0 } else { hidden as f64 / total as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hidden_share_counts_every_instant_once() {
        let event = |name, start_ns, end_ns| Event { name, number: 0, start_ns, end_ns };
        let events = [
            event("backward", 0, 100),
            event("backward", 150, 160),
            event("reduce_scatter", 50, 90),
            event("reduce_scatter", 80, 120),
            event("reduce_scatter", 200, 210),
        ];
        let share = hidden_share(&events, &["reduce_scatter"], &["backward"]);
        assert_eq!(share, 50.0 / 80.0);
        assert_eq!(hidden_share(&events, &["all_gather"], &["backward"]), 1.0);
    }

    #[test]
    fn buckets_are_ready_at_a_share_of_their_own_backward_pass() {
        let event = |name, number, start_ns, end_ns| Event { name, number, start_ns, end_ns };
        let events = [
            event("ready", 1, 120, 120),
            event("reduce_scatter", 1, 121, 150),
            event("ready", 0, 200, 200),
            event("backward", 0, 100, 200),
            event("ready", 1, 480, 480),
            event("ready", 0, 450, 450),
            event("backward", 1, 400, 500),
        ];
        assert_eq!(ready_shares(&events, 3), [(1.5, 2), (0.2 + 0.8, 2), (0.0, 0)]);
    }
}
