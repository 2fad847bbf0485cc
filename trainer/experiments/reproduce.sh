#!/usr/bin/env bash
# From the downloads to the cells of MRM's and BenchX's tables: docs/reproduce.md says what each step takes and gives.
#
#   trainer/experiments/reproduce.sh RAW OUT [STEP…]      STEP: ingest split pretrain finetune table (all without)
#
# RAW holds the downloads as docs/datasets.md describes them: mimic-cxr, nih, chexpert, rsna, siim, and lists (the folder
# DatasetsSplits of MRM's release) and mae_pretrain_vit_base.pth. Finished work is kept, so the same command continues after a
# stop.
#
#   SCALE=phantom   makes RAW of synthetic radiographs in the same layouts and trains the small preset: a rehearsal in minutes
#   BIN             folder of the binaries
#   LAUNCH          what starts several processes for pre-training, such as "torchrun --no-python --nproc-per-node 8 --"
#   TASKS, RATIOS, SEEDS, RECIPES   what to fine-tune; lists with commas
#   DEVICE          of fine-tuning: auto, cpu, cuda:0
set -euo pipefail
raw=${1:?usage: reproduce.sh RAW OUT [STEP…]} out=${2:?usage: reproduce.sh RAW OUT [STEP…]}
shift 2
steps=("$@")
[ $# -gt 0 ] || steps=(ingest split pretrain finetune table)
bin=${BIN:-$HOME/.cache/mrm/target/release}
scale=${SCALE:-paper}
tasks=${TASKS:-nih14,chexpert5,rsna,siim}
recipes=${RECIPES:-release,benchx}
seeds=${SEEDS:-42,0,1}
device=${DEVICE:-auto}
mkdir -p "$out"

# The dataset of a task.
dataset_of() {
    case $1 in
        nih14) echo nih ;;
        chexpert5) echo chexpert ;;
        *) echo "$1" ;;
    esac
}

case $scale in
    paper)
        preset=mrm-vit-b16 size=512 studies= pretraining=(--set run.precision=bf16) finetuning=(--set run.precision=bf16)
        init=(--init "$out/mae.safetensors")
        ;;
    phantom)
        preset=mrm-vit-tiny size=64 studies=${STUDIES:-150} pretraining=(--steps 60 --set optimizer.batch_size=16)
        finetuning=(--steps 20)
        init=()
        ;;
    *)
        echo "SCALE: paper or phantom, not $scale" >&2
        exit 2
        ;;
esac

# Ends the script unless the manifest of a dataset has this total of records, studies or patients.
expect() {
    local name=$1 what=$2 wanted=$3 found
    found=$(grep -o "\"$what\": [0-9]*" "$out/$name/dataset.json" | head -n 1 | grep -o '[0-9]*$') || true
    if [ "$found" != "$wanted" ]; then
        echo "$name: ${found:-no} $what, not $wanted; docs/reproduce.md says where these numbers come from" >&2
        exit 1
    fi
    echo "$name: $found $what, as expected"
}

# Ends the script unless the split of a dataset has these numbers of records, given as PART=COUNT: PART is a subset (train,
# validate, test) or a ratio (1%, 10%).
expect_split() {
    local name=$1 part wanted found
    shift
    for part; do
        wanted=${part#*=} part=${part%%=*}
        found=$(sed -n "/\"name\": \"$part\",/{n;s/.*\"records\": \([0-9]*\).*/\1/p;}" "$out/$name/splits/paper.json")
        if [ "$found" != "$wanted" ]; then
            echo "$name: ${found:-no} records in $part of the split paper, not $wanted; docs/reproduce.md says where these" \
                "numbers come from" >&2
            exit 1
        fi
        echo "$name: $found records in $part, as expected"
    done
}

# Number of names in a list of a rehearsal.
listed() {
    grep -c . "$raw/lists/$1.txt"
}

# Lists of a rehearsal, of the names on stdin, in the form of MRM's release: of ten names in a row, one is for testing, one for
# validation, and one of the others is in the 10% list. A name begins with its patient up to the pattern.
phantom_lists() {
    local folder=$raw/lists/$1 pattern=$2
    mkdir -p "$folder"
    sort | awk -v folder="$folder" -v pattern="$pattern" '
        { patient = $0; sub(pattern, "", patient); if (!(patient in at)) at[patient] = n++; k = at[patient] % 10
          if (k == 0) print > (folder "/test_list.txt")
          else if (k == 1) print > (folder "/val_list.txt")
          else { print > (folder "/train_list.txt"); if (k == 2) print > (folder "/train_10.txt") } }'
}

phantoms() {
    [ ! -e "$raw/lists/complete" ] || return 0
    local name
    for name in mimic-cxr nih chexpert rsna siim; do
        "$bin/ingest" phantom "$name" "$raw/$name" --studies "$studies" --size 96
    done
    (cd "$raw/nih" && find . -name '*.png' | sed 's|.*/||') | phantom_lists NIH_ChestX-ray '_.*'
    (cd "$raw/chexpert" && find . -name '*.jpg' -path '*/train/*' | sed 's|.*/train/|train/|') | phantom_lists CheXpert '/study.*'
    (cd "$raw/rsna" && find . -path '*stage_2_train_images*' -name '*.dcm' | sed 's|.*/||') | phantom_lists RSNA_Pneumonia '[.]dcm'
    # The release's test images of RSNA are those of the challenge's test, whose labels only the list has. Here they are 0 and 1
    # in turn.
    (cd "$raw/rsna" && find . -path '*stage_2_test_images*' -name '*.dcm' | sed 's|.*/|stage_2_test_images/|') | sort |
        awk '{ print $0, NR % 2, "" }' >"$raw/lists/RSNA_Pneumonia/test_list.txt"
    (cd "$raw/siim" && find . -path '*dicom-images-train*' -name '*.dcm' | sed 's|.*/||') | phantom_lists SIIM-ACR_Pneumothorax '[.]dcm'
    touch "$raw/lists/complete"
}

# One dataset each; exit code 3 (more rejects than allowed) ends the script as any other.
ingest_all() {
    "$bin/ingest" mimic-cxr "$raw/mimic-cxr" "$out/mimic" --size "$size" --intensity mimic-cxr-jpg --tokenizer train \
        --vocab-size "$vocabulary"
    for name in nih chexpert rsna siim; do
        "$bin/ingest" "$name" "$raw/$name" "$out/$name" --size "$size" --tokenizer none
    done
    if [ "$scale" = paper ]; then
        expect mimic records 377110
        expect mimic studies 227835
        expect nih records 112120
        expect nih patients 30805
        expect chexpert records 223648
        expect rsna records 29684
    else
        expect mimic studies "$studies"
        expect nih records "$(find "$raw/nih" -name '*.png' | wc -l)"
        expect chexpert records "$(find "$raw/chexpert" -name '*.jpg' | wc -l)"
        expect rsna records "$(find "$raw/rsna" -name '*.dcm' | wc -l)"
        expect siim records "$(find "$raw/siim" -name '*.dcm' | wc -l)"
    fi
    for name in mimic nih chexpert rsna siim; do
        "$bin/dataset" verify "$out/$name"
    done
}

split_all() {
    local name lists
    for name in nih=NIH_ChestX-ray chexpert=CheXpert rsna=RSNA_Pneumonia siim=SIIM-ACR_Pneumothorax; do
        lists=${name#*=} name=${name%=*}
        [ -e "$out/$name/splits/paper.parquet" ] ||
            "$bin/dataset" split "$out/$name" --name paper --lists "$raw/lists/$lists" | tee "$out/split-$name.log"
        [ "$scale" = paper ] || expect_split "$name" train="$(listed "$lists/train_list")" \
            validate="$(listed "$lists/val_list")" test="$(listed "$lists/test_list")" 10%="$(listed "$lists/train_10")"
    done
    if [ "$scale" = paper ]; then
        expect_split nih train=78468 validate=11219 test=22433 1%=785 10%=7847
        expect_split chexpert validate=5000 test=234 1%=2184 10%=21841
        expect_split rsna train=25184 validate=1500 test=3000 1%=251 10%=2518
        expect_split siim train=6997 validate=1774 test=1904 10%=693
    fi
    # RSNA: the challenge's table has no labels of the test images, so they come from the list.
    lists=$raw/lists/RSNA_Pneumonia
    (echo image,Pneumonia && sed 's|.*/||; s|[.]dcm||' "$lists/test_list.txt" | awk '{ print $1 "," $2 }') >"$out/rsna-test.csv"
    "$bin/ingest" join "$out/rsna" --table "$out/rsna-test.csv" --key image --as labels --name paper-test \
        --label-columns Pneumonia --label-origin radiologist --unmatched keep
}

pretrain() {
    if [ "$scale" = paper ] && [ ! -e "$out/mae.safetensors" ]; then
        "$bin/trainer" import "$raw/mae_pretrain_vit_base.pth" --out "$out/mae.safetensors"
    fi
    # All of MIMIC-CXR, as in the paper: none of the data sets below has its patients.
    local stop=()
    [ -z "${LAUNCH:-}" ] || stop=(--stop-exit-code 75) # for a scheduler that queues the job again
    ${LAUNCH:-} "$bin/trainer" pretrain --data "$out/mimic" --run "$out/runs/mrm" --preset "$preset" "${init[@]}" \
        "${pretraining[@]}" "${stop[@]}"
}

finetune() {
    local task ratios data join
    for task in ${tasks//,/ }; do
        data=$out/$(dataset_of "$task")
        ratios=${RATIOS:-1,10,100}
        # SIIM has no 1% list, and 1% of a rehearsal is no record.
        if [ "$task" = siim ] || [ "$scale" = phantom ]; then ratios=${RATIOS:-10,100}; fi
        join=()
        [ "$task" != rsna ] || join=(--join paper-test) # labels of the test images
        "$bin/trainer" sweep --data "$data" --out "$out/sweeps/$task" --task "$task" --split paper --ratios "$ratios" \
            --seeds "$seeds" --recipe "$recipes" --init "MRM=$out/runs/mrm" --device "$device" "${join[@]}" "${finetuning[@]}"
    done
}

# Two tables a task: of its headline metric, and of the one that BenchX reports.
table() {
    local task
    for task in ${tasks//,/ }; do
        printf '## %s\n\n' "$task"
        cat "$out/sweeps/$task/sweep.md"
        echo
    done | tee "$out/tables.md"
}

vocabulary=30000
if [ "$scale" = phantom ]; then
    vocabulary=500
    phantoms
fi
for step in "${steps[@]}"; do
    echo "== $step"
    case $step in
        ingest) ingest_all ;;
        split) split_all ;;
        pretrain) pretrain ;;
        finetune) finetune ;;
        table) table ;;
        *)
            echo "no step $step; there are: ingest split pretrain finetune table" >&2
            exit 2
            ;;
    esac
done
