//! Histories of whole jobs with everything that can go wrong: seeded, so that each can be played again.
//!
//! The simulated world does what the controller's runtime and the workers do, with real rows; the kernel
//! decides. A failing seed is printed with its history. `TRILITH_SIMULATION_SEEDS=n` plays more of them,
//! `TRILITH_SIMULATION_SEED=n` one.

mod random;
mod world;

use world::World;

use crate::kernel::{Event, Outcome};

const SEEDS: u64 = 5_000;
const STEPS_MAX: usize = 20_000;
/// After this many steps nothing more goes wrong.
const CHAOS_STEPS: usize = 400;

struct Summary {
    success: bool,
    losses: usize,
}

fn play(seed: u64) -> Summary {
    let mut world = World::new(seed);
    let shape = format!("{:?}", world.shape);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.event(Event::Started);
        for step in 0..STEPS_MAX {
            if world.outcome.is_some() {
                break;
            }
            if step == CHAOS_STEPS {
                world.chaos = false;
            }
            world.step();
        }
        world.check_end();
    }));
    if let Err(panic) = result {
        eprintln!("seed {seed}\n{shape}\n{}", world.history.join("\n"));
        eprintln!("replay with TRILITH_SIMULATION_SEED={seed}");
        std::panic::resume_unwind(panic);
    }
    Summary {
        success: world.outcome == Some(Outcome::Success),
        losses: world.losses,
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_history_ends_with_the_right_rows_or_a_fault_and_nothing_published() {
    if let Some(seed) = number("TRILITH_SIMULATION_SEED") {
        play(seed);
        return;
    }
    let seeds = number("TRILITH_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let (mut successes, mut survived) = (0, 0);
    for seed in 0..seeds {
        let summary = play(seed);
        successes += u64::from(summary.success);
        survived += u64::from(summary.success && summary.losses > 0);
    }
    eprintln!("{seeds} histories, {successes} succeeded, {survived} of them after losing processes");
    // The histories must not be all calm or all hopeless.
    assert!(
        successes > seeds / 5 && survived > seeds / 50,
        "{successes} {survived}"
    );
}
