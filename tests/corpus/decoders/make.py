#!/usr/bin/env python3
"""Writes small DICOM files of one gradient in every transfer syntax, with encoders that are independent of this project.

    make.py FOLDER      needs pydicom, python-gdcm and NumPy

A file's name is BITS-u|s-SYNTAX.dcm. Column x and row y of the image of 33 × 20 pixels have the stored value
(x (2^BITS - 1) // 32 + 3 y) mod 2^BITS, less 2^(BITS - 1) where it is signed.
"""

import sys
from pathlib import Path

import gdcm
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

WIDTH, HEIGHT = 33, 20
SYNTAXES = {
    "rle": gdcm.TransferSyntax.RLELossless,
    "jpeg-lossless": gdcm.TransferSyntax.JPEGLosslessProcess14,
    "jpeg-lossless-sv1": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "jpeg-ls": gdcm.TransferSyntax.JPEGLSLossless,
    "jpeg-2000": gdcm.TransferSyntax.JPEG2000Lossless,
}


def plain(bits, signed):
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    values = (x * (2**bits - 1) // (WIDTH - 1) + 3 * y) % 2**bits - (2 ** (bits - 1) if signed else 0)
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = DigitalXRayImageStorageForPresentation
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = f"2.25.{bits}{int(signed)}"
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.Rows, file.Columns, file.SamplesPerPixel = HEIGHT, WIDTH, 1
    allocated = 8 if bits == 8 else 16
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = allocated, bits, bits - 1, int(signed)
    file.PhotometricInterpretation = "MONOCHROME2"
    kind = np.dtype(f"<{'i' if signed else 'u'}{allocated // 8}")
    file.PixelData = values.astype(kind).tobytes()
    file["PixelData"].VR = "OB" if allocated == 8 else "OW"
    return file


def encode(source, syntax, target):
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    assert reader.Read(), source
    change.SetInput(reader.GetImage())
    assert change.Change(), target
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write(), target


folder = Path(sys.argv[1])
for bits in (8, 10, 12, 14, 16):
    for signed in (False, True):
        stem = f"{bits}-{'s' if signed else 'u'}"
        source = folder / f"{stem}-plain.dcm"
        plain(bits, signed).save_as(source, enforce_file_format=True)
        for name, syntax in SYNTAXES.items():
            encode(source, syntax, folder / f"{stem}-{name}.dcm")
