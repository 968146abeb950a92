"""Endings of files by their kind, in small letters."""

PICTURES = (".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".pgm")
NIFTI = (".nii", ".nii.gz")
DICOM = (".dcm", ".dicom", ".ima")  # many DICOM files have none
PARQUET = (".parquet", ".pq")
TABLES = (".csv", ".tsv", *PARQUET)
