//! Faults at every step: each call that reads or changes files fails once, or with all after it; so do large allocations; the power
//! is lost after each call. What is left is the old state or the new one, whole, and the same command ends with the bytes of an
//! undisturbed run.

mod allocations;
mod every_call;
mod power_cut;
mod power_loss;
mod scenarios;
