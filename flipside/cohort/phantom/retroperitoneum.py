"""The phantom's anatomy behind the peritoneal cavity: back, spine, ribs, great vessels and the kidneys.

Coordinates as in `Canvas`; most positions are measured from the back of the trunk's wall (`Patient.wall_y`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flipside.cohort.phantom.canvas import FAT, Canvas, Lumps, Solid, smooth_step, wander
from flipside.cohort.phantom.patient import Kidney, Patient


def draw_back(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Muscles of the back and the lumbar spine."""
    z, back, muscle = canvas.z, patient.wall_y, patient.contrast["muscle"]
    marbling = 8 + 22 * patient.visceral_fat * rng.random()
    bulk = rng.uniform(0.9, 1.12)
    for side in (-1, 1):
        erector = canvas.blob(side * 31 * bulk, back - 24, 29 * bulk, 21 * bulk, turn=-side * 0.16, power=2.4,
                              lumps=Lumps.draw(rng, 0.04))
        canvas.paint(erector.grown(2), FAT)
        canvas.paint(erector, muscle, fine=marbling)
        lower = smooth_step(z, 45, -20)
        quadratus = canvas.blob(side * (50 + 8 * lower) * bulk, back - 43, (9 + 8 * lower) * bulk, 6 + 4 * lower,
                                turn=side * 0.5, lumps=Lumps.draw(rng, 0.08))
        canvas.paint(quadratus, muscle, fine=marbling)
        psoas = smooth_step(z, 50, -75) * bulk
        canvas.paint(canvas.blob(side * (27 + 12 * psoas), back - 61 + 2 * psoas, 4 + 15 * psoas, 8 + 16 * psoas,
                                 turn=side * 0.3, lumps=Lumps.draw(rng, 0.06)), muscle, fine=6)
        crus = 4.5 * smooth_step(z, -25, 15)  # of the diaphragm, beside the aorta
        canvas.paint(canvas.rod(side * 14 + 4, back - 84, side * 22, back - 68, crus), muscle)

    # One vertebra and one disc every 36 mm; `along` runs 0..1 from a disc's middle to the next one's.
    scale = rng.uniform(0.95, 1.08)
    along = (z / 36.0 + rng.random()) % 1.0
    bony = smooth_step(np.minimum(along, 1 - along), 0.09, 0.17)  # 0 in the disc
    waist = 1 - 0.07 * np.sin(np.pi * along) ** 2
    trabecular, cortical = rng.uniform(120, 230), rng.uniform(380, 560)
    lumps = Lumps.draw(rng, 0.02)
    body = canvas.blob(0, back - 59, 17.5 * scale * waist, 24 * scale * waist, turn=np.pi / 2, power=2.3, lumps=lumps,
                       dent=(0.16, 0.8))  # angle 0 is the back: the canal's hollow
    endplate = smooth_step(np.minimum(along, 1 - along), 0.24, 0.15) * bony
    in_box = (body.box[0], None, None)
    canvas.paint(body, (95 + (cortical - 95) * bony)[in_box].astype(np.float32))
    inside = 90 + (trabecular + 130 * endplate - 90) * bony
    canvas.paint(body.grown(-2.6), inside[in_box].astype(np.float32), slow=10, fine=16)

    arch = cortical - 40
    pedicle = 5.2 * smooth_step(np.abs(along - 0.66), 0.26, 0.14)
    transverse = 4.4 * smooth_step(np.abs(along - 0.60), 0.20, 0.08)
    facet = 8.5 * smooth_step(np.minimum(along, 1 - along), 0.28, 0.10)
    lamina = 3.4 * smooth_step(np.abs(along - 0.35), 0.42, 0.25)
    spinous = 4.0 * smooth_step(np.abs(along - 0.25), 0.34, 0.18)
    for side in (-1, 1):
        canvas.paint(canvas.rod(side * 14, back - 48, side * 15, back - 33, pedicle), arch)
        canvas.paint(canvas.rod(side * 16, back - 38, side * rng.uniform(38, 46), back - 33, transverse), arch - 40)
        canvas.paint(canvas.rod(side * 17, back - 32, side * 19, back - 27, facet), arch + 60, fine=20)
        canvas.paint(canvas.rod(side * 14, back - 30, 0, back - 21, lamina), arch)
    canvas.paint(canvas.rod(0, back - 22, 0, back - 2, spinous), arch - 60)
    canal = canvas.blob(0, back - 35.5, 11.5, 8.5, lumps=lumps)
    canvas.paint(canal, -20)
    canvas.paint(canal.grown(-1.8), 28, slow=1)


def draw_ribs(canvas: Canvas, patient: Patient) -> None:
    """Ribs 9 to 12 run down and forward in the wall: each slice cuts them as slanted ovals."""
    steep = 0.5  # mm downward per mm forward
    quarter = np.pi / 2 * np.hypot(patient.wall_x, patient.wall_y) / np.sqrt(2)  # arc from the back to the side, mm
    for head, length in ((48.0, 95.0), (76.0, 175.0), (104.0, 240.0), (132.0, 270.0)):
        forward = (head - canvas.z) / steep + 32  # arc length from the midline where the slice cuts the rib
        present = (forward > 34) & (forward < 34 + length)
        if not present.any():
            continue
        taper = np.clip((34 + length - forward) / 25, 0, 1) * np.clip((forward - 30) / 10, 0, 1)
        phi = np.pi / 2 * forward / quarter  # 0 at the back, pi/2 at the side
        for side in (-1, 1):
            x = side * (patient.wall_x - 6) * np.abs(np.sin(phi)) ** (2 / 2.3)
            y = (patient.wall_y - 6) * np.sign(np.cos(phi)) * np.abs(np.cos(phi)) ** (2 / 2.3)
            along = np.arctan2(-np.sin(phi) * patient.wall_y, side * np.cos(phi) * patient.wall_x)
            size = np.where(present, taper, 0)
            rib = canvas.blob(x, y, 11 * size, 4.2 * size, turn=along)
            canvas.paint(rib, 520)
            canvas.paint(rib.grown(-2.4), 230)


def draw_vessels(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    z, contrast, front = canvas.z, patient.contrast, patient.wall_y - 78
    calibre = rng.uniform(8.5, 12)
    aorta_x, aorta_y = 8 + rng.normal(0, 3) + wander(rng, z, 3, 160), front - calibre + 1
    cava_x, cava_y = -17 + wander(rng, z, 2, 160), front - 8 - 0.1 * np.clip(z, 0, 60)
    cava = canvas.blob(cava_x, cava_y, rng.uniform(11, 14), rng.uniform(7.5, 11.5), lumps=Lumps.draw(rng, 0.07))
    for kidney in patient.kidneys:  # renal veins and arteries, at the hila's height
        hilum_x = kidney.side * (kidney.x - 0.62 * kidney.half_thickness)
        hilum_y = kidney.y - np.sin(kidney.hilum) * 0.6 * kidney.half_thickness
        # The left vein passes in front of the aorta.
        turn_x, turn_y = (aorta_x, aorta_y - calibre - 4) if kidney.side > 0 else (cava_x, cava_y)
        near = np.sqrt(np.clip(1 - ((z - kidney.z - rng.uniform(-4, 8)) / 8) ** 2, 0, 1))
        sway = rng.normal(0, 5) + wander(rng, z, 5, 40)
        for radius, shift, end_x, end_y, hu in ((rng.uniform(2.8, 4.2), -3.0, turn_x, turn_y, "renal_vein"),
                                                (rng.uniform(1.6, 2.4), rng.uniform(2, 7), aorta_x, aorta_y, "aorta")):
            middle_x, middle_y = (hilum_x + end_x) / 2, (hilum_y + end_y) / 2 + shift + sway
            for x0, y0, x1, y1 in ((hilum_x, hilum_y + shift, middle_x, middle_y), (middle_x, middle_y, end_x, end_y)):
                canvas.paint(canvas.rod(x0, y0, x1, y1, radius * near), contrast[hu], slow=1)
            if kidney.side > 0 and hu == "renal_vein":
                canvas.paint(canvas.rod(end_x, end_y, cava_x, cava_y, radius * near), contrast[hu], slow=1)
    mixed = (contrast["vein"] + (contrast["renal_vein"] - contrast["vein"]) * smooth_step(z, -20, 25))
    canvas.paint(cava, mixed[cava.box[0], None, None].astype(np.float32), fine=3)
    aorta = canvas.blob(aorta_x, aorta_y, calibre, calibre, lumps=Lumps.draw(rng, 0.03))
    canvas.paint(aorta.grown(1.2), 45)
    canvas.paint(aorta, contrast["aorta"], slow=1)
    if rng.random() < 0.4:  # calcified plaque in part of the wall
        plaque = smooth_step(canvas.fine[aorta.box], 0.7, 1.8) * 2.2 - 1.2
        rim = Solid(aorta.box, np.abs(aorta.distance) - plaque, aorta.angle)
        canvas.paint(rim, rng.uniform(350, 650), slow=0)
    for x, y, radius, hu in ((6, front - 34, 3.4, "aorta"), (-7, front - 37, 5.2, "vein")):  # superior mesenteric
        canvas.paint(canvas.blob(x + wander(rng, z, 4), y + wander(rng, z, 3) + 0.12 * z, radius, radius),
                     contrast[hu], slow=0)


class KidneyFrame(NamedTuple):
    """A kidney's place and calibre in each slice (Z,)."""

    x: np.ndarray  # centre, mm
    y: np.ndarray
    profile: np.ndarray  # relative calibre, 0 beyond the poles
    hilar: np.ndarray  # closeness to the hilum, 0 to 1
    turn: float  # direction of the hilum, radians


def _kidney_frame(kidney: Kidney, z: np.ndarray) -> KidneyFrame:
    height = 2 * (z - kidney.z) / kidney.length  # -1 .. 1 from pole to pole
    profile = np.clip(1 - np.abs(height) ** 2.4, 0, None) ** 0.5
    return KidneyFrame(
        # The upper pole leans towards the spine and the back, as the psoas does.
        x=kidney.side * (kidney.x - 0.13 * (z - kidney.z)), y=kidney.y + 0.10 * (z - kidney.z), profile=profile,
        hilar=np.clip(1 - (height / 0.5) ** 2, 0, 1),
        turn=np.pi + kidney.hilum if kidney.side > 0 else -kidney.hilum)


def kidney_outline(canvas: Canvas, kidney: Kidney, rng: np.random.Generator) -> Solid:
    frame = _kidney_frame(kidney, canvas.z)
    # Thinner near the poles than in the middle; pressed in at the hilum.
    return canvas.blob(frame.x, frame.y, kidney.half_thickness * frame.profile,
                       kidney.half_width * frame.profile, turn=frame.turn, power=2.15,
                       lumps=Lumps.draw(rng, 0.03, orders=(2, 3, 4, 6)), dent=(0.42 * frame.hilar ** 0.7, 0.42),
                       margin=14)


def draw_kidney(canvas: Canvas, patient: Patient, kidney: Kidney, outline: Solid, rng: np.random.Generator) -> None:
    """Cortex, pyramids, sinus fat and pelvis within an outline."""
    contrast, frame = patient.contrast, _kidney_frame(kidney, canvas.z)
    canvas.paint(outline, contrast["cortex"], slow=3)
    # Pyramids: the medulla lies under the cortex and columns of cortex reach between them.
    count, z = rng.integers(5, 8), canvas.z[outline.box[0], None, None]
    bent = outline.angle + 0.35 * np.sin(outline.angle + rng.uniform(0, 6)) + 0.12 * canvas.fine[outline.box]
    pyramids = 0.5 + 0.5 * np.tanh(1.8 * np.cos(count * bent + rng.uniform(0, 6) + z / 9) + 0.9)
    pyramids = pyramids * (0.45 + 0.55 * np.clip(2 * frame.hilar[outline.box[0], None, None], 0, 1))
    medulla = contrast["cortex"] + (contrast["medulla"] - contrast["cortex"]) * pyramids.astype(np.float32)
    canvas.paint(outline.grown(-rng.uniform(5.5, 7.5)), medulla, slow=3)
    cos, sin, hilar = np.cos(frame.turn), np.sin(frame.turn), frame.hilar
    lumps = Lumps.draw(rng, 0.14)
    inside = canvas.whole(outline)

    def towards_hilum(part: float) -> tuple[np.ndarray, np.ndarray]:
        reach = part * kidney.half_thickness
        return frame.x + reach * cos, frame.y + reach * sin

    amount = (0.36 + 0.14 * patient.visceral_fat) * hilar**0.5
    sinus = canvas.blob(*towards_hilum(0.34), kidney.half_thickness * amount * 1.1, kidney.half_width * amount,
                        turn=frame.turn, lumps=lumps)
    canvas.paint(sinus.within(inside - 3), -75, slow=8, fine=14)
    pelvis = canvas.blob(*towards_hilum(0.42), kidney.half_thickness * 0.40 * hilar**0.5,
                         kidney.half_width * rng.uniform(0.10, 0.17) * hilar**0.5,
                         turn=frame.turn + rng.normal(0, 0.25), lumps=lumps)
    canvas.paint(pelvis, contrast["pelvis"], slow=1)
    for direction in (-1, 1):  # segmental vessels through the sinus
        x0, y0 = towards_hilum(0.75)
        x1, y1 = towards_hilum(0.25)
        side = direction * 0.24 * kidney.half_width
        canvas.paint(canvas.rod(x0, y0, x1 - side * sin, y1 + side * cos, 1.9 * hilar**0.5), contrast["renal_vein"],
                     slow=0)
