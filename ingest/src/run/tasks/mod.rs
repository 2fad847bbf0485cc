//! A dataset that several processes make together, on any machines that see the raw data and the output.
//!
//! Task I of N makes the shards whose number is I modulo N. The first task makes the plan and publishes it among the notes;
//! after that no task waits for another one. Any task can be killed, repeated, or run twice at a time: a shard is written
//! elsewhere and gets its name when it is whole, and equal records give equal bytes. Whoever finds all shards writes the
//! manifest.
//!
//! | note in `.ingest/` | content |
//! | --- | --- |
//! | `plan.json`, `plan-….jsonl.gz`, `tokenizer.json`, `.inputs` | the plan |
//! | `claim.json` | who makes it |
//! | `part-00000.json`, `.inputs` | a finished shard: what the manifest needs; the stamps of its inputs |
//! | `task-00000.json` | progress of a task, written every few seconds |
//! | `work-…/` | files that a process has not finished (for an object store they are in the staging folder) |
//! | `store-lock.json` | in an object store: held by a run alone |
//! | `lock` | held by tasks together, or by a run alone |

pub(crate) mod claim;
pub(crate) mod complete;
pub(crate) mod published_plan;
pub(crate) mod session;
pub mod status;
pub mod task;
pub(crate) mod task_note;
pub mod variables;
pub(crate) mod work;
pub(crate) mod work_folder;

pub use complete::finish;
pub use status::{Status, TaskStatus, status};
pub use task::{Share, Task};
pub(crate) use work::continue_alone;
pub use work::{TaskSummary, run_task};
