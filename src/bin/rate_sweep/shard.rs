//! Which part of a study this process runs: `--shard`, or what a scheduler says.

use smoe_lab::error::{Error, Result};
use smoe_lab::sim::Shard;

/// Says that all replicates are wanted, whatever a scheduler says.
const NONE: &str = "none";
/// Number of pods of an indexed Kubernetes job: Kubernetes gives the index only,
/// so the manifest sets this beside it.
const POD_COUNT: &str = "SMOE_SHARDS";
const POD_INDEX: &str = "JOB_COMPLETION_INDEX";
const TASK: &str = "SLURM_ARRAY_TASK_ID";

/// The part to run: that of `flag`, else the scheduler's, which is then said on
/// standard error; `None` for all of the study.
pub fn chosen(flag: Option<&str>) -> Result<Option<Shard>> {
    match flag {
        Some(NONE) => Ok(None),
        Some(text) => parse(text).map(Some),
        None => {
            let found = scheduled(|name| std::env::var(name).ok())?;
            if let Some((shard, source)) = found {
                eprintln!("shard {shard}, from {source}; --shard none runs all");
            }
            Ok(found.map(|(shard, _)| shard))
        }
    }
}

fn parse(text: &str) -> Result<Shard> {
    text.split_once('/')
        .and_then(|(index, count)| Shard::new(index.parse().ok()?, count.parse().ok()?).ok())
        .ok_or_else(|| {
            let message = format!("expected I/M with 1 <= I <= M, or {NONE}; got `{text}`");
            Error::value("--shard", message)
        })
}

/// The part that a scheduler's variables name, and the scheduler.
fn scheduled(variable: impl Fn(&str) -> Option<String>) -> Result<Option<(Shard, &'static str)>> {
    match (variable(TASK), variable(POD_INDEX)) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Error::value(
            TASK,
            format!("is set, and {POD_INDEX} too: say --shard I/M or --shard {NONE}"),
        )),
        (Some(_), None) => Ok(Some((slurm_task(&variable)?, "Slurm's job array"))),
        (None, Some(_)) => Ok(Some((pod(&variable)?, "Kubernetes' indexed job"))),
    }
}

/// Task MIN, MIN + STEP, ..., MAX of an array is part 1, 2, ..., COUNT.
fn slurm_task(variable: &impl Fn(&str) -> Option<String>) -> Result<Shard> {
    let [task, first, last, count] = [
        TASK,
        "SLURM_ARRAY_TASK_MIN",
        "SLURM_ARRAY_TASK_MAX",
        "SLURM_ARRAY_TASK_COUNT",
    ]
    .map(|name| number(variable, name));
    let (task, first, last, count) = (task?, first?, last?, count?);
    let step = match variable("SLURM_ARRAY_TASK_STEP") {
        Some(_) => number(variable, "SLURM_ARRAY_TASK_STEP")?.max(1),
        None => 1,
    };
    let is_regular =
        u64::from(first) + u64::from(step) * u64::from(count.max(1) - 1) == u64::from(last);
    let place = task.checked_sub(first).filter(|place| place % step == 0);
    place
        .filter(|_| is_regular)
        .and_then(|place| Shard::new(place / step + 1, count).ok())
        .ok_or_else(|| {
            let message = format!(
                "task {task} of {count} from {first} to {last}, step {step}: tasks must be \
                 equally spaced, or each be told its part by --shard I/M"
            );
            Error::value(TASK, message)
        })
}

/// Pod 0, 1, ..., M - 1 is part 1, 2, ..., M.
fn pod(variable: &impl Fn(&str) -> Option<String>) -> Result<Shard> {
    if variable(POD_COUNT).is_none() {
        let message = format!(
            "is set, but not {POD_COUNT}, the number of pods: set it in the manifest, \
             or say --shard I/M or --shard {NONE}"
        );
        return Err(Error::value(POD_INDEX, message));
    }
    let (index, count) = (number(variable, POD_INDEX)?, number(variable, POD_COUNT)?);
    Shard::new(index.saturating_add(1), count).map_err(|_| {
        let message = format!("is {index}, but {POD_COUNT} is {count}: pods count from 0");
        Error::value(POD_INDEX, message)
    })
}

fn number(variable: &impl Fn(&str) -> Option<String>, name: &str) -> Result<u32> {
    let text = variable(name).unwrap_or_default();
    text.parse()
        .map_err(|_| Error::value(name, format!("expected a whole number, got `{text}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(pairs: &[(&str, &str)]) -> Result<Option<Shard>> {
        let variable = |name: &str| {
            let pair = pairs.iter().find(|(key, _)| *key == name);
            pair.map(|(_, value)| value.to_string())
        };
        Ok(scheduled(variable)?.map(|(shard, _)| shard))
    }

    fn array(task: &str, first: &str, last: &str, count: &str, step: &str) -> Result<Shard> {
        let found = part(&[
            ("SLURM_ARRAY_TASK_ID", task),
            ("SLURM_ARRAY_TASK_MIN", first),
            ("SLURM_ARRAY_TASK_MAX", last),
            ("SLURM_ARRAY_TASK_COUNT", count),
            ("SLURM_ARRAY_TASK_STEP", step),
        ]);
        found.map(|shard| shard.expect("a shard"))
    }

    #[test]
    fn an_array_may_count_from_any_number_in_equal_steps() {
        let expected = Shard::new(2, 4).unwrap();
        assert_eq!(array("1", "0", "3", "4", "1").unwrap(), expected);
        assert_eq!(array("2", "1", "4", "4", "1").unwrap(), expected);
        assert_eq!(array("7", "5", "11", "4", "2").unwrap(), expected);
        // --array=1,3,7 and one task sent again are no equal parts of four.
        assert!(array("3", "1", "7", "3", "1").is_err());
        assert_eq!(
            array("3", "3", "3", "1", "1").unwrap(),
            Shard::new(1, 1).unwrap()
        );
    }

    #[test]
    fn a_pod_needs_the_number_of_pods() {
        let index = ("JOB_COMPLETION_INDEX", "3");
        let shard = part(&[index, ("SMOE_SHARDS", "4")]).unwrap();
        assert_eq!(shard, Some(Shard::new(4, 4).unwrap()));
        for wrong in ["3", "0", "", "four", "-4"] {
            assert!(part(&[index, ("SMOE_SHARDS", wrong)]).is_err(), "{wrong}");
        }
        assert!(part(&[index]).is_err());
        assert!(part(&[index, ("SLURM_ARRAY_TASK_ID", "1")]).is_err());
        assert_eq!(part(&[("SMOE_SHARDS", "4")]).unwrap(), None);
    }
}
