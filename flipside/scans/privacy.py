"""Names that DICOM headers bring along and that no artifact or message may have: found, hashed, replaced."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import pydicom
from pydicom.multival import MultiValue

OF_THE_PATIENT = ("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName",
                  "PatientMotherBirthName")
IDENTIFYING = (*OF_THE_PATIENT, "PatientBirthDate", "PatientAddress", "PatientTelephoneNumbers", "MedicalRecordLocator",
               "AccessionNumber", "InstitutionName", "InstitutionAddress", "ReferringPhysicianName",
               "PerformingPhysicianName", "PhysiciansOfRecord", "OperatorsName")
SHORT = 3  # letters from which on a word is looked for within others


class ScanNames(NamedTuple):
    """What a scan is called in artifacts and messages."""

    scan_id: str
    patient_id: str
    source_file: str


def salted_hash(text: str, salt: str) -> str:
    """Sixteen hexadecimal digits of sha256(salt + text): equal for equal patients, without a way back."""
    return hashlib.sha256((salt + text).encode()).hexdigest()[:16]


def without_names(text: str, names: Sequence[str], salt: str) -> str:
    """A path or message in which every identifying word is replaced by a salted hash; a short one (Li, 07) only where
    it stands alone, since it is part of many others."""
    alone = r"(?<![^\W_]){}(?![^\W_])"
    patterns = [re.escape(name) if len(name) >= SHORT else alone.format(re.escape(name))
                for name in sorted(names, key=len, reverse=True)]
    if not patterns:
        return text
    return re.sub("|".join(patterns), lambda match: salted_hash(match[0].lower(), salt)[:8], text, flags=re.IGNORECASE)


def identifying_words(dataset: pydicom.Dataset) -> tuple[str, ...]:
    """What a header says of whose scan it is, in words and lower case, to keep it out of everything that is written."""
    words = set()
    for keyword in IDENTIFYING:
        element = dataset.get(keyword)
        for value in element if isinstance(element, MultiValue) else [element]:
            text = str(value or "").strip().lower()
            parts = [text, *re.split(r"[\^\s,=/]+", text)]
            if keyword.endswith("Date") and len(text) == 8:
                parts += [f"{text[:4]}{dash}{text[4:6]}{dash}{text[6:]}" for dash in "-_."]
            words |= {part for part in parts if len(part) >= (1 if keyword in OF_THE_PATIENT else SHORT)}
    return tuple(sorted(words))


def anonymous_names(name: str, path: str, patient: str, words: Sequence[str], salt: str) -> ScanNames:
    """Names for a scan that came with a DICOM header: its patient hashed, and no identifying word in name and path.

    `name` and `path` (relative to the data set's root) as found on disk; `patient` as the header has it, may be empty;
    `words`: see `identifying_words`.
    """
    return ScanNames(without_names(name, words, salt), salted_hash(patient or path, salt),
                     without_names(path, words, salt))
