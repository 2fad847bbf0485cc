#!/usr/bin/env bash
# Ablations of masked record modeling: image-only and report-only pre-training to compare with the demo's, and the same
# fine-tunings from them. Finished runs are kept, so the same command continues after a stop.
#
#   trainer/experiments/ablations.sh DEMO    DEMO is the output folder of `make demo` (demo-output); BIN may be set
set -euo pipefail
demo=${1:?usage: ablations.sh DEMO}
bin=${BIN:-$HOME/.cache/mrm/target/release}
export OMP_NUM_THREADS=1 # two runs at a time

arm() {
    local run=$demo/runs/$1 log=$demo/logs/$1.log
    "$bin/trainer" pretrain --data "$demo/data" --run "$run" --preset mrm-vit-tiny --split main --set model.reconstruct="$1" >"$log" 2>&1
    "$bin/trainer" reconstruct --data "$demo/data" --weights "$run" --split main --rows 3 --report-mask-ratio 0.4 >>"$log" 2>&1
    for ratio in 1 10 100; do
        "$bin/trainer" finetune --data "$demo/data" --run "$run-$ratio" --task chexpert5 --split main --ratio "$ratio" --init "$run" \
            --steps 1500 --patience 8 --set optimizer.evaluate_every=50 >>"$log" 2>&1
        "$bin/trainer" evaluate --data "$demo/data" --run "$run-$ratio" --split main --subset test >>"$log" 2>&1
    done
    echo "$1: done, the log is $log"
}

arm image-only &
arm report-only &
wait
"$bin/trainer" report "$demo/runs" --out "$demo/report.html"
