//! Self-distillation in several processes: centers, Sinkhorn–Knopp and frozen prototypes are those of one process.

use helpers::{args, folder, ok};
use training::dataset;

use crate::launch::ranks;
use crate::numbers::{assert_same, curve};

#[test]
fn teacher_and_student_are_those_of_one_process() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    for centering in ["center", "sinkhorn"] {
        let arguments = |run: &str| {
            let run = temporary.path().join(format!("{run}-{centering}"));
            let mut all = args!["pretrain", "--objective", "dino", "--data", &data, "--run", &run].to_vec();
            all.extend(args!["--preset", "mrm-vit-tiny", "--split", "main", "--device", "cpu"]);
            all.extend(args!["--steps", "8", "--batch-size", "8"]);
            let centering = format!("teacher.centering={centering}");
            for setting in [
                "model.vit.image_size=32",
                "model.vit.embed_dim=32",
                "model.head={hidden_dim=32, bottleneck=16, prototypes=64}",
                "data.local_size=16",
                "data.local_crops=2",
                // KoLeo looks for neighbors in the share of a process.
                "loss.koleo_weight=0.0",
                // The prototypes have no gradient in the first steps.
                "optimizer.freeze_epochs=50.0",
                "optimizer.accumulation=2",
                "run.log_every=1",
                &centering,
            ] {
                all.extend(args!["--set", setting]);
            }
            (run, all)
        };
        let (one, alone) = arguments("one");
        ok("trainer", alone);
        let (two, shared) = arguments("two");
        let outputs = ranks(&[shared.clone(), shared]);
        assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
        assert_eq!(curve(&one).len(), 8);
        assert_same(&two, &curve(&one));
    }
}
