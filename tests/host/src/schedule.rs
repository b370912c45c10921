//! Runs several workers in every order of their shared-data calls.
//!
//! A race between two workers shows in one order of a hundred, and real threads find it once in a million runs.
//! Here each actor is a thread that stops before every shared-data call; exactly one goes on at a time, chosen by
//! a depth-first walk over all choices.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::gate::{Fate, Gate};

/// What a walk covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Different orders that were run.
    pub runs: usize,
    /// Whether there is no further order.
    pub complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Actor {
    Running,
    Waiting,
    Done,
}

#[derive(Debug)]
struct Stage {
    actors: Mutex<Vec<Actor>>,
    changed: Condvar,
}

/// Marks its actor as done even when it panics, so that the walk does not wait for ever.
struct Leave<'a>(&'a Stage, usize);

/// Calls `scene` for every order, at most `max_runs` times. `scene` sets a fresh gateway up and returns the
/// actors, each of which puts the gate before its worker and acts, and a check for when all have acted.
pub fn every_interleaving<Act, Check>(
    max_runs: usize,
    mut scene: impl FnMut() -> (Vec<Act>, Check),
) -> Explored
where
    Act: FnOnce(Gate) + Send,
    Check: FnOnce(&[usize]),
{
    let mut prefix: Vec<usize> = Vec::new();
    let mut runs = 0;
    loop {
        let (actors, check) = scene();
        let taken = run_once(actors, &prefix);
        runs += 1;
        let order: Vec<usize> = taken.iter().map(|choice| choice.actor).collect();
        check(&order);
        // The deepest choice that has an alternative left is where the next order departs from this one.
        let Some(depth) = taken
            .iter()
            .rposition(|choice| choice.index + 1 < choice.of)
        else {
            return Explored {
                runs,
                complete: true,
            };
        };
        if runs >= max_runs {
            return Explored {
                runs,
                complete: false,
            };
        }
        prefix = taken[..depth].iter().map(|choice| choice.index).collect();
        prefix.push(taken[depth].index + 1);
    }
}

#[derive(Clone, Copy, Debug)]
struct Choice {
    index: usize,
    of: usize,
    actor: usize,
}

fn run_once<Act: FnOnce(Gate) + Send>(actors: Vec<Act>, prefix: &[usize]) -> Vec<Choice> {
    let stage = Arc::new(Stage {
        actors: Mutex::new(vec![Actor::Running; actors.len()]),
        changed: Condvar::new(),
    });
    thread::scope(|scope| {
        for (number, act) in actors.into_iter().enumerate() {
            let stage = Arc::clone(&stage);
            scope.spawn(move || {
                let _leave = Leave(&stage, number);
                act(stop_before_shared_calls(Arc::clone(&stage), number));
            });
        }
        direct(&stage, prefix)
    })
}

fn stop_before_shared_calls(stage: Arc<Stage>, number: usize) -> Gate {
    Gate::new(move |call| {
        if call.is_shared() {
            stage.set(number, Actor::Waiting);
            stage.wait_while(|actors| actors[number] == Actor::Waiting);
        }
        Fate::Proceed
    })
}

/// Lets one waiting actor go on at a time, until all are done.
fn direct(stage: &Stage, prefix: &[usize]) -> Vec<Choice> {
    let mut taken = Vec::new();
    loop {
        stage.wait_while(|actors| actors.contains(&Actor::Running));
        let waiting: Vec<usize> = {
            let actors = stage.actors.lock().unwrap();
            (0..actors.len())
                .filter(|number| actors[*number] == Actor::Waiting)
                .collect()
        };
        if waiting.is_empty() {
            return taken;
        }
        let index = prefix.get(taken.len()).copied().unwrap_or(0);
        taken.push(Choice {
            index,
            of: waiting.len(),
            actor: waiting[index],
        });
        stage.set(waiting[index], Actor::Running);
    }
}

// === impl Stage ===

impl Stage {
    fn set(&self, number: usize, actor: Actor) {
        self.actors.lock().unwrap()[number] = actor;
        self.changed.notify_all();
    }

    fn wait_while(&self, condition: impl Fn(&[Actor]) -> bool) {
        let actors = self.actors.lock().unwrap();
        let _woken = self
            .changed
            .wait_while(actors, |actors| condition(actors))
            .unwrap();
    }
}

// === impl Leave ===

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.set(self.1, Actor::Done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::HostCall;

    #[test]
    fn two_actors_with_three_calls_each_meet_in_all_twenty_orders() {
        let orders = std::cell::RefCell::new(Vec::new());
        let seen = &orders;
        let explored = every_interleaving(1000, || {
            let act = |worker: usize| {
                move |gate: Gate| {
                    for _ in 0..3 {
                        gate.decide(HostCall {
                            worker,
                            name: "proxy_set_shared_data",
                        });
                    }
                }
            };
            (vec![act(0), act(1)], move |order: &[usize]| {
                seen.borrow_mut().push(order.to_vec())
            })
        });
        let mut orders = orders.into_inner();
        assert_eq!(
            explored,
            Explored {
                runs: 20,
                complete: true
            }
        );
        orders.sort();
        orders.dedup();
        assert_eq!(orders.len(), 20, "each order once");
    }

    #[test]
    fn a_bound_on_the_runs_is_kept_and_told() {
        let explored = every_interleaving(5, || {
            let act = |worker: usize| {
                move |gate: Gate| {
                    for _ in 0..4 {
                        gate.decide(HostCall {
                            worker,
                            name: "proxy_get_shared_data",
                        });
                    }
                }
            };
            (vec![act(0), act(1)], |_: &[usize]| {})
        });
        assert_eq!(
            explored,
            Explored {
                runs: 5,
                complete: false
            }
        );
    }
}
