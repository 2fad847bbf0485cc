#!/usr/bin/env bash
# What each half of masked record modeling is worth: image-only and report-only pre-training beside the demo's, and the same
# fine-tunings from them. Runs that are done are kept: the same command goes on.
#
#   trainer/experiments/restore.sh DEMO      DEMO is where `make demo` wrote (demo-output); BIN may be set
set -euo pipefail
demo=${1:?usage: restore.sh DEMO}
bin=${BIN:-$HOME/.cache/mrm/target/release}
export OMP_NUM_THREADS=1 # two at a time

arm() {
    local run=$demo/runs/$1 log=$demo/logs/$1.log
    "$bin/trainer" pretrain --data "$demo/data" --run "$run" --preset mrm-vit-tiny --split main --set model.restore="$1" >"$log" 2>&1
    "$bin/trainer" reconstruct --data "$demo/data" --weights "$run" --split main --rows 3 --word-ratio 0.4 >>"$log" 2>&1
    for ratio in 1 10 100; do
        "$bin/trainer" finetune --data "$demo/data" --run "$run-$ratio" --task chexpert5 --split main --ratio "$ratio" --init "$run" >>"$log" 2>&1
        "$bin/trainer" evaluate --data "$demo/data" --run "$run-$ratio" --split main --subset test >>"$log" 2>&1
    done
    echo "$1: done, the log is $log"
}

arm image-only &
arm report-only &
wait
"$bin/trainer" report "$demo/runs" --out "$demo/report.html"
