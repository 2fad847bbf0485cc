//! What limits loading or training, and what helps.

use serde::Serialize;

use super::disk::Disk;
use super::stages::{NAMES, Stages};
use super::trainer_log::Training;

/// Share of a step above which waiting for batches, or sending them, limits a run.
const NOTICEABLE: f64 = 0.05;

/// What limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Reading images that are not in the page cache.
    Storage,
    /// Copying images out of the page cache.
    Read,
    /// Decoding.
    Decode,
    /// The transform.
    Transform,
    /// The rest of a batch.
    Assembly,
    /// Sending batches to the device.
    Transfer,
    /// The computation of the steps.
    Device,
}

/// What limits, and what to do.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What limits.
    pub limit: Limit,
    /// Images a second that it allows.
    pub images_per_second: f64,
    /// The same in words, with what helps.
    pub text: String,
}

impl Finding {
    /// What limits the run, or the loader where there is no run.
    pub(super) fn of(disk: &Disk, stages: &Stages, loader: f64, training: Option<&Training>) -> Self {
        let (slowest, share) = slowest(stages);
        let storage = disk.without_page_cache.then_some(disk.random_images_per_second).filter(|&rate| rate < loader);
        let (limit, rate) = storage.map_or((slowest, loader), |rate| (Limit::Storage, rate));
        let of_loader = || Self { limit, images_per_second: rate, text: words(limit, rate, share, loader) };
        let Some(training) = training else { return of_loader() };
        let device = training.device_images_per_second();
        if training.wait_share() > NOTICEABLE {
            let mut finding = of_loader();
            finding.text = format!(
                "the loader: training waits {:.0}% of its time for batches and could reach {device:.0} images/s. {}",
                training.wait_share() * 100.0,
                finding.text
            );
            return finding;
        }
        let sending = training.transfer_seconds / training.step_seconds;
        let spare = loader / device;
        if sending > NOTICEABLE {
            let text = format!(
                "sending batches to the device takes {:.0}% of a step: smaller images, or fewer loader threads, which share \
                 the processor with it; the loader could give {spare:.1} times as many images",
                sending * 100.0
            );
            return Self { limit: Limit::Transfer, images_per_second: training.images_per_second(), text };
        }
        let warning = storage
            .filter(|&rate| rate < device)
            .map(|rate| format!("; until the images are in the page cache, storage limits it to {rate:.0} images/s"));
        let text = format!(
            "the computation of the steps, {device:.0} images/s; the loader could give {spare:.1} times as many{}",
            warning.unwrap_or_default()
        );
        Self { limit: Limit::Device, images_per_second: device, text }
    }
}

/// The slowest stage, and its share of the time of an image.
fn slowest(stages: &Stages) -> (Limit, f64) {
    let (micros, limits) = (stages.micros(), [Limit::Read, Limit::Decode, Limit::Transform, Limit::Assembly]);
    let all = micros.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let slowest = limits.into_iter().zip(micros).max_by(|a, b| a.1.total_cmp(&b.1));
    slowest.map_or((Limit::Transform, 0.0), |(limit, micros)| (limit, micros / all))
}

fn words(limit: Limit, rate: f64, share: f64, loader: f64) -> String {
    let stage = |name: &str, help: &str| {
        format!("{name} takes {:.0}% of the loader's time, which allows {rate:.0} images/s: {help}", share * 100.0)
    };
    match limit {
        Limit::Storage => format!(
            "storage, until the images are in the page cache: {rate:.0} images/s of {loader:.0}; ingest with --compression \
             zstd or --image-encoding png, or copy the dataset to a faster disk"
        ),
        Limit::Read => stage(NAMES[0], "smaller images (ingest --size), more threads"),
        Limit::Decode => stage(NAMES[1], "ingest with --image-encoding raw, more threads"),
        Limit::Transform => stage(NAMES[2], "fewer augmentations, a smaller output, more threads"),
        Limit::Assembly => stage(NAMES[3], "shorter reports, more threads"),
        Limit::Transfer | Limit::Device => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: Stages = Stages { read: 20.0, decode: 10.0, transform: 150.0, assembly: 20.0 };

    fn disk(random_images_per_second: f64) -> Disk {
        Disk {
            without_page_cache: true,
            sequential_megabytes_per_second: 1000.0,
            random_images_per_second,
            page_bytes: 262_144.0,
        }
    }

    fn training(wait: f64, transfer: f64) -> Training {
        Training {
            step_records: 64.0,
            step_seconds: 0.1,
            loader_wait_seconds: wait,
            loader_ready: 1.0,
            transfer_seconds: transfer,
        }
    }

    #[test]
    fn each_limit_is_found() {
        let find = |disk: Disk, stages: &Stages, run: Option<Training>| {
            let finding = Finding::of(&disk, stages, 5_000.0, run.as_ref());
            (finding.limit, finding.images_per_second, finding.text)
        };
        let (limit, rate, text) = find(disk(10_000.0), &STAGES, None);
        assert_eq!((limit, rate), (Limit::Transform, 5_000.0));
        assert!(text.contains("75%"), "{text}");
        assert_eq!(find(disk(10_000.0), &Stages { decode: 900.0, ..STAGES }, None).0, Limit::Decode);
        let (limit, rate, text) = find(disk(300.0), &STAGES, None);
        assert_eq!((limit, rate), (Limit::Storage, 300.0));
        assert!(text.contains("zstd"), "{text}");
        // A run that waits half of its time: the loader, by its slowest part.
        let (limit, _, text) = find(disk(10_000.0), &STAGES, Some(training(0.05, 0.0)));
        assert_eq!(limit, Limit::Transform);
        assert!(text.contains("waits 50%") && text.contains("1280 images/s"), "{text}");
        assert_eq!(find(disk(300.0), &STAGES, Some(training(0.05, 0.0))).0, Limit::Storage);
        // One that does not wait.
        let (limit, rate, text) = find(disk(10_000.0), &STAGES, Some(training(0.001, 0.001)));
        assert_eq!(limit, Limit::Device);
        assert!((rate - 64.0 / 0.099).abs() < 1e-6 && text.contains("7.7 times"), "{text}");
        assert_eq!(find(disk(10_000.0), &STAGES, Some(training(0.001, 0.02))).0, Limit::Transfer);
        let (_, _, text) = find(disk(300.0), &STAGES, Some(training(0.001, 0.0)));
        assert!(text.contains("until the images are in the page cache"), "{text}");
    }
}
