//! Histories of whole jobs with everything that can go wrong: seeded, so that each can be played again.
//!
//! The simulated world does what the controller's runtime and the workers do, with real rows and the real pool of
//! slots; the kernel decides. A failing seed is played again and printed with its history.
//! `TRILITH_SIMULATION_SEEDS=n` plays more of them, `TRILITH_SIMULATION_SEED=n` one.

mod checks;
mod processes;
mod random;
mod runtime;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use world::World;

use crate::kernel::{Event, Outcome};

const SEEDS: u64 = 10_000;
const STEPS_MAX: usize = 60_000;
/// After this many steps nothing more goes wrong.
const CHAOS_STEPS: usize = 600;

#[derive(Default)]
struct Summary {
    steps: u64,
    /// Fault code of each failure.
    ends: BTreeMap<&'static str, u64>,
    /// What went wrong, by kind.
    troubles: BTreeMap<&'static str, u64>,
    /// Succeeded although something was lost.
    survived: u64,
}

fn play(seed: u64, recording: bool) -> World {
    let mut world = World::new(seed, recording);
    let result = catch_unwind(AssertUnwindSafe(|| {
        world.event(Event::Started);
        while world.outcome.is_none() && world.steps < STEPS_MAX {
            world.chaos &= world.steps < CHAOS_STEPS * world.scale();
            world.step();
        }
        world.check_end();
    }));
    let Err(panic) = result else { return world };
    if !recording {
        // History costs time, so it is only kept the second time.
        play(seed, true);
    }
    eprintln!("seed {seed}\n{:?}\n{}", world.shape, world.history.join("\n"));
    eprintln!("replay with TRILITH_SIMULATION_SEED={seed}");
    resume_unwind(panic);
}

impl Summary {
    fn add(&mut self, world: &World) {
        self.steps += world.steps as u64;
        let end = match &world.outcome {
            Some(Outcome::Failed { fault, .. }) => fault.code.as_str(),
            _ => "Success",
        };
        *self.ends.entry(end).or_default() += 1;
        for (kind, count) in &world.troubles {
            *self.troubles.entry(kind).or_default() += u64::from(*count);
        }
        self.survived += u64::from(end == "Success" && !world.troubles.is_empty());
    }

    fn ended(&self, code: &str) -> u64 {
        self.ends.get(code).copied().unwrap_or(0)
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_history_ends_with_the_right_rows_or_a_fault_and_nothing_published() {
    if let Some(seed) = number("TRILITH_SIMULATION_SEED") {
        let world = play(seed, true);
        eprintln!("seed {seed}\n{:?}\n{}", world.shape, world.history.join("\n"));
        return;
    }
    let seeds = number("TRILITH_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let started = Instant::now();
    let summaries: Vec<Summary> = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| {
                scope.spawn(move || {
                    let mut summary = Summary::default();
                    for seed in (part..seeds).step_by(threads as usize) {
                        summary.add(&play(seed, false));
                    }
                    summary
                })
            })
            .collect();
        let join = |part: std::thread::ScopedJoinHandle<'_, Summary>| {
            part.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        parts.into_iter().map(join).collect()
    });
    let mut all = Summary::default();
    for part in summaries {
        all.steps += part.steps;
        all.survived += part.survived;
        for (end, count) in part.ends {
            *all.ends.entry(end).or_default() += count;
        }
        for (kind, count) in part.troubles {
            *all.troubles.entry(kind).or_default() += count;
        }
    }
    eprintln!(
        "{seeds} histories of {} steps in {:.1?}, losses = 0: {} succeeded after trouble\nends {:?}\ntroubles {:?}",
        all.steps,
        started.elapsed(),
        all.survived,
        all.ends,
        all.troubles
    );
    if seeds < SEEDS {
        return;
    }
    // The histories must not be all calm or all hopeless, and must reach every limit.
    assert!(all.ended("Success") > seeds / 5 && all.survived > seeds / 10);
    for code in [
        "TooManyAttemptsForWorker",
        "TooManyAttemptsForJob",
        "WorkerFailed",
        "WorkerRpcFailed",
        "TaskStartTimeout",
        "Canceled",
        "UnknownError",
        "InsertTimeNull",
    ] {
        assert!(all.ended(code) > 0, "no history ended in {code}: {:?}", all.ends);
    }
    for kind in TROUBLES {
        assert!(
            all.troubles.contains_key(kind),
            "no history had {kind}: {:?}",
            all.troubles
        );
    }
}

/// Everything that goes wrong in some history.
const TROUBLES: [&str; 19] = [
    "process killed",
    "connection lost, works on",
    "process paused",
    "order failed",
    "hopeless order failed",
    "message to the controller lost",
    "message to the controller late",
    "message to the controller twice",
    "command lost",
    "command twice",
    "heartbeat lost",
    "output forgotten",
    "answer of the controller lost",
    "answer of the controller twice",
    "cancelled",
    "publish refused",
    "publish answer lost, committed",
    "publish answer lost, not committed",
    "clock jumped",
];
