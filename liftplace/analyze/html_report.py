"""The report of an analysis: its pictures and tables, as PNGs and as one HTML file."""

import math
import re
from pathlib import Path

from torch import Tensor

from liftplace.analyze import error_plots, score_plots
from liftplace.analyze.analysis import Analysis, ModelErrors, PropagatedErrors, Samples
from liftplace.analyze.maps import save_maps
from liftplace.analyze.propagation import coarse_share, in_half, moved_by
from liftplace.models.norms import Norms
from liftplace.plots import html

PAGE = "report.html"
HEADINGS = {
    "errors": "The error and its parts",
    "carried": "What reaches the image",
    "explained": "What linear fits explain",
    "slopes": "Slopes and intercepts",
    "weights": "The adaptive weight",
    "samples": "Samples",
    "distances": "Distances to real images",
    "capacity": "The capacity gap",
}
CAPTIONS = {
    "errors": "How far a student's output s is from its teacher's t on real noised images. Each "
    "row, {row}, has its own linear fit a + b s of t. Coarse: what the fit removes, the mean of "
    "(a + b s − s)². Fine: what it leaves, the mean of (a + b s − t)². Total, mean of (t − s)², "
    "is their sum. Right: the same over the mean of t². All students of a column on one scale. "
    "Grey: the noisier half of the timesteps.",
    "carried": "By how much the error at each of the {steps} steps of sampling moves the image, "
    "whose pixels go from −1 to 1, if no other step errs: the root mean square of the error times "
    "the step's factor, a closed form of the noise schedule and the sampler. Nothing is clipped, "
    "and what the models make of a sample that has moved is left out: compare students, parts and "
    "timesteps, and take no number for what happens. Grey: the noisier half of the timesteps.",
    "explained": "The share of the error that linear fits remove, 1 − residual / total. LIFT fits "
    "{row}; PLACE fits each group. PLACE's groups are sorted by the error itself, which "
    "only one who knows the teacher's output can do, so its share is a bound on what such fits can "
    "remove and no measure of a student. Smaller groups explain more; one of a whole row is LIFT.",
    "slopes": "The fit a + b s of t. Lines: the median over the images. {spread}A student that "
    "agrees with its teacher up to noise has b = 1 and a = 0, the dotted lines; b above 1 means "
    "that the teacher's output varies more than the student's. Outliers may leave the panel.",
    "weights": "The weight w = 1 − min(1, mean |b − 1| + |a|) that LIFT and PLACE would give the "
    "fine term, had a batch this timestep alone. Near 0 only the coarse term would train; near 1 "
    "both have their full weight.",
    "samples": "Samples of the models; images of one column start from the same noise. Corrected: "
    "at every denoising step the student's output s is replaced by a + b s. Teacher's path: "
    "one a and b for each step and channel, fitted over all the teacher's samples, as in the "
    "paper; with these few numbers the student samples without the teacher. Own samples: "
    "fitted to the teacher's output for every row, {row}, there and then, so that it needs the "
    "teacher: it shows what removing all of the coarse error would give, and is no way to sample.",
    "distances": "Distances of {count} samples to real images, on features of {network}"
    "{components}. Points: the score; bars: its 95 % interval, which says nothing of another "
    "training run. Dotted: as many other real images, where there are enough; a model near it "
    "cannot be told from real images by this score.",
    "capacity": "The students by size; the numbers are those of the table. Errors: means over each "
    "half of the timesteps.{distances} Students of one size are not joined.",
}
MAPS = (
    "Where this student differs from its teacher, from little noise to much. Above each column: "
    "the timestep, and the share of the error that LIFT's fit explains. Bright errors are large, "
    "on a logarithmic scale of four decades. PLACE group: 0 holds the smallest errors of a row. "
    "All students' maps are on one scale."
)


def write_report(analysis: Analysis, folder: Path) -> dict[str, Path]:
    """Write the pictures and report.html into a folder that exists.

    Returns:
        The files by name: "report", "errors", "maps-LABEL" and so on.
    """
    students = analysis.students
    names = ("errors", "carried", "explained", "slopes", "weights")
    files = {name: folder / f"{name}.png" for name in names}
    error_plots.save_errors(students, analysis.noisy, files["errors"])
    error_plots.save_propagated(students, analysis.noisy, files["carried"])
    error_plots.save_explained(students, files["explained"])
    error_plots.save_slopes(students, files["slopes"])
    error_plots.save_weights(students, files["weights"])
    if analysis.teacher_samples:
        files |= {name: folder / f"{name}.png" for name in ("samples", "distances")}
        score_plots.save_samples(analysis, files["samples"])
        score_plots.save_distances(analysis, files["distances"])
    if score_plots.differ_in_size(students):
        files["capacity"] = folder / "capacity.png"
        score_plots.save_capacity(analysis, files["capacity"])
    maps = {name: folder / f"{name}.png" for name in map_names(analysis)}
    for student, path in zip(students, maps.values(), strict=True):
        save_maps(student.maps, path, beside=[each.maps for each in students])
    (folder / PAGE).write_text(page(analysis, files, maps), encoding="utf-8")
    return files | maps | {"report": folder / PAGE}


def map_names(analysis: Analysis) -> list[str]:
    """Names of the students' maps that can be files, and differ also where case does not count."""
    names: list[str] = []
    for number, student in enumerate(analysis.students, start=1):
        name = f"maps-{re.sub(r'[^A-Za-z0-9._-]+', '-', student.label)}"
        taken = {each.lower() for each in names}
        names.append(f"{name}-{number}" if name.lower() in taken else name)
    return names


def page(analysis: Analysis, files: dict[str, Path], maps: dict[str, Path]) -> str:
    """The report as one HTML file without scripts, pictures inside."""
    labels = ", ".join(student.label for student in analysis.students)
    parts = [html.heading("Advice"), html.lines(advice_lines(analysis))]
    parts += [html.heading("Summary"), html.table(summary(analysis)), html.note(_about(analysis))]
    for name, picture in files.items():
        alt = f"{HEADINGS[name]}: {_ALTS[name]} of {labels}"
        parts += [
            html.heading(HEADINGS[name]),
            html.figure(picture, alt=alt, caption=_caption(name, analysis)),
        ]
    parts.append(html.heading("Maps"))
    for student, picture in zip(analysis.students, maps.values(), strict=True):
        alt = f"Maps of errors and of PLACE's groups over the timesteps, of {student.label}"
        parts.append(html.figure(picture, alt=alt, caption=f"{student.label}. {MAPS}"))
    parts.append(html.heading("Numbers by timestep"))
    for student in analysis.students:
        parts.append(html.folded(student.label, html.table(timestep_table(student.errors))))
        steps = html.table(step_table(student.carried))
        parts.append(html.folded(f"{student.label}, carried into the image", steps))
    return html.page(f"Students of {analysis.teacher}: {labels}", "Students and teacher", parts)


_ALTS = {
    "errors": "curves of the total, coarse and fine error over the timesteps",
    "carried": "curves of what the errors move the image by over the steps of sampling",
    "explained": "curves of the share of the error that LIFT and PLACE explain over the timesteps",
    "slopes": "curves of slope and intercept by channel over the timesteps",
    "weights": "curves of the adaptive weight over the timesteps",
    "samples": "rows of images of the teacher, and plain and corrected ones",
    "distances": "points with intervals for the teacher, and for plain and corrected samples",
    "capacity": "errors and distances over the number of parameters",
}


def _about(analysis: Analysis) -> str:
    errors = analysis.students[0].errors
    return (
        f"Errors: over {errors.num_images:,} real images noised at {len(errors.timesteps)} "
        "timesteps. The first of two numbers is of the noisier half of the timesteps, the second "
        "of the others: means over the half, and shares of these means. A row of a fit: "
        f"{_row(analysis)}, {analysis.elements:,} elements. Moves the image by: the root of the "
        "sum of squares over the half's steps of sampling. The gap is the largest "
        "|total − coarse − fine| / total of a timestep, which only rounding may cause."
    )


def _row(analysis: Analysis) -> str:
    return "an image" if analysis.scope == "sample" else "one channel of an image"


def _caption(name: str, analysis: Analysis) -> str:
    banded = analysis.students[0].errors.slope.shape[1] <= error_plots.BANDS
    components = analysis.num_components
    words = {
        "row": _row(analysis),
        "spread": "Bands: from the 10th to the 90th percentile. " if banded else "",
        "count": f"{analysis.num_samples:,}",
        "network": analysis.network,
        "components": f" ({components} principal components in the Fréchet distance)"
        if components
        else "",
        "steps": str(analysis.num_inference_steps),
        "distances": " Right: the distance of the samples, with intervals; dashed: the teacher's."
        if analysis.teacher_samples
        else "",
    }
    few = f" {analysis.few_images}." if name == "distances" and analysis.few_images else ""
    return CAPTIONS[name].format(**words) + few


def advice_lines(analysis: Analysis) -> list[str]:
    """A line for each student."""
    return [
        f"{number}  {student.label}: {student.advice.text}"
        for number, student in enumerate(analysis.students, start=1)
    ]


def summary(analysis: Analysis) -> list[list[str]]:
    """A header and a row a quantity; a column for the teacher and each student."""
    students = analysis.students
    names = [f"{number}  {each.label}" for number, each in enumerate(students, start=1)]
    rows = [["", "teacher", *names]]
    sizes = [(analysis.teacher_parameters, analysis.teacher_macs)]
    sizes += [(each.parameters, each.macs) for each in students]
    rows.append(["parameters", *(f"{parameters:,}" for parameters, _ in sizes)])
    rows.append(["share of the teacher", *(_percent(each[0], sizes[0][0]) for each in sizes)])
    rows.append(["MACs", *(f"{macs / 1e6:,.2f} M" for _, macs in sizes)])
    rows.append(["predicts", PREDICTIONS[analysis.prediction_type], *([""] * len(students))])
    norms = [analysis.teacher_norms, *(each.norms for each in students)]
    rows.append(["norms that lose the mean", *map(_lost, norms)])
    of_students = [_of_halves(analysis, number) for number in range(len(students))]
    rows += [[name, "", *(each[name] for each in of_students)] for name in of_students[0]]
    rows.append(["gap", "", *(f"{each.errors.identity_gap:.0e}" for each in students)])
    if analysis.teacher_samples:
        for place, score in enumerate(analysis.teacher_samples.scores):
            if score.floor is not None:
                floor = f"{score.floor:.4g}"
                rows.append([f"{score.name}, real / real", floor, *([floor] * len(students))])
            of_teacher = _score(analysis.teacher_samples, place)
            for kind, name in score_plots.KIND_NAMES.items():
                values = [_score(getattr(each, kind), place) for each in students]
                first = (
                    [score.name, of_teacher] if kind == "plain" else [f"{score.name}, {name}", ""]
                )
                rows.append([*first, *values])
    return rows


PREDICTIONS = {
    "epsilon": "noise",
    "v_prediction": "v",
    "sample": "the image",
    "flow": "the flow's velocity",
}


def _lost(norms: Norms | None) -> str:
    if norms is None:
        return "no group norms"
    last = ", the last too" if norms.last_forgets else ""
    return f"{norms.forgetting} of {norms.count}{last}"


def _of_halves(analysis: Analysis, number: int) -> dict[str, str]:
    """Rows of the table: a student's errors in both halves of the timesteps."""
    student = analysis.students[number]
    errors, propagated, noisy = student.errors, student.carried, analysis.noisy
    halves = [in_half(errors, noisy, noisier) for noisier in (True, False)]
    steps = [in_half(propagated, noisy, noisier) for noisier in (True, False)]
    where = f"t > {noisy:g} / below"
    rows = {}
    for part in ("total", "coarse", "fine"):
        means = [getattr(errors, part)[which].mean().item() for which in halves]
        rows[f"{part} error, {where}"] = " / ".join(map(_number, means))
    shares = [explained(errors, which) for which in halves]
    for name in shares[0]:
        label = f"coarse share ({name} explains)" if name == "LIFT" else f"{name} explains"
        rows[f"{label}, {where}"] = " / ".join(_percent(share[name], 1) for share in shares)
    for part in ("coarse", "fine"):
        moved = [moved_by(getattr(propagated, part), which) for which in steps]
        rows[f"{part} error moves the image by, {where}"] = " / ".join(map(_number, moved))
    in_image = [_percent(coarse_share(propagated, which), 1) for which in steps]
    rows[f"coarse share of what is carried, {where}"] = " / ".join(in_image)
    return rows


def explained(errors: ModelErrors, which: Tensor) -> dict[str, float]:
    """Share of the error over these timesteps that each kind of fit explains, in [0, 1]; NaN where
    there is no error. `which`: (timesteps,), bool."""
    fines = {"LIFT": errors.fine}
    sizes = zip(errors.group_sizes, errors.place_fine, strict=True)
    fines |= {f"PLACE {size}": fine for size, fine in sizes}
    total = errors.total[which].sum().item()
    return {
        name: 1 - fine[which].sum().item() / total if total > 0 else math.nan
        for name, fine in fines.items()
    }


def step_table(propagated: PropagatedErrors) -> list[list[str]]:
    """A header and a row a step of sampling."""
    rows = [["timestep", "factor", "coarse moves by", "fine moves by", "coarse share"]]
    columns = zip(
        propagated.timesteps, propagated.factor, propagated.coarse, propagated.fine, strict=True
    )
    for timestep, factor, coarse, fine in columns:
        moved = [_number(part.sqrt().item()) for part in (coarse, fine)]
        share = _percent(coarse.item(), (coarse + fine).item())
        rows.append([f"{timestep.item():g}", _number(factor.item()), *moved, share])
    return rows


def timestep_table(errors: ModelErrors) -> list[list[str]]:
    """A header and a row a timestep."""
    places = [f"PLACE {size}" for size in errors.group_sizes]
    header = ["timestep", "mean t²", "total", "coarse", "fine", "LIFT explains"]
    header += [f"{name} explains" for name in places]
    rows = [[*header, "w of LIFT", *(f"w of {name}" for name in places)]]
    parts = zip(errors.power, errors.total, errors.coarse, errors.fine, strict=True)
    for index, (timestep, values) in enumerate(zip(errors.timesteps, parts, strict=True)):
        fines = [errors.fine[index], *errors.place_fine[:, index]]
        weights = [errors.lift_weight[index], *errors.weight[:, index]]
        total = errors.total[index].item()
        shares = [_percent(total - fine.item(), total) for fine in fines]
        numbers = [f"{timestep.item():g}", *(f"{value.item():.4g}" for value in values)]
        rows.append([*numbers, *shares, *(f"{weight.item():.3f}" for weight in weights)])
    return rows


def _score(samples: Samples, place: int) -> str:
    score = samples.scores[place]
    if score.low is None:
        return f"{score.value:.4g}"
    return f"{score.value:.4g} ({score.low:.4g}\u00a0to\u00a0{score.high:.4g})"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def _percent(part: float, whole: float) -> str:
    share = 100 * part / whole if whole else math.nan
    return "–" if math.isnan(share) else f"{share:.1f} %"
