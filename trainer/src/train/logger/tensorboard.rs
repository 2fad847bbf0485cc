//! A run's metrics in TensorBoard's format: one event file of scalars.
//!
//! The file is a sequence of records: length, checksum of the length, bytes, checksum of the bytes (TensorFlow's
//! `record_writer.h`). The bytes are a protocol buffer `Event`, of which three fields are used.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use dataset::store::files;
use serde_json::Value;

use super::{STEP, TIME};

/// Name of the file in a run; a fixed one, so that a resumed run continues in the same file.
pub(super) const NAME: &str = "events.out.tfevents.mrm";

/// An event file that is being written.
pub(super) struct Events {
    file: File,
}

impl Events {
    /// Writes the file from the lines so far and opens it for more.
    pub(super) fn create(run: &Path, lines: &[Value]) -> Result<Self> {
        let path = run.join(NAME);
        let time = lines.first().map_or(0.0, |line| line[TIME].as_f64().unwrap_or(0.0));
        let mut bytes = record(&[double(1, time), text(3, b"brain.Event:2")].concat());
        lines.iter().for_each(|line| bytes.extend(record(&event(line))));
        files::write_atomic(&path, &bytes)?;
        Ok(Self { file: OpenOptions::new().append(true).open(&path)? })
    }

    /// Appends the numbers of a line.
    pub(super) fn write(&mut self, line: &Value) -> Result<()> {
        Ok(self.file.write_all(&record(&event(line)))?)
    }
}

/// `Event { wall_time: 1, step: 2, summary: 5 { value: 1 { tag: 1, simple_value: 2 } … } }`.
fn event(line: &Value) -> Vec<u8> {
    let mut summary = Vec::new();
    for (name, value) in line.as_object().into_iter().flatten() {
        if let (Some(value), false) = (value.as_f64(), matches!(name.as_str(), STEP | TIME)) {
            summary.extend(text(1, &[text(1, name.as_bytes()), float(2, value as f32)].concat()));
        }
    }
    let step = line[STEP].as_u64().unwrap_or(0);
    [double(1, line[TIME].as_f64().unwrap_or(0.0)), whole(2, step), text(5, &summary)].concat()
}

fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let check = |bytes: &[u8]| masked_checksum(bytes).to_le_bytes();
    [&length[..], &check(&length), bytes, &check(bytes)].concat()
}

/// The CRC-32C of bytes, rotated and offset as TensorFlow does.
fn masked_checksum(bytes: &[u8]) -> u32 {
    let crc = !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 })
    });
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7F {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn key(field: u64, wire_type: u64) -> Vec<u8> {
    varint(field << 3 | wire_type)
}

fn whole(field: u64, value: u64) -> Vec<u8> {
    [key(field, 0), varint(value)].concat()
}

fn double(field: u64, value: f64) -> Vec<u8> {
    [key(field, 1), value.to_le_bytes().to_vec()].concat()
}

fn text(field: u64, bytes: &[u8]) -> Vec<u8> {
    [key(field, 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn float(field: u64, value: f32) -> Vec<u8> {
    [key(field, 5), value.to_le_bytes().to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // CRC-32C of "123456789" is E3069283.
        let unmasked = masked_checksum(b"123456789").wrapping_sub(0xA282_EAD8).rotate_left(15);
        assert_eq!(unmasked, 0xE306_9283);
    }

    #[test]
    fn an_event_holds_step_and_numbers() {
        let line = serde_json::json!({"step": 300, "time": 2.0, "loss": 0.5, "name": "left out"});
        let expected = [
            &[0x09][..],
            &2.0_f64.to_le_bytes(),
            &[0x10, 0xAC, 0x02],
            &[0x2A, 13, 0x0A, 11, 0x0A, 4],
            b"loss",
            &[0x15],
            &0.5_f32.to_le_bytes(),
        ]
        .concat();
        assert_eq!(event(&line), expected);
    }
}
