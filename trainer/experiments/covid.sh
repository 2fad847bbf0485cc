#!/usr/bin/env bash
# Does masked record modeling help on the real COVID-19 Image Data Collection, at a size that two cores can train?
#
#   trainer/experiments/covid.sh DATA OUT
#
# DATA holds covid-chestxray/ (images, metadata.csv, splits/covid1..5 and viral1..5) and openi-reports/, whose texts train the
# tokenizer. For each of the ten published splits, an encoder is pre-trained on that split's own training images and notes
# (image and report, image only, report only), then fine-tuned on both tasks and compared with random initialization.
# Finished steps are kept, so the same command continues after a stop. BIN, STEPS, SEEDS and JOBS may be set.
set -euo pipefail
data=${1:?usage: covid.sh DATA OUT} out=${2:?usage: covid.sh DATA OUT}
bin=${BIN:-$HOME/.cache/mrm/target/release}
steps=${STEPS:-400}
seeds=${SEEDS:-0,1,2}
jobs=${JOBS:-2}
export OMP_NUM_THREADS=1 bin out steps
mkdir -p "$out"

[ -e "$out/words/tokenizer.json" ] || {
    mkdir -p "$out/openi"
    tar -xzf "$data/openi-reports/NLMCXR_reports.tgz" -C "$out/openi"
    "$bin/ingest" openi "$out/openi" "$out/words" --no-images --tokenizer train --vocab-size 2000 --max-reject-rate 1 || [ $? = 3 ]
}
"$bin/ingest" covid "$data/covid-chestxray" "$out/data" --size 128 --tokenizer "$out/words/tokenizer.json" --max-reject-rate 0.1
splits=$(echo {covid,viral}{1..5})
for split in $splits; do
    [ -e "$out/data/splits/$split.parquet" ] ||
        "$bin/dataset" split "$out/data" --name "$split" --lists "$data/covid-chestxray/splits/$split" >"$out/split-$split.log"
done

pretrain() {
    "$bin/trainer" pretrain --data "$out/data" --run "$out/runs/$1-$2" --preset mrm-vit-tiny --split "$2" --device cpu \
        --steps "$steps" --set "model.reconstruct=$1" >"$out/pretrain-$1-$2.log" 2>&1
}
sweep() {
    "$bin/trainer" sweep --data "$out/data" --out "$out/$1" --task "$1" --split "$1"1,"$1"2,"$1"3,"$1"4,"$1"5 --device cpu \
        --seeds "$2" --preset mrm-vit-tiny --init "MRM=$out/runs/both-{split}" --init "image-only=$out/runs/image-only-{split}" \
        --init "report-only=$out/runs/report-only-{split}" --init none=random >"$out/sweep-$1.log" 2>&1
}
export -f pretrain sweep
for split in $splits; do
    for target in both image-only report-only; do echo "$target $split"; done
done | xargs -P "$jobs" -L 1 bash -c 'pretrain $0 $1'
printf 'covid %s\nviral %s\n' "$seeds" "$seeds" | xargs -P "$jobs" -L 1 bash -c 'sweep $0 $1'
for task in covid viral; do
    echo "$task"
    cat "$out/$task/sweep.md"
done
