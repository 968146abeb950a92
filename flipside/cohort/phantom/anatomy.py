"""The phantom's anatomy: the trunk and the organs of the peritoneal cavity, then what lies behind it.

Coordinates as in `Canvas`: x towards the patient's left, y towards the back, z upward, mm; z = 0 near the second lumbar
vertebra. Heights and calibres follow adult anatomy; HU values follow the usual ranges of each contrast phase.
"""

from __future__ import annotations

import numpy as np

from flipside.cohort.phantom.canvas import FAT, GAS, Canvas, Lumps, Solid, smooth_step, wander
from flipside.cohort.phantom.patient import Patient
from flipside.cohort.phantom.retroperitoneum import draw_back, draw_kidney, draw_ribs, draw_vessels, kidney_outline


def draw_patient(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Paint one patient, later organs over earlier ones; returns the kidneys' mask (Z,H,W) bool."""
    cavity = _trunk(canvas, patient, rng)
    _mesentery(canvas, patient, rng)
    free = _liver_and_spleen(canvas, patient, rng, cavity)
    _stomach_and_pancreas(canvas, patient, rng, free)
    _bowel(canvas, patient, rng, free)
    outlines = [kidney_outline(canvas, kidney, rng) for kidney in patient.kidneys]
    for outline in outlines:
        # Perirenal fat keeps bowel and liver off the kidney; thin in a lean patient.
        margin = 2.5 + 8 * patient.visceral_fat * rng.uniform(0.6, 1.2)
        canvas.paint(outline.grown(margin).within(cavity), FAT, slow=5)
    draw_back(canvas, patient, rng)
    draw_ribs(canvas, patient)
    draw_vessels(canvas, patient, rng)
    mask = np.zeros(canvas.hu.shape, bool)
    for kidney, outline in zip(patient.kidneys, outlines, strict=True):
        draw_kidney(canvas, patient, kidney, outline, rng)
        mask[outline.box] |= outline.distance < 0
    return mask


def _trunk(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Table, skin, subcutaneous fat and muscular wall; returns the cavity's distance (Z,H,W) mm."""
    z, wall_x, wall_y = canvas.z, patient.wall_x, patient.wall_y
    back = wall_y + patient.fat_back
    if rng.random() < 0.75:  # the table: one or two thin shells under the patient
        for gap, hu in ((6, 120), (22, -150))[: rng.integers(1, 3)]:
            sag, half = rng.uniform(18, 34), rng.uniform(150, 210)
            for x0 in np.linspace(-half, half, 17)[:-1]:
                x1 = x0 + half / 8
                y0, y1 = (back + gap - sag * (x / half) ** 2 for x in (x0, x1))
                canvas.paint(canvas.rod(x0, y0, x1, y1, 2.2), hu, slow=0, fine=0)
    breadth = 1 + wander(rng, z, 0.012, 200)
    body_x = patient.body_half_width * breadth
    skin = canvas.blob(0, (patient.fat_back - patient.fat_front) / 2, body_x, patient.body_half_depth,
                       power=rng.uniform(2.05, 2.45), lumps=Lumps.draw(rng, 0.014))
    groove = canvas.rod(0, back + 9, 0, back + 30, rng.uniform(9, 14))  # over the spinous processes
    distance = canvas.whole(skin)
    distance = np.maximum(distance, -canvas.whole(groove))
    flat = canvas.y - (back - rng.uniform(0.1, 0.5) * patient.fat_back)  # the back pressed flat on the table
    distance = 4 * np.logaddexp(distance / 4, flat / 4)  # a maximum with a rounded edge, so that no corner shows
    slices, rows, columns = (slice(0, n) for n in canvas.hu.shape)
    everywhere = Solid((slices, rows, columns), distance, np.zeros(1, np.float32))
    canvas.paint(everywhere, 5.0, slow=0)  # skin
    canvas.paint(everywhere.grown(-2.2), FAT, slow=5, fine=5)

    wall = canvas.blob(0, 0, wall_x * breadth, wall_y, power=rng.uniform(2.15, 2.45), lumps=Lumps.draw(rng, 0.012))
    wall = wall.within(distance + 5)
    muscle = patient.contrast["muscle"]
    # 0 in front, pi/2 at the side, pi behind: the straight muscles in front are thinner and parted in the midline.
    from_front = np.abs(np.angle(np.exp(1j * (wall.angle + np.pi / 2)).astype(np.complex64)))
    straight = rng.uniform(0.45, 0.6)  # half-angle that the straight muscles take up
    thickness = (rng.uniform(4, 6) + rng.uniform(4, 7) * np.exp(-((from_front / straight) ** 4))
                 + rng.uniform(5, 11) * np.exp(-(((from_front - 1.45) / 0.55) ** 2)))
    thickness += 1.2 * np.clip(canvas.slow[wall.box], -2, 2)
    canvas.paint(wall, muscle, slow=3, fine=9)
    layers = 9 * np.exp(-((wall.distance + thickness * 0.5) / 1.5) ** 2)  # fat planes between the oblique muscles
    canvas.hu[wall.box] -= 4 * layers * (wall.distance < 0)
    cavity = Solid(wall.box, wall.distance + thickness.astype(np.float32), wall.angle)
    canvas.paint(cavity, FAT, slow=6, fine=7)
    midline = canvas.rod(0, -wall_y + 2, 0, -wall_y + 14, 2.5)
    canvas.paint(midline.within(canvas.whole(wall)), FAT)
    return canvas.whole(cavity)


def _mesentery(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Mesenteric and omental vessels: small dots and strands in the fat."""
    for _ in range(rng.integers(22, 40)):
        angle, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0.01, 1))
        x = reach * 75 * np.cos(angle) + wander(rng, canvas.z, 14, 60)
        y = -28 + reach * 42 * np.sin(angle) + wander(rng, canvas.z, 9, 60)
        length, turn = rng.uniform(0, 12), rng.uniform(0, np.pi)
        canvas.paint(canvas.rod(x, y, x + length * np.cos(turn), y + length * np.sin(turn), rng.uniform(0.9, 2.1)),
                     rng.choice([patient.contrast["vein"], patient.contrast["aorta"] * 0.8]), slow=0)


def _liver_and_spleen(canvas: Canvas, patient: Patient, rng: np.random.Generator, cavity: np.ndarray) -> np.ndarray:
    """Liver, gallbladder and spleen; returns the distance (Z,H,W) of the cavity that they leave free."""
    z, contrast = canvas.z, patient.contrast
    inner = cavity + 1.5  # a little fat under the wall
    tip = rng.uniform(-58, -12)
    grown = smooth_step(z, tip - 4, tip + rng.uniform(85, 110))
    a = np.where(z > tip, 9 + 62 * grown**0.8 * rng.uniform(0.9, 1.1), 0)
    b = np.where(z > tip, 17 + 60 * grown**0.7 * rng.uniform(0.9, 1.05), 0)
    lumps = Lumps.draw(rng, 0.05)
    right = canvas.blob(-(patient.wall_x - 10) + 0.86 * a, -2 - 12 * grown, a, b, turn=0.25 * grown, lumps=lumps)
    right = right.within(inner)
    canvas.paint(right, contrast["liver"], slow=4, fine=3)
    above = smooth_step(z, rng.uniform(14, 40), 90)
    left = canvas.blob(-12 + 20 * above, -patient.wall_y * 0.52, 60 * above, 36 * above, turn=0.25, power=2.2,
                       lumps=Lumps.draw(rng, 0.07)).within(inner)
    canvas.paint(left, contrast["liver"], slow=4, fine=3)
    vessels = canvas.whole(right) + 5
    for _ in range(rng.integers(6, 11)):  # portal and hepatic veins
        x, y = rng.uniform(-92, -25) + wander(rng, z, 16, 80), rng.uniform(-50, 35) + wander(rng, z, 12, 80)
        length, turn = rng.uniform(2, 26), rng.uniform(-1, 1)
        vein = canvas.rod(x, y, x + length * np.cos(turn), y + length * np.sin(turn), rng.uniform(1.6, 4.0))
        canvas.paint(vein.within(vessels), contrast["liver_vein"], slow=0)
    fissure = canvas.rod(-6, -patient.wall_y, -14, -0.52 * patient.wall_y, 1.8 * above)
    canvas.paint(fissure.within(inner), FAT)
    if rng.random() < 0.6:  # gallbladder, in the fossa under the right lobe
        low, size = rng.uniform(-25, 5), rng.uniform(11, 18)
        profile = np.sqrt(np.clip(1 - ((z - low - 28) / 30) ** 2, 0, 1))
        gallbladder = canvas.blob(-48 - 0.15 * z, -38, size * profile, 1.3 * size * profile,
                                  turn=rng.uniform(-0.5, 0.5), lumps=Lumps.draw(rng, 0.05)).within(inner)
        canvas.paint(gallbladder, contrast["muscle"] + 15)
        canvas.paint(gallbladder.grown(-2), rng.uniform(4, 16), slow=1)

    free = np.maximum(cavity, 3 - np.minimum(canvas.whole(right), canvas.whole(left)))
    profile = np.sqrt(smooth_step(z, rng.uniform(-22, 18), 75))
    spleen = canvas.blob(patient.wall_x - 29, 16, 25 * profile, rng.uniform(44, 54) * profile,
                         turn=rng.uniform(0.2, 0.45), lumps=Lumps.draw(rng, 0.06), dent=(0.28, 0.9)).within(inner)
    canvas.paint(spleen, contrast["spleen"], slow=4, fine=3)
    return np.maximum(free, 3 - canvas.whole(spleen))


def _hollow(canvas: Canvas, outline: Solid, wall_hu: float, wall_mm: float, content_hu: float, gas_above: np.ndarray,
            mottled: float = 2.0) -> None:
    """A hollow organ: wall, content, and gas in front of the level `gas_above` (y in mm)."""
    canvas.paint(outline, wall_hu, slow=3)
    lumen = outline.grown(-wall_mm)
    canvas.paint(lumen, content_hu, slow=4, fine=mottled)
    canvas.paint(canvas.above(lumen, gas_above), GAS, slow=0, fine=0)


def _stomach_and_pancreas(canvas: Canvas, patient: Patient, rng: np.random.Generator, free: np.ndarray) -> None:
    z, contrast, front = canvas.z, patient.contrast, patient.wall_y - 75
    inner = free + 2
    profile = np.sqrt(smooth_step(z, rng.uniform(-5, 25), 80))
    a, b = rng.uniform(34, 48) * profile, rng.uniform(24, 34) * profile
    y = -0.45 * patient.wall_y + wander(rng, z, 5)
    stomach = canvas.blob(42 + wander(rng, z, 8), y, a, b, turn=rng.uniform(-0.5, 0.2), lumps=Lumps.draw(rng, 0.07))
    _hollow(canvas, stomach.within(inner), contrast["bowel_wall"], 4.0, rng.uniform(5, 45),
            y - b * rng.uniform(-0.1, 0.9), mottled=rng.uniform(2, 14))

    # Pancreas: head beside the duodenum, body across the vessels, tail up towards the spleen.
    middle = rng.uniform(8, 24)
    nodes = [(-26, front - 18, -16), (-8, front - 30, 0), (22, front - 36, 7), (52, front - 22, 14)]
    for (x0, y0, z0), (x1, y1, z1) in zip(nodes, nodes[1:], strict=False):
        centre = middle + (z0 + z1) / 2
        radius = rng.uniform(7.5, 10) * np.sqrt(np.clip(1 - ((z - centre) / rng.uniform(14, 20)) ** 2, 0, 1))
        shift = wander(rng, z, 3)
        piece = canvas.rod(x0, y0 + shift, x1, y1 + shift, radius)
        piece = piece.grown(1.8 * canvas.fine[piece.box])  # lobulated
        canvas.paint(piece, contrast["pancreas"], fine=10)
    x, y = -39 + wander(rng, z, 5), front - 16 + wander(rng, z, 5)
    profile = smooth_step(z, -52, -34) * smooth_step(z, 48, 30)
    duodenum = canvas.blob(x, y, 13 * profile, 16 * profile, turn=rng.uniform(0, 3),
                           lumps=Lumps.draw(rng, 0.12)).within(inner)
    _hollow(canvas, duodenum, contrast["bowel_wall"], 3.0, rng.uniform(8, 35), y - rng.uniform(4, 20))


def _bowel(canvas: Canvas, patient: Patient, rng: np.random.Generator, free: np.ndarray) -> None:
    """Small bowel, then the colon's frame around it."""
    z, contrast, inner = canvas.z, patient.contrast, free + 2
    placed: list[tuple[float, float]] = []
    opacified = rng.random() < 0.15  # oral contrast in some scans
    for _ in range(90):
        x, y = rng.uniform(-0.55, 0.62) * patient.wall_x, rng.uniform(-0.72, 0.05) * patient.wall_y
        gap = 20 + 10 * patient.visceral_fat
        if len(placed) >= 13 or any(np.hypot((x - px) * 0.8, y - py) < gap for px, py in placed):
            continue
        placed.append((x, y))
        top = rng.uniform(-5, 45) - 0.25 * x
        bottom = top - rng.uniform(45, 130)
        profile = np.sqrt(smooth_step(z, top, top - 14) * smooth_step(z, bottom, bottom + 14))
        radius = rng.uniform(9, 13)
        cy = y + wander(rng, z, 7, 55)
        loop = canvas.blob(x + wander(rng, z, 11, 55), cy, radius * rng.uniform(1.0, 2.1) * profile, radius * profile,
                           turn=rng.uniform(0, np.pi) + wander(rng, z, 0.5), lumps=Lumps.draw(rng, 0.13)).within(inner)
        gas = cy - radius * (rng.uniform(-0.3, 0.6) if rng.random() < 0.22 else 3)
        content = rng.uniform(180, 320) if opacified and rng.random() < 0.6 else rng.uniform(12, 42)
        _hollow(canvas, loop, contrast["bowel_wall"], rng.uniform(2.0, 3.2), content, gas, mottled=6)
    frame = [  # x, y, lowest and highest z: ascending, descending and transverse colon
        (-(patient.wall_x - 36), rng.uniform(-14, 8), -120, rng.uniform(-30, 0)),
        (patient.wall_x - 33, rng.uniform(-6, 14), -120, rng.uniform(20, 70)),
        (rng.uniform(-55, -35), -0.62 * patient.wall_y, rng.uniform(-60, -30), rng.uniform(0, 30)),
        (rng.uniform(-5, 15), -0.66 * patient.wall_y, rng.uniform(-70, -35), rng.uniform(-5, 25)),
        (rng.uniform(45, 70), -0.58 * patient.wall_y, rng.uniform(-50, -15), rng.uniform(15, 60)),
    ]
    for number, (x, y, low, high) in enumerate(frame):
        radius = rng.uniform(13, 19) if number != 1 else rng.uniform(9, 15)
        profile = np.sqrt(smooth_step(z, low, low + 16) * smooth_step(z, high, high - 16))
        # Haustra: the calibre swells and shrinks along the colon.
        profile = profile * (1 + 0.16 * np.sin(z / rng.uniform(5, 9) + rng.uniform(0, 6)))
        cy = y + wander(rng, z, 5)
        long = rng.uniform(1.3, 1.9) if number > 1 else rng.uniform(0.9, 1.2)
        colon = canvas.blob(x + wander(rng, z, 5), cy, radius * long * profile, radius * profile,
                            turn=rng.uniform(-0.4, 0.4), lumps=Lumps.draw(rng, 0.11)).within(inner)
        stool = rng.random() < 0.55
        gas = cy + radius * (rng.uniform(-1.2, -0.3) if stool else rng.uniform(-0.7, 0.8))
        _hollow(canvas, colon, contrast["bowel_wall"] - 5, 2.6, -40 if stool else 25, gas, mottled=75 if stool else 6)
