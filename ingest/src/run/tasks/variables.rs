//! The task that a launcher assigns to a process by environment variables.

use crate::run::tasks::task::Task;

/// The task that the environment variables of Slurm, Kubernetes or a launcher of ranks name.
///
/// | variables | set by |
/// | --- | --- |
/// | `SLURM_ARRAY_TASK_ID`, `_COUNT`, `_MIN`, `_MAX`, `_STEP` | an array of Slurm; with several processes of `srun` in an element, these are counted, too |
/// | `RANK`, `WORLD_SIZE` | `torchrun`, Kubeflow and others |
/// | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS` | `srun` |
///
/// Kubernetes sets `JOB_COMPLETION_INDEX` and no number of tasks, so that this is an error with a remedy.
///
/// # Errors
/// A sentence, where no variables are set, a part of them is missing, or they contradict each other.
pub fn task(variable: impl Fn(&str) -> Option<String>) -> Result<Task, String> {
    let text = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let number = |name: &str| -> Result<Option<usize>, String> {
        let parse =
            |value: String| value.trim().parse().map_err(|_| format!("{name} is `{value}`, which is no number"));
        text(name).map(parse).transpose()
    };
    let needed = |name: &str, beside: &str| -> Result<usize, String> {
        number(name)?.ok_or_else(|| format!("{beside} is set, but {name} is not; give --task I/N"))
    };
    let named = |error: String| format!("{error} (from environment variables); give --task I/N");
    let step = match (number("SLURM_PROCID")?, number("SLURM_STEP_NUM_TASKS")?) {
        (Some(rank), Some(ranks)) => Some((rank, ranks)),
        _ => None,
    };
    if let Some(id) = number("SLURM_ARRAY_TASK_ID")? {
        let beside = "SLURM_ARRAY_TASK_ID";
        let (count, first) = (needed("SLURM_ARRAY_TASK_COUNT", beside)?, needed("SLURM_ARRAY_TASK_MIN", beside)?);
        let last = needed("SLURM_ARRAY_TASK_MAX", beside)?;
        let by = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
        let is_even = last >= first && (last - first) / by + 1 == count && (last - first) % by == 0;
        if !is_even || id < first || (id - first) % by != 0 {
            return Err(format!(
                "the array has gaps ({count} elements from {first} to {last}), so its elements have no numbers as tasks; \
                 use --array=0-{}, or give --task I/N",
                count.saturating_sub(1)
            ));
        }
        let index = (id - first) / by;
        let (rank, ranks) = step.unwrap_or((0, 1));
        return Task::new(index * ranks + rank, count * ranks).map_err(named);
    }
    if text("JOB_COMPLETION_INDEX").is_some() {
        return Err("JOB_COMPLETION_INDEX is set, but Kubernetes does not set the number of tasks; give --task \
                    $(JOB_COMPLETION_INDEX)/N"
            .to_owned());
    }
    match (number("RANK")?, number("WORLD_SIZE")?) {
        (Some(rank), Some(ranks)) => return Task::new(rank, ranks).map_err(named),
        (Some(_), None) => return needed("WORLD_SIZE", "RANK").and(Err(String::new())),
        (None, Some(_)) => return needed("RANK", "WORLD_SIZE").and(Err(String::new())),
        (None, None) => {}
    }
    if let Some((rank, ranks)) = step {
        return Task::new(rank, ranks).map_err(named);
    }
    Err("no environment variables name a task (SLURM_ARRAY_TASK_ID, RANK, or those of srun); give --task I/N"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<String, String> {
        let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        task(get).map(|task| task.to_string())
    }

    fn array(id: &str, count: &str, range: (&str, &str), step: &str) -> Vec<(&'static str, String)> {
        let all = [("ID", id), ("COUNT", count), ("MIN", range.0), ("MAX", range.1), ("STEP", step)];
        let name = |part: &str| -> &'static str {
            match part {
                "ID" => "SLURM_ARRAY_TASK_ID",
                "COUNT" => "SLURM_ARRAY_TASK_COUNT",
                "MIN" => "SLURM_ARRAY_TASK_MIN",
                "MAX" => "SLURM_ARRAY_TASK_MAX",
                _ => "SLURM_ARRAY_TASK_STEP",
            }
        };
        all.into_iter().map(|(part, value)| (name(part), value.to_owned())).collect()
    }

    fn of_array(variables: &[(&'static str, String)], more: &[(&str, &str)]) -> Result<String, String> {
        let own = variables.iter().map(|(name, value)| (*name, value.as_str()));
        of(&own.chain(more.iter().copied()).collect::<Vec<_>>())
    }

    #[test]
    fn an_array_is_counted_from_its_first_element() {
        assert_eq!(of_array(&array("2", "4", ("0", "3"), "1"), &[]), Ok("2/4".to_owned()));
        assert_eq!(of_array(&array("7", "4", ("5", "8"), "1"), &[]), Ok("2/4".to_owned()));
        assert_eq!(of_array(&array("5", "3", ("1", "9"), "4"), &[]), Ok("1/3".to_owned()));
        // The batch script of an array has SLURM_PROCID, but no step; srun has both.
        assert_eq!(of_array(&array("1", "2", ("0", "1"), "1"), &[("SLURM_PROCID", "0")]), Ok("1/2".to_owned()));
        let srun = [("SLURM_PROCID", "2"), ("SLURM_STEP_NUM_TASKS", "3")];
        assert_eq!(of_array(&array("1", "2", ("0", "1"), "1"), &srun), Ok("5/6".to_owned()));
        for gaps in
            [array("5", "3", ("0", "7"), "1"), array("1", "2", ("0", "1"), "2"), array("9", "2", ("0", "1"), "1")]
        {
            let message = of_array(&gaps, &[]).unwrap_err();
            assert!(message.contains("--array=0-") || message.contains("no task"), "{message}");
        }
        let message = of(&[("SLURM_ARRAY_TASK_ID", "1")]).unwrap_err();
        assert_eq!(message, "SLURM_ARRAY_TASK_ID is set, but SLURM_ARRAY_TASK_COUNT is not; give --task I/N");
    }

    #[test]
    fn ranks_need_their_number() {
        assert_eq!(of(&[("RANK", "1"), ("WORLD_SIZE", "4")]), Ok("1/4".to_owned()));
        assert_eq!(of(&[("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2")]), Ok("1/2".to_owned()));
        for (variables, words) in [
            (vec![("RANK", "1")], "RANK is set, but WORLD_SIZE is not"),
            (vec![("WORLD_SIZE", "2")], "WORLD_SIZE is set, but RANK is not"),
            (vec![("RANK", "4"), ("WORLD_SIZE", "4")], "there is no task 4 of 4"),
            (vec![("RANK", "one"), ("WORLD_SIZE", "4")], "RANK is `one`, which is no number"),
            (vec![("JOB_COMPLETION_INDEX", "1")], "give --task $(JOB_COMPLETION_INDEX)/N"),
            (vec![("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")], "no environment variables name a task"),
            (vec![("RANK", " "), ("WORLD_SIZE", "")], "no environment variables name a task"),
        ] {
            let message = of(&variables).unwrap_err();
            assert!(message.contains(words), "{variables:?}: {message}");
        }
    }
}
