"""The ranked table for terminal, Markdown and HTML, and the sentences that answer the question."""

from __future__ import annotations

from flipside.masks.extraction.thresholds import POLICIES
from flipside.metrics.families.foreign import FILES
from flipside.metrics.families.supervision import STRONG, UPPER_BOUND
from flipside.metrics.registry import METRICS, count, higher_is_better, label, metrics_in
from flipside.metrics.statistics import COVERAGE_OF_95
from flipside.report.badges import badge, is_from_files, is_upper_bound
from flipside.report.trainings import EMPTY, Series, Trainings, do_not_overlap

Metrics = dict[str, dict[str, float]]  # {method: {metric: value}}, the content of reports/metrics.json
MISSING = "–"
ONE_TRAINING = ("Intervals are over patients, of models that were trained once: another training, even the same one on "
                "another machine, may come out further off than they say.")
UNCHANGED = "†"  # stands behind a method whose map does not depend on the classifier's weights
DESTROYS = "‡"  # stands behind a method that flips by destroying the image
TABLE, TERMINAL = metrics_in("ranking"), metrics_in("terminal")


def ranking(metrics: Metrics, rank_by: str) -> list[str]:
    """Methods, best first by `rank_by` in its own direction, ties by name; then methods without the metric, then those
    that are an upper bound.

    A method that flips by destroying the image comes behind all others that have the metric where that buys it, and
    behind its equals anywhere.
    Raises ValueError, naming what there is, when no method has it.
    """
    if not any(rank_by in values for values in metrics.values()):
        known = sorted({name for values in metrics.values() for name in values})
        raise ValueError(f"`report.rank_by` is {rank_by!r}, which no method in reports/metrics.json has; "
                         f"choose one of: {', '.join(known)}")
    sign = -1 if higher_is_better(rank_by) else 1
    bought = rank_by in METRICS and METRICS[rank_by].bought

    def key(method: str) -> tuple:
        value, destroys = metrics[method].get(rank_by), destroys_image(metrics[method])
        return (is_upper_bound(metrics[method]), value is None, bought and destroys,
                0.0 if value is None else sign * value, destroys, method)

    return sorted(metrics, key=key)


def placed(metrics: Metrics, rank_by: str) -> dict[str, str]:
    """{method: its place}, in the order of `ranking`; an upper bound has none."""
    return {method: MISSING if is_upper_bound(metrics[method]) else str(place)
            for place, method in enumerate(ranking(metrics, rank_by), start=1)}


def columns(rank_by: str, of: list[str]) -> list[str]:
    """The metric that ranks first, then the other columns in their order."""
    return [rank_by, *(name for name in of if name != rank_by)]


def number(value: float | None) -> str:
    """Three decimals, or 1.4e-35 where they would all be 0; whole numbers without; an en dash for what is missing."""
    if value is None:
        return MISSING
    if isinstance(value, int):
        return str(value)
    return f"{value:.1e}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"


def interval(values: dict[str, float], metric: str) -> tuple[float, float] | None:
    """The bootstrap interval that stands beside a metric, if any."""
    low, high = values.get(f"{metric}_ci_low"), values.get(f"{metric}_ci_high")
    return None if low is None or high is None else (low, high)


def spread_text(trainings: Trainings, series: Series, method: str, metric: str) -> str:
    """Mean, least and greatest value over the trainings of a series; empty where no training reaches the method."""
    spread = trainings.spread(series, method, metric)
    return "" if spread is None else f"{number(spread.mean)} [{number(spread.low)} to {number(spread.high)}]"


def markdown_cell(metrics: Metrics, method: str, metric: str, trainings: Trainings, first: bool) -> str:
    """A number with its intervals: over patients in the first column, over patients and trainings in all of them where
    there are repetitions."""
    text, bounds = number(metrics[method].get(metric)), interval(metrics[method], metric)
    if bounds and (first or trainings.series):
        text += f" ({number(bounds[0])} to {number(bounds[1])})"
    further = spread_text(trainings, "generators", method, metric)
    return f"{text}<br>mean {further}" if further else text


def one_or_several(trainings: Trainings, ignored: str = "") -> str:
    """What the intervals of a table are over; `ignored`: why repetitions that were found don't count."""
    if not (n := trainings.count("generators")):
        return f"{ONE_TRAINING} {ignored}".rstrip()
    return (f"In round brackets: intervals over patients. Below them: the mean, and in square brackets the least and "
            f"the greatest value, of {n} trainings of the generators with other seeds, the run's own among them; a "
            f"method without these has no generator. The range of {n} trainings is no interval of confidence: further "
            "ones may well lie outside.")


def markdown_table(metrics: Metrics, rank_by: str, controls: list[str], note: str, trainings: Trainings = EMPTY,
                   ignored: str = "") -> str:
    """reports/metrics.md: one line on what was run, the ranked table, its legend. The same input, the same bytes.

    `ignored`: why repetitions that were found don't count.
    """
    names = columns(rank_by, TABLE)
    header = ["#", "method", *(f"{label(name)} {'↑' if higher_is_better(name) else '↓'}" for name in names), "n"]
    lines = ["# Ranking", "", note, "", _row(header), _row(["---:", "---", *["---:"] * (len(names) + 1)])]
    for method, place in placed(metrics, rank_by).items():
        values = metrics[method]
        name = method.replace("|", "\\|") + badge(method, values, controls, " *({})*") + mark(values)
        lines.append(_row([place, name, *(markdown_cell(metrics, method, metric, trainings, metric == rank_by)
                                          for metric in names), _counted(values, rank_by)]))
    lines += ["", f"Ranked by {label(rank_by)}, with its interval; n: test slices that it rests on. ↑ more is better, "
              f"↓ less is better. {MISSING}: the method has no such number.", "",
              one_or_several(trainings, ignored), ""]
    if told := policies(metrics):
        lines += ["Masks: " + "; ".join(f"`{name}`: {text}" for name, text in told.items()) + ".", ""]
    for text in warnings(metrics):
        lines += [text, ""]
    return "\n".join(lines)


def is_unchanged(values: dict[str, float]) -> bool:
    """Whether a method's map stays the same when the classifier's weights are shuffled; False where not checked."""
    return values.get("sanity_randomisation_passed") == 0


def destroys_image(values: dict[str, float]) -> bool:
    """Whether most of a method's flips change the slice beyond the bound; False without flips."""
    return values.get("flips_beyond_bound", 0) > 0.5


def is_strongly_supervised(metrics: Metrics) -> bool:
    """Whether the run's classifier was shown lesion masks."""
    return any(values.get("strongly_supervised") for values in metrics.values())


def mark(values: dict[str, float]) -> str:
    """The signs that stand behind a method's name, each after a space; `warnings` says what they mean."""
    return (f" {UNCHANGED}" if is_unchanged(values) else "") + (f" {DESTROYS}" if destroys_image(values) else "")


def warnings(metrics: Metrics) -> list[str]:
    """What a reader must know before believing the table: lesion masks that were seen, marked methods, unchecked ones,
    intervals on few patients."""
    checked = [values for values in metrics.values() if "sanity_randomisation_passed" in values]
    unchecked = [method for method, values in metrics.items()
                 if "sanity_randomisation_passed" not in values and not is_from_files(values)]
    lines = [STRONG] if is_strongly_supervised(metrics) else []
    if bounds := [method for method, values in metrics.items() if is_upper_bound(values)]:
        lines.append(f"{', '.join(bounds)}: {UPPER_BOUND}")
    if files := [method for method, values in metrics.items() if is_from_files(values)]:
        lines.append(f"{', '.join(files)}: {FILES}")
    if any(map(is_unchanged, checked)):
        lines.append(f"{UNCHANGED}: does not depend on the classifier's weights; the map stays the same when they are "
                     "shuffled, so it explains nothing of this classifier.")
    destroying = [f"{method} ({round(values['flips_beyond_bound'] * values['n_flips_beyond_bound'])} of "
                  f"{values['n_flips_beyond_bound']})" for method, values in metrics.items() if destroys_image(values)]
    if destroying:
        lines.append(f"{DESTROYS}: flips, but by destroying the image; so many changes of its flips exceed the bound: "
                     f"{', '.join(destroying)}.")
    if checked and unchecked:
        lines.append(f"Not put to that test: {', '.join(unchecked)}, whose generator would have to be trained again.")
    return lines + few_patients(metrics)


def few_patients(metrics: Metrics) -> list[str]:
    """What intervals over patients are worth where there are few of them; nothing where there are enough."""
    patients = next((values["n_patients"] for values in metrics.values() if "n_patients" in values), None)
    if patients is None or patients not in COVERAGE_OF_95:
        return []
    low, high = COVERAGE_OF_95[int(patients)]
    return [f"The intervals over patients rest on only {patients}, and are too narrow: in simulations with so few "
            f"patients a nominal 95 % interval held the true mean in {100 * low:.0f} to {100 * high:.0f} % of cases."]


def policies(metrics: Metrics) -> dict[str, str]:
    """The threshold policies, what each means and what it costs; none without lesion masks."""
    values = next(iter(metrics.values()), {})
    if "n_cases" not in values:
        return {}
    told: dict[str, str] = {str(name): text for name, text in POLICIES.items()}
    if used := values.get("n_val_lesions"):
        told["val"] = told["val"].replace("the lesion masks", f"{used} lesion masks")
    return told


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _counted(values: dict[str, float], rank_by: str) -> str:
    n = count(values, rank_by)
    return MISSING if n is None else str(n)


def plain_table(metrics: Metrics, rank_by: str, controls: list[str], trainings: Trainings = EMPTY) -> str:
    """The ranked table for a terminal, fixed width; over trainings only the ranking metric's range."""
    names = [name for name in columns(rank_by, TERMINAL) if any(name in values for values in metrics.values())]
    n = trainings.count("generators")
    repeated = [f"{n} trainings"] if n else []
    rows = [["#", "method", label(names[0]), "interval", *repeated, *map(label, names[1:]), "n"]]
    for method, place in placed(metrics, rank_by).items():
        values = metrics[method]
        bounds = interval(values, rank_by)
        name = method + badge(method, values, controls, " ({})") + mark(values)
        spread = trainings.spread("generators", method, rank_by)
        rows.append([
            place, name, number(values.get(rank_by)),
            f"{bounds[0]:.3f}..{bounds[1]:.3f}" if bounds else MISSING,
            *([f"{spread.low:.3f}..{spread.high:.3f}" if spread else MISSING] if repeated else []),
            *(number(values.get(name)) for name in names[1:]), _counted(values, rank_by),
        ])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) if i == 1 else cell.rjust(width)
                       for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *(f"\n{text}" for text in warnings(metrics))])


def leader(metrics: Metrics, rank_by: str, controls: list[str]) -> list[str]:
    """Which method ranks first of those that are no controls, whether a control beats it, and which comes next."""
    order = _ranked(metrics, rank_by)
    methods = [method for method in order if method not in controls]
    if not methods:
        return [f"No method besides the controls has {label(rank_by)}."]
    sentences = [f"{methods[0]} is first of {len(methods)} methods by {label(rank_by)}: "
                 f"{_stated(metrics[methods[0]], rank_by)}."]
    if order[0] in controls:
        sentences = [f"No method beats the controls by {label(rank_by)}.",
                     f"The best method is {methods[0]}: {_stated(metrics[methods[0]], rank_by)}."]
    if is_unchanged(metrics[methods[0]]):
        sentences.append("Its maps stay the same when the classifier's weights are shuffled, so they explain nothing "
                         "of this classifier.")
    if destroys_image(metrics[methods[0]]):
        sentences.append("Most of its flips destroy the image: their changes exceed the bound.")
    if len(methods) > 1:
        sentences.append(f"Next is {methods[1]}, {number(metrics[methods[1]][rank_by])}: "
                         + _apart(metrics[methods[0]], metrics[methods[1]], rank_by))
    return sentences


def against_control(metrics: Metrics, rank_by: str, controls: list[str]) -> list[str]:
    """The best control beside the best method."""
    order = _ranked(metrics, rank_by)
    best = next((method for method in order if method not in controls), None)
    control = next((method for method in order if method in controls), None)
    if control is None:
        return ["No control was run beside it."]
    sentences = [f"The best control, {control}, reaches {_stated(metrics[control], rank_by)}"]
    if best is None:
        return [sentences[0] + "."]
    return [f"{sentences[0]}: {_apart(metrics[best], metrics[control], rank_by)}"]


def answer(metrics: Metrics, rank_by: str, controls: list[str]) -> list[str]:
    """The result in a few sentences: the best method, the next one, the best control, how sure the differences are."""
    return [*leader(metrics, rank_by, controls), *against_control(metrics, rank_by, controls)]


def _ranked(metrics: Metrics, rank_by: str) -> list[str]:
    return [method for method in ranking(metrics, rank_by)
            if rank_by in metrics[method] and not is_upper_bound(metrics[method])]


def _apart(ours: dict[str, float], others: dict[str, float], metric: str) -> str:
    """How sure the difference of two methods is, as the end of a sentence: by the paired difference where one of them
    is the reference (the one without a difference to it), else by whether their intervals overlap."""
    paired = f"{metric}_difference"
    for values, sign in ((others, 1), (ours, -1)):
        if (bounds := interval(values, paired)) and paired not in (ours if values is others else others):
            low, high = sorted(sign * bound for bound in bounds)
            difference = sign * values[paired]
            told = (f"{number(abs(difference))} {'less' if difference < 0 else 'more'} in pairs of the same slices "
                    f"(interval of the difference {low:+.3f} to {high:+.3f})")
            return f"{told}, which may be chance." if low <= 0 <= high else f"{told}."
    first, second = interval(ours, metric), interval(others, metric)
    if not first or not second:
        return "no intervals to compare."
    if do_not_overlap(first, second):
        return "the intervals do not overlap."
    return "the intervals overlap, the difference may be chance."


def _stated(values: dict[str, float], metric: str) -> str:
    bounds = interval(values, metric)
    details = [f"interval {bounds[0]:.3f} to {bounds[1]:.3f}"] if bounds else []
    details += [f"n = {n}"] if (n := count(values, metric)) is not None else []
    return number(values[metric]) + (f" ({', '.join(details)})" if details else "")


def known_metrics(metrics: Metrics) -> list[str]:
    """Every name that a method has: the registry's metrics in its order, then the rest by name."""
    found = {name: None for values in metrics.values() for name in values}
    return [*(name for name in METRICS if name in found), *sorted(name for name in found if name not in METRICS)]
