//! `ingest join`: tables about records that are stored already, and all that reads them.

mod faults;
mod labels;
mod object_store;
mod places;
mod shared;
mod splits;
mod texts;
