#!/usr/bin/env bash
# The whole pipeline on synthetic data: raw directory → shards → split → pre-training → fine-tuning at 1, 10 and 100% of the
# labels from pretrained weights and from random initialization → one table and one HTML page. Usage: demo.sh OUT, with BIN
# set.
set -euo pipefail
out=${1:?usage: demo.sh OUT}
bin=${BIN:?BIN names the folder of the binaries}
mkdir -p "$out/logs"
started=$SECONDS
# Five findings that are visible at 64 pixels.
task=chexpert5

# Runs a step with its output in a log; on failure prints the end of the log.
step() {
    local name=$1 began=$SECONDS
    shift
    printf '%-28s' "$name"
    if ! "$@" >"$out/logs/${name// /-}.log" 2>&1; then
        echo "failed; the end of $out/logs/${name// /-}.log:"
        tail -5 "$out/logs/${name// /-}.log"
        exit 1
    fi
    echo "$((SECONDS - began)) s"
}

step "phantom" "$bin/ingest" phantom mimic-cxr "$out/raw" --studies 3000 --size 128
# Truncates three files, as an interrupted download would: ingest continues without them and reports them.
find "$out/raw/files" -name '*.dcm' | sort | sed -n '500p;1500p;2500p' | xargs truncate --size 2000
step "ingest" "$bin/ingest" mimic-cxr "$out/raw" "$out/data" --size 128 --vocab-size 1000 --report-text findings+impression
step "verify" "$bin/dataset" verify "$out/data"
step "rejects" "$bin/dataset" inspect "$out/data" --rejects
step "split" "$bin/dataset" split "$out/data" --name main
step "inspect" "$bin/dataset" inspect "$out/data" --montage "$out/montage.png"
step "pre-training" "$bin/trainer" pretrain --data "$out/data" --run "$out/runs/mrm" --preset mrm-vit-tiny --split main
step "reconstruct" "$bin/trainer" reconstruct --data "$out/data" --weights "$out/runs/mrm" --split main --rows 6 --word-ratio 0.4

for ratio in 1 10 100; do
    for start in mrm random; do
        run="$out/runs/$start-$ratio"
        init=(--preset mrm-vit-tiny)
        [ "$start" = random ] || init=(--init "$out/runs/mrm")
        step "fine-tuning $start $ratio%" "$bin/trainer" finetune --data "$out/data" --run "$run" --task "$task" \
            --split main --ratio "$ratio" "${init[@]}"
        step "evaluation $start $ratio%" "$bin/trainer" evaluate --data "$out/data" --run "$run" --split main --subset test
    done
done
step "report" "$bin/trainer" report "$out"/runs/mrm "$out"/runs/{mrm,random}-{1,10,100} --out "$out/report.html"

echo
echo "mean AUROC on the test subset over the task's five findings (95% interval, bootstrap over patients)"
printf '%-16s%-26s%-26s%-26s\n' "weights" "1% of the labels" "10%" "100%"
for start in mrm random; do
    printf '%-16s' "$([ "$start" = mrm ] && echo pretrained || echo random init)"
    for ratio in 1 10 100; do
        printf '%-26s' "$(grep '^mean over' "$out/logs/evaluation-$start-$ratio%.log" | awk '{print $5, $6}')"
    done
    echo
done
echo
echo "output           $out ($((SECONDS - started)) s)"
echo "report           $out/report.html"
echo "dataset          $out/data (montage: $out/montage.png)"
echo "runs             $out/runs"
