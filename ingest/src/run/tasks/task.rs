//! Which shards a process makes: those of a task, or all.

use std::fmt;
use std::str::FromStr;

/// Largest number of tasks.
pub const MAX_TASKS: usize = 1_000_000;

/// One of several tasks that make a dataset together, on any machines and in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Number of the task, from 0.
    pub index: usize,
    /// Number of tasks.
    pub tasks: usize,
}

impl Task {
    /// A task of a number of tasks.
    ///
    /// # Errors
    /// A sentence, where there is no such task.
    pub fn new(index: usize, tasks: usize) -> Result<Self, String> {
        match (index, tasks) {
            (_, 0) => Err("there must be at least one task".to_owned()),
            (_, MAX_TASKS..) => Err(format!("{tasks} tasks are more than {MAX_TASKS}")),
            _ if index >= tasks => {
                Err(format!("there is no task {index} of {tasks}: tasks are numbered from 0 to {}", tasks - 1))
            }
            _ => Ok(Self { index, tasks }),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.tasks)
    }
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(index, tasks)| Some((index.parse().ok()?, tasks.parse().ok()?)));
        let (index, tasks) = parts.ok_or("give I/N, such as 0/4, or auto")?;
        Self::new(index, tasks)
    }
}

/// The shards that a process makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Those whose number is [`Task::index`] modulo [`Task::tasks`].
    Task(Task),
    /// All of them.
    All,
}

impl Share {
    /// The numbers of these shards in a dataset of so many, in ascending order.
    pub fn shards(self, count: usize) -> Vec<usize> {
        match self {
            Self::Task(task) => (task.index..count).step_by(task.tasks).collect(),
            Self::All => (0..count).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_belongs_to_one_task() {
        for (tasks, count) in [(1, 7), (3, 7), (7, 7), (9, 7), (2, 0)] {
            let all = (0..tasks).flat_map(|index| Share::Task(Task { index, tasks }).shards(count));
            let mut all: Vec<usize> = all.collect();
            all.sort_unstable();
            assert_eq!(all, Share::All.shards(count), "{tasks} tasks");
        }
    }

    #[test]
    fn a_task_is_written_as_a_fraction() {
        assert_eq!("2/5".parse(), Ok(Task { index: 2, tasks: 5 }));
        assert_eq!(Task { index: 2, tasks: 5 }.to_string(), "2/5");
        for odd in ["", "1", "/", "-1/4", "1/4/2", "a/b", "0.5/2", " 1/4"] {
            assert!(odd.parse::<Task>().unwrap_err().starts_with("give I/N"), "{odd}");
        }
        assert_eq!("4/4".parse::<Task>().unwrap_err(), "there is no task 4 of 4: tasks are numbered from 0 to 3");
        assert!("0/0".parse::<Task>().is_err() && "0/1000000".parse::<Task>().is_err());
    }
}
