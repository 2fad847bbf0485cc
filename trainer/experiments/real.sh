#!/usr/bin/env bash
# Which pre-training helps on real radiographs, at a size that two cores can train?
#
#   trainer/experiments/real.sh RAW OUT [SEED…]        seeds 0 to 4 without
#
# RAW holds, each as docs/datasets.md describes it: kermany (5,824 radiographs of children), nih (ChestX-ray14, or a part of it),
# covid (COVID-19 Image Data Collection). Subsets are fixed and disjoint by patient. A seed is a whole experiment: its encoders are
# pre-trained on the training images of all three sets without labels; the labels of 1, 10 and 100% are drawn; every encoder is
# fine-tuned by both recipes and probed as it is, beside random initialization. Finished work is kept, so the same command
# continues after a stop. OUT/results has a file for each seed; real.py makes the tables of them.
#
#   BIN, JOBS (2; each trains on one thread), STEPS (of pre-training: 4000), ARMS (encoders: "image mrm mrm-clip dino"), STAGES
#   ("probe tune", after pre-training), TASKS ("type pneumonia nih covid covid-type type-noise30")
set -euo pipefail
raw=${1:?usage: real.sh RAW OUT [SEED…]} out=${2:?usage: real.sh RAW OUT [SEED…]}
shift 2
seeds=("$@")
[ $# -gt 0 ] || seeds=(0 1 2 3 4)
bin=${BIN:-$HOME/.cache/mrm/target/release}
jobs=${JOBS:-2}
steps=${STEPS:-4000}
arms=${ARMS:-image mrm mrm-clip dino}
stages=${STAGES:-probe tune}
tasks=${TASKS:-type pneumonia nih covid covid-type type-noise30}
here=$(cd "$(dirname "$0")" && pwd)
export OMP_NUM_THREADS=1 bin out steps
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
# A step of self-distillation passes six crops of each image through the student and two through the teacher, so it gets a quarter
# of the steps.
pretrain() {
    local seed=$1 arm=$2 options length=$steps
    local run=$out/seed$seed/encoders/$arm
    case $arm in
        image) options=(--set model.reconstruct=image-only) ;;
        mrm) options=(--set model.reconstruct=both) ;;
        dino) options=(--objective dino) length=$((steps / 4)) ;;
        *) options=(--objective "$arm") ;;
    esac
    "$bin/trainer" pretrain --data "$out/kermany=0.5" --data "$out/nih=0.25" --data "$out/covid=0.25" \
        --epoch-of "$out/kermany" --tokenizer "$out/covid/tokenizer.json" --split main --run "$run" --seed "$seed" \
        --preset mrm-vit-tiny --device cpu --steps "$length" --stop-exit-code 75 "${options[@]}" \
        >"$out/logs/pretrain-$arm-$seed.log" 2>&1
    echo "seed $seed: pre-trained $arm"
}

# 4. Fine-tuning. A run ends after ten evaluations of twenty without a better score on the validation subset. Random
# initialization gets six times the steps: for the type of pneumonia at 100%, a trial had 0.870 on the test subset after 3,000 steps,
# 0.902 after 6,000, where the validation score had not risen for 1,000. JOIN sees the labels with errors.
tune() {
    local seed=$1 task=$2 data=$3 labels=$4 ratio=$5 of_pretrained=$6 join=$7 arm options most
    shift 7
    local folder=$out/seed$seed/$task-$ratio log=$out/logs/$task-$ratio-$seed.log recipes=release,benchx joins=()
    [ -e "$folder/done" ] && return
    if [ "$join" != none ]; then joins=(--join "$join") recipes=release; fi
    : >"$log"
    for arm in random "$@"; do
        options=(--init "$arm=$out/seed$seed/encoders/$arm") most=$of_pretrained
        [ "$arm" = random ] && options=(--init random=random --preset mrm-vit-tiny) most=$((6 * most))
        # A sweep for each, since the classifiers of self-distillation take the class token.
        "$bin/trainer" sweep --data "$out/$data" --out "$folder" --task "$labels" --split "seed$seed" --ratios "$ratio" \
            --seeds "$seed" --recipe "$recipes" --device cpu --steps "$most" --patience 10 --set optimizer.batch_size=32 \
            --stop-exit-code 75 --set "optimizer.evaluate_every=$((most / 20))" "${joins[@]}" "${options[@]}" >>"$log" 2>&1
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

# 5. Probes of the encoders as they are, at all ratios of a task.
probe() {
    local seed=$1 task=$2 data=$3 labels=$4 ratios=$5 join=$6 arm options joins=()
    shift 6
    local folder=$out/seed$seed/$task-probes log=$out/logs/$task-probes-$seed.log
    [ -e "$folder/done" ] && return
    [ "$join" = none ] || joins=(--join "$join")
    : >"$log"
    for arm in random "$@"; do
        options=(--weights "$out/seed$seed/encoders/$arm")
        [ "$arm" = random ] && options=(--weights random --preset mrm-vit-tiny --seeds "$seed")
        "$bin/trainer" probe --data "$out/$data" "${options[@]}" --name "$arm" --task "$labels" --split "seed$seed" \
            --ratio "$ratios" --device cpu --out "$folder/$arm" "${joins[@]}" >>"$log" 2>&1
    done
    touch "$folder/done"
    echo "seed $seed: probes of $task"
}

# Three tenths of the training labels of the type of pneumonia are those of the other type.
noise() {
    local seed=$1 share=30
    [ -e "$out/kermany/joins/noise$share-$seed.parquet" ] && return
    "$bin/dataset" export "$out/kermany" --to csv "$out/lists/kermany-$seed.csv" --split "seed$seed" --no-images --overwrite >/dev/null
    python3 "$here/real.py" noise "$out/lists/kermany-$seed.csv/metadata.csv" "$out/lists/noise$share-$seed.csv" "$share" "$seed"
    "$bin/ingest" join "$out/kermany" --table "$out/lists/noise$share-$seed.csv" --key record_id --on record_id --as labels \
        --name "noise$share-$seed" --unmatched keep >"$out/logs/noise$share-$seed.log" 2>&1
}

export -f pretrain tune probe
for seed in "${seeds[@]}"; do
    noise "$seed"
    for arm in $arms; do echo "pretrain $seed $arm"; done >"$out/lists/encoders-$seed"
    {
        echo "probe $seed pneumonia kermany labels:Pneumonia 1,10,100 none $arms"
        echo "probe $seed type kermany viral 1,10,100 none $arms"
        echo "probe $seed type-noise30 kermany viral 100 noise30-$seed $arms"
        echo "probe $seed nih nih nih14 10,100 none $arms"
        echo "probe $seed covid covid covid 10,100 none $arms"
        echo "probe $seed covid-type covid viral 10,100 none $arms"
        for task in "type kermany viral" "pneumonia kermany labels:Pneumonia"; do
            echo "tune $seed $task 100 1000 none $arms"
            echo "tune $seed $task 10 300 none $arms"
            echo "tune $seed $task 1 120 none $arms"
        done
        for task in "nih nih nih14" "covid covid covid" "covid-type covid viral"; do
            echo "tune $seed $task 100 240 none $arms"
            echo "tune $seed $task 10 120 none $arms"
        done
        echo "tune $seed type-noise30 kermany viral 100 1000 noise30-$seed $arms"
    } >"$out/lists/jobs-$seed"
    xargs -P "$jobs" -L 1 bash -ec '"$0" "$@"' <"$out/lists/encoders-$seed"
    for stage in $stages; do
        grep -E "^$stage $seed (${tasks// /|}) " "$out/lists/jobs-$seed" | xargs -P "$jobs" -L 1 bash -ec '"$0" "$@"'
    done
    python3 "$here/real.py" collect "$out" "$seed" "$out/results/seed-$seed.json"
done
python3 "$here/real.py" table "$out"/results/seed-*.json
