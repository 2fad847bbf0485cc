#!/usr/bin/env bash
# The whole path on synthetic data: raw directory → shards → split → pre-training → fine-tuning at 1, 10 and 100% of the
# labels from pretrained weights and from random initialization → one table and one HTML page.
# Usage: demo.sh OUT, with BIN set. FINETUNE_STEPS=1500 gives random initialization the steps to converge (a quarter of an hour).
set -euo pipefail
out=${1:?usage: demo.sh OUT}
bin=${BIN:?BIN names the folder of the binaries}
mkdir -p "$out/logs"
started=$SECONDS
# Five findings that are visible at 64 pixels.
task=chexpert5
# Most steps of a fine-tuning: few enough for ten minutes in all on two cores.
steps=${FINETUNE_STEPS:-500}

# Prints a step's line again: in place in a terminal, else as a further line.
line() {
    if [ -t 1 ]; then printf '\r%-28s%s\033[K' "$1" "$2"; else printf '%-28s%s\n' "$1" "$2"; fi
}

# Runs a step with its output in a log, and shows the log's last line while it runs (every second in a terminal, every half
# minute without one). On failure, shows the end of the log.
step() {
    local name=$1 began=$SECONDS shown=$SECONDS log job every=30
    log="$out/logs/${name// /-}.log"
    [ -t 1 ] && every=1 && line "$name" "…"
    shift
    "$@" >"$log" 2>&1 &
    job=$!
    while sleep 0.2 && kill -0 "$job" 2>/dev/null; do
        if [ $((SECONDS - shown)) -ge "$every" ]; then
            shown=$SECONDS
            line "$name" "$(tail -n 1 "$log" | tr '\r' '\n' | tail -n 1 | cut -c1-90)"
        fi
    done
    if ! wait "$job"; then
        line "$name" "failed; the end of $log:"
        echo
        tail -5 "$log"
        exit 1
    fi
    line "$name" "$((SECONDS - began)) s"
    [ ! -t 1 ] || echo
}
# Ends the running step where the script is stopped.
trap 'jobs -p | xargs -r kill 2>/dev/null || true' EXIT

step "phantom" "$bin/ingest" phantom mimic-cxr "$out/raw" --studies 3000 --size 128
# Truncates three files, as an interrupted download would: ingest continues without them and reports them.
find "$out/raw/files" -name '*.dcm' | sort | sed -n '500p;1500p;2500p' | xargs truncate --size 2000
step "ingest" "$bin/ingest" mimic-cxr "$out/raw" "$out/data" --size 128 --vocab-size 1000 --report-text findings+impression
step "verify" "$bin/dataset" verify "$out/data"
step "rejects" "$bin/dataset" inspect "$out/data" --rejects
step "split" "$bin/dataset" split "$out/data" --name main
step "inspect" "$bin/dataset" inspect "$out/data" --montage "$out/montage.png"
step "pre-training" "$bin/trainer" pretrain --data "$out/data" --run "$out/runs/mrm" --preset mrm-vit-tiny --split main --steps 1800
step "reconstruct" "$bin/trainer" reconstruct --data "$out/data" --weights "$out/runs/mrm" --split main --rows 6 \
    --report-mask-ratio 0.4

# Fine-tunes and evaluates from one initialization, on one thread. It trains until the validation AUROC has not risen for four
# evaluations. Learning rates: the preset's for pretrained weights; for random initialization the best of 3e-4, 1e-3 and 3e-3
# at 100% of the labels.
arm() {
    local ratio=$1 init=$2 run="$out/runs/$2-$1" weights
    case $init in
        mrm) weights=(--init "$out/runs/mrm") ;;
        random) weights=(--preset mrm-vit-tiny --set optimizer.lr=3e-4) ;;
    esac
    "$bin/trainer" finetune --data "$out/data" --run "$run" --task "$task" --split main --ratio "$ratio" "${weights[@]}" \
        --steps "$steps" --patience 4 --set optimizer.evaluate_every=100 --threads 1 2>&1 |
        tee "$out/logs/fine-tuning-$init-$ratio%.log" | sed -u "s/^/$init: /"
    "$bin/trainer" evaluate --data "$out/data" --run "$run" --split main --subset test --threads 1 \
        >"$out/logs/evaluation-$init-$ratio%.log" 2>&1
}

# Both initializations at the same time.
arms() {
    local random
    arm "$1" random &
    random=$!
    arm "$1" mrm
    wait "$random"
}

for ratio in 1 10 100; do
    step "fine-tuning $ratio%" arms "$ratio"
done
step "report" "$bin/trainer" report "$out"/runs/mrm "$out"/runs/{mrm,random}-{1,10,100} --out "$out/report.html"

echo
echo "mean AUROC on the test subset over the task's five findings (95% interval, bootstrap over patients)"
echo "+: stopped after $steps steps, before the validation AUROC had stopped rising (FINETUNE_STEPS=1500 allows more)"
printf '%-24s%-26s%-26s%-26s\n' "encoder" "1% of the labels" "10%" "100%"
for init in mrm random; do
    printf '%-24s' "$([ "$init" = mrm ] && echo "pretrained (MRM)" || echo "random initialization")"
    for ratio in 1 10 100; do
        capped=
        grep -q '^ended after' "$out/logs/fine-tuning-$init-$ratio%.log" || capped=" +"
        printf '%-26s' "$(grep '^mean over' "$out/logs/evaluation-$init-$ratio%.log" | awk '{print $5, $6}')$capped"
    done
    echo
done
echo
echo "output           $out ($((SECONDS - started)) s)"
echo "the page         $out/report.html"
echo "dataset          $out/data (montage: $out/montage.png)"
echo "runs             $out/runs"
