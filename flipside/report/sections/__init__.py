"""The sections of the page: one file and one template in `page/` for each."""

from __future__ import annotations

from flipside.report.sections.classifiers import Classifiers
from flipside.report.sections.comparison import Comparison
from flipside.report.sections.data import Data
from flipside.report.sections.flips import Flips
from flipside.report.sections.inpainter import Inpainter
from flipside.report.sections.lost_iou import LostIous
from flipside.report.sections.methods import Methods
from flipside.report.sections.metrics import AllMetrics
from flipside.report.sections.origin import Origin
from flipside.report.sections.patients import Patients
from flipside.report.sections.ranking import Ranking
from flipside.report.sections.realism import Realism
from flipside.report.sections.repetitions import Repetitions
from flipside.report.sections.section import Section
from flipside.report.sections.sizes import LesionSizes
from flipside.report.sections.thresholds import Thresholds
from flipside.report.sections.times import Times
from flipside.report.sections.training import Training
from flipside.report.sections.volumes import Volumes

# In the order of the page.
PAGE_SECTIONS: tuple[type[Section], ...] = (
    Ranking, Repetitions, LostIous, Patients, LesionSizes, Volumes, AllMetrics, Comparison, Flips, Methods, Realism,
    Classifiers, Thresholds, Training, Inpainter, Times, Data, Origin)
