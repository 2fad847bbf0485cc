//! Faults at every step: each call that reads or changes files fails once, or with all after it; the power is lost after each.
//! What is left is the old state or the new one, whole, and the same command ends with the bytes of an undisturbed run.

mod every_call;
mod power_cut;
mod power_loss;
mod scenarios;
