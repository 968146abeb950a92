"""The phantom's patients: build, kidneys and contrast phase, drawn at random within adult anatomy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Probability and HU of what takes up contrast. The excretory phase, with its bright pelvis, is rare.
PHASES = {
    "native": (0.18, dict(cortex=33, medulla=30, pelvis=6, aorta=42, vein=40, renal_vein=40, liver=58, liver_vein=45,
                          spleen=48, pancreas=40, muscle=50, bowel_wall=38)),
    "arterial": (0.32, dict(cortex=178, medulla=88, pelvis=6, aorta=290, vein=95, renal_vein=165, liver=72,
                            liver_vein=90, spleen=120, pancreas=102, muscle=56, bowel_wall=82)),
    "venous": (0.42, dict(cortex=182, medulla=160, pelvis=10, aorta=158, vein=150, renal_vein=160, liver=110,
                          liver_vein=165, spleen=122, pancreas=92, muscle=62, bowel_wall=86)),
    "excretory": (0.08, dict(cortex=138, medulla=142, pelvis=270, aorta=108, vein=105, renal_vein=108, liver=92,
                             liver_vein=105, spleen=98, pancreas=78, muscle=60, bowel_wall=68)),
}


@dataclass(frozen=True)
class Kidney:
    """One kidney's size and place, mm and radians."""

    side: int  # -1 patient's right, +1 left
    x: float  # distance of the centre from the midline
    y: float
    z: float
    length: float  # pole to pole
    half_thickness: float  # along the axis through the hilum
    half_width: float  # across it
    hilum: float  # angle of the hilum in front of straight medial


@dataclass(frozen=True)
class Patient:
    """One patient's build. The trunk's wall is a superellipse of half-axes (`wall_x`, `wall_y`) under fat."""

    wall_x: float
    wall_y: float
    fat_side: float
    fat_front: float
    fat_back: float
    visceral_fat: float  # 0 lean .. 1 obese
    kidneys: tuple[Kidney, Kidney]
    contrast: dict[str, float]  # HU
    noise_factor: float

    @property
    def body_half_width(self) -> float:
        return self.wall_x + self.fat_side

    @property
    def body_half_depth(self) -> float:
        return self.wall_y + (self.fat_front + self.fat_back) / 2

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Patient:
        obesity = float(rng.beta(1.6, 1.8))
        wall_x = rng.uniform(117, 133) + 8 * obesity
        wall_y = wall_x * rng.uniform(0.68, 0.77) + 6 * obesity
        scale = wall_x / 127 * rng.uniform(0.96, 1.10)
        shrunken = rng.integers(2) if rng.random() < 0.12 else -1  # now and then one kidney is clearly smaller
        kidneys: list[Kidney] = []
        for i, side in enumerate((-1, 1)):
            size = scale * rng.uniform(0.96, 1.05) * (0.86 if i == shrunken else 1.0)
            kidneys.append(Kidney(
                side=side, x=rng.uniform(69, 74) * wall_x / 127, y=wall_y - rng.uniform(57, 66),
                z=rng.uniform(-13, 0) if side < 0 else rng.uniform(-3, 10), length=size * rng.uniform(92, 106),
                half_thickness=size * rng.uniform(26, 29.5), half_width=size * rng.uniform(31.5, 36),
                hilum=rng.uniform(0.25, 0.85)))
        names = list(PHASES)
        phase = names[rng.choice(len(names), p=[PHASES[name][0] for name in names])]
        strength = rng.uniform(0.9, 1.1)  # of the contrast, over what the tissue has without any
        native = PHASES["native"][1]
        contrast = {tissue: native[tissue] + strength * (hu - native[tissue]) + rng.normal(0, 2)
                    for tissue, hu in PHASES[phase][1].items()}
        return cls(wall_x, wall_y, fat_side=5 + 30 * obesity * rng.uniform(0.7, 1.2),
                   fat_front=6 + 32 * obesity * rng.uniform(0.6, 1.3),
                   fat_back=6 + 22 * obesity * rng.uniform(0.7, 1.3),
                   visceral_fat=float(np.clip(obesity + rng.normal(0, 0.2), 0, 1)),
                   kidneys=(kidneys[0], kidneys[1]), contrast=contrast,
                   noise_factor=float((0.85 + 0.4 * obesity) * rng.uniform(0.85, 1.15)))

    def kidney_span(self) -> tuple[float, float]:
        """Heights in mm of the lowest and the highest pole."""
        return (min(k.z - k.length / 2 for k in self.kidneys), max(k.z + k.length / 2 for k in self.kidneys))
