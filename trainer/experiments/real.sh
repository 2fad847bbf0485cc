#!/usr/bin/env bash
# Which pre-training helps on real radiographs, at a size that two cores can train?
#
#   trainer/experiments/real.sh RAW OUT [SEED…]        seeds 0 to 4 without
#
# RAW holds, each as docs/datasets.md describes it: kermany (5,824 radiographs of children), nih (ChestX-ray14, or a part of it),
# covid (COVID-19 Image Data Collection). Subsets are fixed and disjoint by patient. Encoders are pre-trained once on the training
# images of all three, without labels; then, for each seed, the labels of 1, 10 and 100% are drawn and every encoder is
# fine-tuned by both recipes and probed as it is, beside random initialization. Finished work is kept, so the same command
# continues after a stop. OUT/results has a file for each seed; real.py makes the tables of them.
#
#   BIN, JOBS (2; each trains on one thread), STEPS (of pre-training: 6000), ARMS (encoders: "image mrm mrm-clip dino"), MOST (most
#   steps of fine-tuning at 1, 10 and 100%: "600 1500 4000")
set -euo pipefail
raw=${1:?usage: real.sh RAW OUT [SEED…]} out=${2:?usage: real.sh RAW OUT [SEED…]}
shift 2
seeds=("$@")
[ $# -gt 0 ] || seeds=(0 1 2 3 4)
bin=${BIN:-$HOME/.cache/mrm/target/release}
jobs=${JOBS:-2}
steps=${STEPS:-6000}
arms=${ARMS:-image mrm mrm-clip dino}
here=$(cd "$(dirname "$0")" && pwd)
most_steps=${MOST:-600 1500 4000}
export OMP_NUM_THREADS=1 bin out steps most_steps
mkdir -p "$out/logs" "$out/results"

# 1. Datasets. The notes of the COVID set are the only reports; their tokenizer is the mixture's.
ingest() {
    "$bin/ingest" "$1" "$raw/$1" "$out/$1" --size 128 --max-reject-rate 1 "${@:2}" >"$out/logs/ingest-$1.log" 2>&1 || {
        tail -n 5 "$out/logs/ingest-$1.log"
        exit 1
    }
}
ingest covid --tokenizer train --vocab-size 2000
ingest kermany --tokenizer none
ingest nih --tokenizer none

# 2. Subsets: the published test part of the children's set, else a fifth of the patients; a tenth for validation. The split of a
# seed has the same subsets, and ratios of its own.
lists() {
    local name=$1
    shift
    [ -e "$out/lists/$name/train_list.txt" ] && return
    [ -e "$out/$name/splits/main.parquet" ] ||
        "$bin/dataset" split "$out/$name" --name main --ratios 100 --keep-duplicates-together "$@" >"$out/logs/split-$name.log"
    "$bin/dataset" export "$out/$name" --to csv "$out/lists/$name.csv" --split main --no-images --overwrite >/dev/null
    python3 "$here/real.py" lists "$out/lists/$name.csv/metadata.csv" "$out/lists/$name"
}
mkdir -p "$out/lists"
lists kermany --official --validation 0.1
lists nih
lists covid
for seed in "${seeds[@]}"; do
    for name in kermany nih covid; do
        ratios=10,100 # 1% of the other sets is less than ten records
        [ "$name" = kermany ] && ratios=1,10,100
        [ -e "$out/$name/splits/seed$seed.parquet" ] ||
            "$bin/dataset" split "$out/$name" --name "seed$seed" --lists "$out/lists/$name" --ratios "$ratios" --seed "$seed" \
                >"$out/logs/split-$name-$seed.log"
    done
done

# 3. Encoders. An epoch is one of the children's set; half of each batch is from there, a quarter from each of the others.
pretrain() {
    local arm=$1 options
    case $arm in
        image) options=(--set model.reconstruct=image-only) ;;
        mrm) options=(--set model.reconstruct=both) ;;
        *) options=(--objective "$arm") ;;
    esac
    "$bin/trainer" pretrain --data "$out/kermany=0.5" --data "$out/nih=0.25" --data "$out/covid=0.25" \
        --epoch-of "$out/kermany" --tokenizer "$out/covid/tokenizer.json" --split main --run "$out/encoders/$arm" \
        --preset mrm-vit-tiny --device cpu --steps "$steps" "${options[@]}" >"$out/logs/pretrain-$arm.log" 2>&1
    echo "pre-trained: $arm"
}
export -f pretrain
printf '%s\n' $arms | xargs -P "$jobs" -I {} bash -ec 'pretrain {}'

# 4. Fine-tuning and probes. At most so many steps at 1, 10 and 100%; a run ends after ten evaluations of forty without a
# better score on the validation subset. JOIN sees the labels with errors.
tune() {
    local task=$1 data=$2 labels=$3 ratio=$4 seed=$5 join=$6 most arm weights options lengths init
    shift 6
    local folder=$out/seed$seed/$task-$ratio log=$out/logs/$task-$ratio-$seed.log recipes=release,benchx joins=()
    [ -e "$folder/done" ] && return
    if [ "$join" != none ]; then joins=(--join "$join") recipes=release; fi
    read -r -a lengths <<<"$most_steps"
    case $ratio in 1) most=${lengths[0]} ;; 10) most=${lengths[1]} ;; *) most=${lengths[2]} ;; esac
    : >"$log"
    for arm in random "$@"; do
        weights=$out/encoders/$arm options=() init=()
        if [ "$arm" = random ]; then
            weights=random options=(--preset mrm-vit-tiny --seeds "$seed") init=(--preset mrm-vit-tiny)
        fi
        # A sweep for each, since DINO's classifiers take the class token.
        "$bin/trainer" sweep --data "$out/$data" --out "$folder" --task "$labels" --split "seed$seed" --ratios "$ratio" \
            --seeds "$seed" --recipe "$recipes" --device cpu --steps "$most" --patience 10 --set optimizer.batch_size=32 \
            --set "optimizer.evaluate_every=$((most / 40))" "${joins[@]}" --init "$arm=$weights" "${init[@]}" >>"$log" 2>&1
        "$bin/trainer" probe --data "$out/$data" --weights "$weights" --name "$arm" --task "$labels" --split "seed$seed" \
            --ratio "$ratio" --device cpu --out "$folder/probe-$arm" "${joins[@]}" "${options[@]}" >>"$log" 2>&1
    done
    # The classifiers of pneumonia in children on adults, without any of their labels.
    if [ "$task-$ratio" = pneumonia-100 ]; then
        for arm in random "$@"; do
            for other in nih covid; do
                "$bin/trainer" evaluate --data "$out/$other" --run "$folder/$arm-seed$seed-$ratio-seed$seed" --split "seed$seed" \
                    --subset test --device cpu >>"$log" 2>&1
            done
        done
    fi
    touch "$folder/done"
    echo "seed $seed: $task at $ratio%"
}

# A tenth or three tenths of the training labels of the type of pneumonia are those of the other type.
noise() {
    local seed=$1 share=$2
    [ -e "$out/kermany/joins/noise$share-$seed.parquet" ] && return
    "$bin/dataset" export "$out/kermany" --to csv "$out/lists/kermany-$seed.csv" --split "seed$seed" --no-images --overwrite >/dev/null
    python3 "$here/real.py" noise "$out/lists/kermany-$seed.csv/metadata.csv" "$out/lists/noise$share-$seed.csv" "$share" "$seed"
    "$bin/ingest" join "$out/kermany" --table "$out/lists/noise$share-$seed.csv" --key record_id --on record_id --as labels \
        --name "noise$share-$seed" --unmatched keep >"$out/logs/noise$share-$seed.log" 2>&1
}
export -f tune
for seed in "${seeds[@]}"; do
    for share in 10 30; do noise "$seed" "$share"; done
    for ratio in 100 10 1; do
        echo "pneumonia kermany labels:Pneumonia $ratio $seed none $arms"
        echo "type kermany viral $ratio $seed none $arms"
        [ "$ratio" = 1 ] && continue
        echo "nih nih nih14 $ratio $seed none $arms"
        echo "covid covid covid $ratio $seed none $arms"
        echo "covid-type covid viral $ratio $seed none $arms"
    done >"$out/lists/jobs-$seed"
    for share in 10 30; do
        echo "type-noise$share kermany viral 100 $seed noise$share-$seed $arms"
    done >>"$out/lists/jobs-$seed"
    xargs -P "$jobs" -L 1 bash -ec 'tune "$0" "$@"' <"$out/lists/jobs-$seed"
    python3 "$here/real.py" collect "$out" "$seed" "$out/results/seed-$seed.json"
done
python3 "$here/real.py" table "$out"/results/seed-*.json
