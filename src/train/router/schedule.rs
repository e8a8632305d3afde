//! When which layers compete.
//!
//! A schedule is a table of (layer, step), the same on every machine because it is a
//! function of a stream of random numbers. The budgeted one (CompeteSMoE v2): for
//! layers in order, every step after the warm-up competes with probability omega; if
//! the step already has as many competing layers as the budget allows, or this layer
//! competes there already, the competition moves to the nearest earlier free step,
//! else to the nearest later one, else it is given up.

use crate::error::{Error, Result};
use crate::rng::Stream;
use serde::{Deserialize, Serialize};

/// Which schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// Every layer competes with this probability, independently.
    Constant {
        /// Between 0 and 1.
        rate: f64,
    },
    /// Probability 2 / (2 + sqrt(t + 1)), t the iteration (CompeteSMoE v1); drawn once
    /// per iteration.
    InverseRoot {
        /// Optimiser steps of an iteration.
        steps_per_iteration: u64,
    },
    /// At most `budget` layers per step (CompeteSMoE v2).
    Budgeted {
        /// Probability omega that a layer competes at a step.
        rate: f64,
        /// A_max: most competing layers of a step.
        budget: usize,
        /// Share of the steps, from the first, without competition.
        warm_up: f64,
    },
}

/// Which layers compete at which steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    bits: Vec<u64>,
    words: usize,
    layers: usize,
    steps: u64,
}

impl Table {
    fn empty(layers: usize, steps: u64) -> Self {
        let words = steps.div_ceil(64) as usize;
        Table {
            bits: vec![0; words * layers],
            words,
            layers,
            steps,
        }
    }

    /// Of one step at which these layers compete.
    #[cfg(test)]
    pub(crate) fn of_one_step(competing: &[bool]) -> Self {
        let mut table = Table::empty(competing.len(), 1);
        let layers = competing
            .iter()
            .enumerate()
            .filter(|(_, competes)| **competes);
        layers.for_each(|(layer, _)| table.set(layer, 0));
        table
    }

    fn set(&mut self, layer: usize, step: u64) {
        self.bits[layer * self.words + (step / 64) as usize] |= 1 << (step % 64);
    }

    /// True if the layer competes at the step; false beyond the horizon.
    pub fn competes(&self, layer: usize, step: u64) -> bool {
        step < self.steps
            && self.bits[layer * self.words + (step / 64) as usize] >> (step % 64) & 1 == 1
    }

    /// The whole table as bytes, to be told from others: numbers of layers and of steps,
    /// then a bit per step, layer after layer.
    pub fn bytes(&self) -> Vec<u8> {
        let head = [self.layers as u64, self.steps];
        let words = head.iter().chain(&self.bits);
        words.flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Layers that compete at a step.
    pub fn competing(&self, step: u64) -> usize {
        (0..self.layers).filter(|&l| self.competes(l, step)).count()
    }

    /// Steps at which a layer competes.
    pub fn count(&self, layer: usize) -> u64 {
        let words = &self.bits[layer * self.words..][..self.words];
        words.iter().map(|w| u64::from(w.count_ones())).sum()
    }
}

/// Steps with room, found in nearly constant time from any step.
struct Room {
    load: Vec<u32>,
    budget: u32,
}

impl Room {
    fn is_free(&self, table: &Table, layer: usize, step: u64) -> bool {
        self.load[step as usize] < self.budget && !table.competes(layer, step)
    }

    /// The step itself, else the nearest earlier one from `first`, else the nearest
    /// later one.
    fn find(&self, table: &Table, layer: usize, first: u64, step: u64) -> Option<u64> {
        let earlier = (first..=step).rev();
        let mut candidates = earlier.chain(step + 1..table.steps);
        candidates.find(|&at| self.is_free(table, layer, at))
    }
}

impl Schedule {
    /// The table of a training run.
    ///
    /// # Errors
    /// [`Error::Value`] for a rate outside 0 to 1, an iteration of no steps, a warm-up
    /// outside 0 to 1, or a budget below rate times layers: the last layers would
    /// never compete.
    pub fn table(&self, stream: &Stream, layers: usize, steps: u64) -> Result<Table> {
        self.check(layers)?;
        let mut table = Table::empty(layers, steps);
        let uniform = |layer: usize, step: u64| stream.uniform_pair(step, layer as u64)[0];
        match *self {
            Schedule::Constant { rate } => {
                for (layer, step) in pairs(layers, 0, steps) {
                    if uniform(layer, step) < rate {
                        table.set(layer, step);
                    }
                }
            }
            Schedule::InverseRoot {
                steps_per_iteration,
            } => {
                for (layer, step) in pairs(layers, 0, steps) {
                    let iteration = step / steps_per_iteration;
                    let rate = 2.0 / (2.0 + (iteration as f64 + 1.0).sqrt());
                    if uniform(layer, iteration) < rate {
                        table.set(layer, step);
                    }
                }
            }
            Schedule::Budgeted {
                rate,
                budget,
                warm_up,
            } => {
                let first = (warm_up * steps as f64).floor() as u64;
                let mut room = Room {
                    load: vec![0; steps as usize],
                    budget: budget as u32,
                };
                for (layer, step) in pairs(layers, first, steps) {
                    if uniform(layer, step) < rate
                        && let Some(at) = room.find(&table, layer, first, step)
                    {
                        table.set(layer, at);
                        room.load[at as usize] += 1;
                    }
                }
            }
        }
        Ok(table)
    }

    /// Checks all values.
    ///
    /// # Errors
    /// As [`Schedule::table`].
    pub fn check(&self, layers: usize) -> Result<()> {
        let within = |key: &str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(Error::value(key, "must be between 0 and 1")),
        };
        match *self {
            Schedule::Constant { rate } => within("competition.schedule.rate", rate),
            Schedule::InverseRoot {
                steps_per_iteration,
            } => match steps_per_iteration {
                0 => Err(Error::value(
                    "competition.schedule.steps_per_iteration",
                    "must be positive",
                )),
                _ => Ok(()),
            },
            Schedule::Budgeted {
                rate,
                budget,
                warm_up,
            } => {
                within("competition.schedule.rate", rate)?;
                within("competition.schedule.warm_up", warm_up)?;
                let demand = rate * layers as f64;
                if demand > budget as f64 {
                    let message = format!(
                        "must be at least rate times layers, {demand}: the last layers would never compete"
                    );
                    return Err(Error::value("competition.schedule.budget", message));
                }
                Ok(())
            }
        }
    }
}

/// Layers in order, within a layer steps in order.
fn pairs(layers: usize, first: u64, steps: u64) -> impl Iterator<Item = (usize, u64)> {
    (0..layers).flat_map(move |layer| (first..steps).map(move |step| (layer, step)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn stream(seed: u64) -> Stream {
        Stream::named(seed, "schedule", 0, Purpose::Data)
    }

    const PAPER: Schedule = Schedule::Budgeted {
        rate: 0.07,
        budget: 3,
        warm_up: 0.0,
    };

    #[test]
    fn the_papers_schedule_keeps_its_rate_in_every_layer_and_its_budget_at_every_step() {
        let (layers, steps) = (16, 20_000);
        let table = PAPER.table(&stream(1), layers, steps).unwrap();
        assert!((0..steps).all(|step| table.competing(step) <= 3));
        for layer in 0..layers {
            // Moving keeps the number of draws: binomial, five standard errors.
            let error = (0.07 * 0.93 / steps as f64).sqrt();
            let rate = table.count(layer) as f64 / steps as f64;
            assert!((rate - 0.07).abs() < 5.0 * error, "layer {layer}: {rate}");
        }
        assert!((0..steps).any(|step| table.competing(step) == 3));
    }

    #[test]
    fn a_schedule_is_a_function_of_its_stream() {
        let table = |seed| PAPER.table(&stream(seed), 4, 500).unwrap();
        assert_eq!(table(1), table(1));
        assert_ne!(table(1), table(2));
    }

    #[test]
    fn no_layer_competes_during_the_warm_up_or_beyond_the_horizon() {
        let schedule = Schedule::Budgeted {
            rate: 1.0,
            budget: 2,
            warm_up: 0.25,
        };
        let table = schedule.table(&stream(1), 2, 100).unwrap();
        assert!((0..25).all(|step| table.competing(step) == 0));
        assert!((25..100).all(|step| table.competing(step) == 2));
        assert_eq!(table.competing(100), 0);
    }

    #[test]
    fn a_competition_without_room_moves_to_the_nearest_earlier_step_then_to_a_later_one() {
        let mut table = Table::empty(1, 6);
        let mut room = Room {
            load: vec![1, 0, 1, 1, 0, 0],
            budget: 1,
        };
        assert_eq!(room.find(&table, 0, 0, 3), Some(1));
        room.load[1] = 1;
        assert_eq!(room.find(&table, 0, 0, 3), Some(4));
        table.set(0, 4);
        assert_eq!(
            room.find(&table, 0, 0, 3),
            Some(5),
            "once per layer and step"
        );
        room.load[5] = 1;
        assert_eq!(room.find(&table, 0, 0, 3), None);
    }

    #[test]
    fn a_budget_that_starves_the_last_layers_is_refused() {
        let schedule = Schedule::Budgeted {
            rate: 0.2,
            budget: 3,
            warm_up: 0.0,
        };
        let message = schedule.table(&stream(1), 24, 100).unwrap_err().to_string();
        assert!(
            message.starts_with("competition.schedule.budget: must be at least rate times layers")
        );
        assert!(schedule.table(&stream(1), 15, 100).is_ok());
    }

    #[test]
    fn the_first_versions_rate_falls_with_the_root_and_holds_within_an_iteration() {
        let schedule = Schedule::InverseRoot {
            steps_per_iteration: 10,
        };
        let (layers, iterations) = (400, 60);
        let table = schedule.table(&stream(1), layers, 10 * iterations).unwrap();
        let rate = |iteration: u64| table.competing(10 * iteration) as f64 / layers as f64;
        for iteration in 0..iterations {
            let at = |step| table.competing(10 * iteration + step);
            assert!((1..10).all(|step| at(step) == at(0)));
            let expected = 2.0 / (2.0 + (iteration as f64 + 1.0).sqrt());
            let error = (expected * (1.0 - expected) / layers as f64).sqrt();
            assert!((rate(iteration) - expected).abs() < 5.0 * error);
        }
    }

    #[test]
    fn a_constant_rate_is_the_share_of_competing_steps() {
        let schedule = Schedule::Constant { rate: 0.3 };
        let table = schedule.table(&stream(1), 2, 10_000).unwrap();
        for layer in 0..2 {
            assert!((table.count(layer) as f64 / 1e4 - 0.3).abs() < 0.023);
        }
        assert!(
            Schedule::Constant { rate: 1.5 }
                .table(&stream(1), 2, 10)
                .is_err()
        );
    }

    #[test]
    fn a_layer_competes_at_the_same_steps_however_many_layers_follow_it() {
        for schedule in [
            PAPER,
            Schedule::Constant { rate: 0.1 },
            Schedule::InverseRoot {
                steps_per_iteration: 7,
            },
        ] {
            let [few, many] = [4, 16].map(|l| schedule.table(&stream(1), l, 500).unwrap());
            for (layer, step) in pairs(4, 0, 500) {
                assert_eq!(few.competes(layer, step), many.competes(layer, step));
            }
        }
    }

    #[test]
    fn the_bytes_tell_tables_of_other_seeds_lengths_and_layers_apart() {
        let bytes = |seed, layers, steps| {
            let table = PAPER.table(&stream(seed), layers, steps).unwrap();
            table.bytes()
        };
        let base = bytes(1, 4, 500);
        assert_eq!(base, bytes(1, 4, 500));
        for other in [bytes(2, 4, 500), bytes(1, 5, 500), bytes(1, 4, 501)] {
            assert_ne!(base, other);
        }
    }
}
