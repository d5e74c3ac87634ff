"""The settings of the paper's experiments, as partial settings by name.

The authors add eps to a sum of squared deviations where `place_loss` adds it to their mean, so
`eps_of_sum` is divided by the number of elements that a fit covers. Their distillation of block
outputs is not part of a preset.
"""

PRESETS: dict[str | None, dict] = {
    None: {},
    # The Diff-Pruning experiments (arXiv 2605.19729): sums of squares over a sample.
    "ddpm": {"reduction": "sum", "norm": "l1", "eps": 1e-7, "task_weight": 1.0, "kd_weight": 1.0},
    # The BK-SDM experiments.
    "sd": {
        "reduction": "mean", "norm": "l1", "eps_of_sum": 1e-8, "task_weight": 1.0, "kd_weight": 1.0
    },
    # The TinyFusion experiments.
    "dit": {
        "reduction": "mean", "norm": "l2", "eps_of_sum": 1e-4, "task_weight": 0.1, "kd_weight": 0.9
    },
}  # fmt: skip
