"""The report of an analysis: its pictures and tables, as PNGs and as one HTML file."""

import math
import re
from pathlib import Path

from liftplace.analyze import drawings, html, score_drawings
from liftplace.analyze.analysis import Analysis, Errors, Samples
from liftplace.analyze.maps import save_maps

PAGE = "report.html"
HEADINGS = {
    "errors": "The error and its parts",
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
    "is their sum. Right: the same over the mean of t². All students of a column on one scale.",
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
    "at every denoising step the student's output s is replaced by a + b s, fitted to the "
    "teacher's output at that sample and step. It needs the teacher: it shows what removing the "
    "coarse error alone would give, and is no way to sample.",
    "distances": "Distances of {count} samples to real images, on features of {network}"
    "{components}. Points: the score; bars: its 95 % interval, which says nothing of another "
    "training run. Dotted: as many other real images, where there are enough; a model near it "
    "cannot be told from real images by this score.",
    "capacity": "The students by size; the numbers are those of the table. Left: means over the "
    "timesteps.{distances} Students of one size are not joined.",
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
    files = {name: folder / f"{name}.png" for name in ("errors", "explained", "slopes", "weights")}
    drawings.save_errors(students, files["errors"])
    drawings.save_explained(students, files["explained"])
    drawings.save_slopes(students, files["slopes"])
    drawings.save_weights(students, files["weights"])
    if analysis.teacher_samples:
        files |= {name: folder / f"{name}.png" for name in ("samples", "distances")}
        score_drawings.save_samples(analysis, files["samples"])
        score_drawings.save_distances(analysis, files["distances"])
    if score_drawings.differ_in_size(students):
        files["capacity"] = folder / "capacity.png"
        score_drawings.save_capacity(analysis, files["capacity"])
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
    parts = [html.heading("Summary"), html.table(summary(analysis)), html.note(_about(analysis))]
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
    return html.page(f"Students of {analysis.teacher}: {labels}", "Students and teacher", parts)


_ALTS = {
    "errors": "curves of the total, coarse and fine error over the timesteps",
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
        f"timesteps; means over the timesteps, shares of these means. A row of a fit: "
        f"{_row(analysis)}, {analysis.elements:,} elements. The gap is the largest "
        "|total − coarse − fine| / total of a timestep, which only rounding may cause."
    )


def _row(analysis: Analysis) -> str:
    return "an image" if analysis.scope == "sample" else "one channel of an image"


def _caption(name: str, analysis: Analysis) -> str:
    few = analysis.students[0].errors.slope.shape[1] <= drawings.BANDS
    components = analysis.num_components
    known = {
        "row": _row(analysis),
        "spread": "Bands: from the 10th to the 90th percentile. " if few else "",
        "count": f"{analysis.num_samples:,}",
        "network": analysis.network,
        "components": f" ({components} principal components in the Fréchet distance)"
        if components
        else "",
        "distances": " Right: the distance of the samples, with intervals; dashed: the teacher's."
        if analysis.teacher_samples
        else "",
    }
    return CAPTIONS[name].format(**known)


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
    for part in ("total", "coarse", "fine"):
        values = [getattr(each.errors, part).mean().item() for each in students]
        rows.append([f"{part} error", "", *(f"{value:.4g}" for value in values)])
    shares = [explained(each.errors) for each in students]
    for name in shares[0]:
        rows.append([f"{name} explains", "", *(_percent(share[name], 1) for share in shares)])
    rows.append(["gap", "", *(f"{each.errors.identity_gap:.0e}" for each in students)])
    if analysis.teacher_samples:
        for place, score in enumerate(analysis.teacher_samples.scores):
            if score.floor is not None:
                floor = f"{score.floor:.4g}"
                rows.append([f"{score.name}, real / real", floor, *([floor] * len(students))])
            plain = [_score(each.plain, place) for each in students]
            corrected = [_score(each.corrected, place) for each in students]
            rows.append([score.name, _score(analysis.teacher_samples, place), *plain])
            rows.append([f"{score.name}, corrected", "", *corrected])
    return rows


def explained(errors: Errors) -> dict[str, float]:
    """Share of the error over all timesteps that each kind of fit explains, in [0, 1]; NaN where
    there is no error."""
    fines = {"LIFT": errors.fine}
    sizes = zip(errors.group_sizes, errors.place_fine, strict=True)
    fines |= {f"PLACE {size}": fine for size, fine in sizes}
    total = errors.total.mean().item()
    return {
        name: 1 - fine.mean().item() / total if total > 0 else math.nan
        for name, fine in fines.items()
    }


def timestep_table(errors: Errors) -> list[list[str]]:
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
        rows.append([
            f"{timestep.item():g}", *(f"{value.item():.4g}" for value in values),
            *shares, *(f"{weight.item():.3f}" for weight in weights),
        ])  # fmt: skip
    return rows


def _score(samples: Samples, place: int) -> str:
    score = samples.scores[place]
    if score.low is None:
        return f"{score.value:.4g}"
    return f"{score.value:.4g} ({score.low:.4g}\u00a0to\u00a0{score.high:.4g})"


def _percent(part: float, whole: float) -> str:
    share = 100 * part / whole if whole else math.nan
    return "–" if math.isnan(share) else f"{share:.1f} %"
