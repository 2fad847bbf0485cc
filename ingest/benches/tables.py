#!/usr/bin/env python3
"""Plans synthetic tables of many rows and prints time and peak memory.

tables.py --ingest BINARY --work DIR [--rows 1000000]

Writes the tables of `mimic-cxr` (metadata, split, chexpert; gzipped), `chexpert`, `nih` (entries, lists), `padchest` (gzipped)
and `vindr-cxr` (labels and boxes of three readers: a million rows of labels) with their real columns, and runs `ingest … --no-images --dry-run`, which does the planning alone.
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


def padchest(folder: Path, rows: int, draw: random.Random) -> None:
    columns = (",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
               "MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,"
               "PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,"
               "WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,"
               "RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,"
               "labelCUIS,LocalizationsCUIS")
    labels = [f"finding number {number}" for number in range(193)]
    path = folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
    with gzip.open(path, "wt", compresslevel=1) as table:
        table.write(columns + "\n")
        for row in range(rows):
            study = int(hashlib.md5(str(row // 2).encode()).hexdigest(), 16)
            named = ", ".join(f"'{draw.choice(labels)}'" for _ in range(draw.randrange(1, 5)))
            table.write(f"{row},{study}_{row:08x}.png,{row % 54},20140915,{study},{study // 7},1950.0,F,POSTEROANTERIOR,PA,"
                        "Manual review of DICOM fields,No,CR,ImagingDynamicsCompanyLtd,MONOCHROME2,0,,0.143,12,2047.0,4095.0,2140,"
                        f"1760,,,,,186.0,{4_000_000 + row},\"sin hallazg patolog {row} . cambi degener column dorsal . {study}\","
                        f"RNN_model,\"[{named}]\",\"['loc basal']\",\"[[{named}, 'loc basal']]\",\"['C0018802']\",[]\n")


def vindr_cxr(folder: Path, rows: int, draw: random.Random) -> None:
    findings = ["Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation", "Edema",
                "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst", "Mediastinal shift",
                "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture",
                "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding"]
    with open(folder / "image_labels_train.csv", "w") as labels, open(folder / "annotations_train.csv", "w") as boxes:
        labels.write("image_id,rad_id," + ",".join(findings) + "\n")
        boxes.write("image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n")
        for row in range(rows):
            image, reader = hashlib.md5(str(row // 3).encode()).hexdigest(), f"R{row % 3 + 1}"
            labels.write(f"{image},{reader},{','.join(draw.choice('00000001') for _ in findings)}\n")
            corner = draw.randrange(1000)
            boxes.write(f"{image},{reader},{draw.choice(findings[:22])},{corner},{corner},{corner + 300.5},{corner + 200.5}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ingest", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    print(f"{'source':<10} {'rows':>9} {'seconds':>8} {'CPU s':>7} {'peak MiB':>9}")
    tables = (("mimic-cxr", mimic_cxr), ("chexpert", chexpert), ("nih", nih), ("padchest", padchest), ("vindr-cxr", vindr_cxr))
    for name, write in tables:
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
