#!/usr/bin/env bash
# What do the image and the report contribute? Masked record modeling, its two halves and random initialization on synthetic
# radiographs.
#
#   trainer/experiments/phantom.sh OUT [SEED…]        seeds 0 to 4 without
#
# 3,000 studies at 64 pixels, one split. A seed is a whole experiment: three encoders are pre-trained, the labels of 1, 10 and 100%
# are drawn, and every encoder is fine-tuned until its validation score stops to rise. Finished work is kept, so the same command
# continues after a stop. OUT/results has a file for each seed; real.py makes the tables of them.
#
#   BIN, JOBS (2; each trains on one thread)
set -euo pipefail
out=${1:?usage: phantom.sh OUT [SEED…]}
shift
seeds=("$@")
[ $# -gt 0 ] || seeds=(0 1 2 3 4)
bin=${BIN:-$HOME/.cache/mrm/target/release}
jobs=${JOBS:-2}
here=$(cd "$(dirname "$0")" && pwd)
export OMP_NUM_THREADS=1 bin out
mkdir -p "$out/logs" "$out/results"

[ -e "$out/raw" ] || "$bin/ingest" phantom mimic-cxr "$out/raw" --studies 3000 --size 128 >/dev/null
"$bin/ingest" mimic-cxr "$out/raw" "$out/data" --size 128 --vocab-size 1000 --report-text findings+impression >"$out/logs/ingest.log" 2>&1
for seed in "${seeds[@]}"; do
    # Subsets are those of seed 0, the labels those of the seed.
    [ -e "$out/data/splits/main.parquet" ] || "$bin/dataset" split "$out/data" --name main >"$out/logs/split.log"
    if [ ! -e "$out/data/splits/seed$seed.parquet" ]; then
        "$bin/dataset" export "$out/data" --to csv "$out/lists.csv" --split main --no-images --overwrite >/dev/null
        python3 "$here/real.py" lists "$out/lists.csv/metadata.csv" "$out/lists"
        "$bin/dataset" split "$out/data" --name "seed$seed" --lists "$out/lists" --seed "$seed" >"$out/logs/split-$seed.log"
    fi
done

# $2: both, image-only or report-only.
pretrain() {
    "$bin/trainer" pretrain --data "$out/data" --split main --run "$out/seed$1/encoders/$2" --seed "$1" --preset mrm-vit-tiny \
        --device cpu --set "model.reconstruct=$2" --stop-exit-code 75 >"$out/logs/pretrain-$2-$1.log" 2>&1
    echo "seed $1: pre-trained $2"
}

# At most so many steps; a run ends after ten evaluations of twenty without a better score.
tune() {
    local seed=$1 ratio=$2 most=$3 folder=$out/seed$1/phantom-$2
    "$bin/trainer" sweep --data "$out/data" --out "$folder" --task chexpert5 --split "seed$seed" --ratios "$ratio" --seeds "$seed" \
        --recipe release,benchx --device cpu --steps "$most" --patience 10 --stop-exit-code 75 \
        --set "optimizer.evaluate_every=$((most / 20))" \
        --init random=random --init "mrm=$out/seed$seed/encoders/both" --init "image=$out/seed$seed/encoders/image-only" \
        --init "report=$out/seed$seed/encoders/report-only" >"$out/logs/phantom-$ratio-$seed.log" 2>&1
    echo "seed $seed: fine-tuned at $ratio%"
}

export -f pretrain tune
for seed in "${seeds[@]}"; do
    printf '%s\n' "pretrain $seed both" "pretrain $seed image-only" "pretrain $seed report-only" |
        xargs -P "$jobs" -L 1 bash -ec '"$0" "$@"'
    printf '%s\n' "tune $seed 100 1200" "tune $seed 10 400" "tune $seed 1 160" | xargs -P "$jobs" -L 1 bash -ec '"$0" "$@"'
    python3 "$here/real.py" collect "$out" "$seed" "$out/results/seed-$seed.json"
done
python3 "$here/real.py" table "$out"/results/seed-*.json
