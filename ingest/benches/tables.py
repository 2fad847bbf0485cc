#!/usr/bin/env python3
"""Plans synthetic tables of many rows and prints time and peak memory.

tables.py --ingest BINARY --work DIR [--rows 1000000]

Writes the tables of `mimic-cxr` (metadata, split, chexpert; gzipped), `chexpert` and `nih` (entries, lists) with their real
columns, and runs `ingest … --no-images --dry-run`, which does the planning alone.
"""
import argparse
import gzip
import hashlib
import os
import random
import subprocess
import time
from pathlib import Path

FINDINGS = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture",
            "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia",
            "Pneumothorax", "Support Devices"]
CODES = ["1.0", "0.0", "-1.0", "", "", "", ""]


def mimic_cxr(folder: Path, rows: int, draw: random.Random) -> None:
    def table(name: str, columns: str):
        file = gzip.open(folder / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt", compresslevel=1)
        file.write(columns + "\n")
        return file

    with table("metadata", "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
               "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
               "PatientOrientationCodeSequence_CodeMeaning") as metadata, \
         table("split", "dicom_id,study_id,subject_id,split") as split, \
         table("chexpert", "subject_id,study_id," + ",".join(FINDINGS)) as labels:
        for row in range(rows):
            digits = hashlib.md5(str(row).encode()).hexdigest()
            image = "-".join([digits[at:at + 8] for at in range(0, 32, 8)] + [digits[:8]])
            patient, study = 10_000_000 + row // 6, 50_000_000 + row // 2
            view = "PA" if row % 2 else "LATERAL"
            metadata.write(f"{image},{patient},{study},CHEST (PA AND LAT),{view},3056,2544,21800506,213014.531,"
                           "CHEST (PA AND LAT),postero-anterior,Erect\n")
            split.write(f"{image},{study},{patient},{'train' if row % 50 else 'test'}\n")
            if row % 2 == 0:
                labels.write(f"{patient},{study},{','.join(draw.choice(CODES) for _ in FINDINGS)}\n")


def chexpert(folder: Path, rows: int, draw: random.Random) -> None:
    with open(folder / "train.csv", "w") as table:
        table.write("Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(FINDINGS) + "\n")
        for row in range(rows):
            path = f"CheXpert-v1.0-small/train/patient{row // 4:06}/study{row // 2 % 2 + 1}/view{row % 2 + 1}_frontal.jpg"
            table.write(f"{path},Female,68,Frontal,AP,{','.join(draw.choice(CODES) for _ in FINDINGS)}\n")


def nih(folder: Path, rows: int, draw: random.Random) -> None:
    names = [f"{row // 4:08}_{row % 4:03}.png" for row in range(rows)]
    findings = ["Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "No Finding", "Cardiomegaly|Effusion"]
    with open(folder / "Data_Entry_2017_v2020.csv", "w") as table:
        table.write("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
                    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n")
        for row, name in enumerate(names):
            table.write(f"{name},{draw.choice(findings)},{row % 4},{row // 4},{draw.randrange(20, 90)},"
                        f"{'MF'[row & 1]},PA,2682,2749,0.143,0.143\n")
    cut = rows * 4 // 5
    (folder / "train_val_list.txt").write_text("\n".join(names[:cut]))
    (folder / "test_list.txt").write_text("\n".join(names[cut:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ingest", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    print(f"{'source':<10} {'rows':>9} {'seconds':>8} {'CPU s':>7} {'peak MiB':>9}")
    for name, write in (("mimic-cxr", mimic_cxr), ("chexpert", chexpert), ("nih", nih)):
        folder = arguments.work / f"{name}-{arguments.rows}"
        if not folder.is_dir():
            folder.mkdir(parents=True)
            write(folder, arguments.rows, random.Random(1))
        command = [arguments.ingest, name, folder, arguments.work / "out", "--no-images", "--dry-run"]
        start = time.perf_counter()
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        if status != 0:
            raise SystemExit(f"ingest {name} failed")
        cpu = usage.ru_utime + usage.ru_stime
        print(f"{name:<10} {arguments.rows:>9} {wall:>8.1f} {cpu:>7.1f} {usage.ru_maxrss / 1024:>9.0f}", flush=True)


if __name__ == "__main__":
    main()
