"""The studies: what is varied in each, and what stays."""

from benchmarks.study.grid import Settings, Study

# As the demo trains, but for the number of steps.
DIGITS: Settings = {
    "dataset_name": "digits",
    "train_batch_size": 16,
    "lr_warmup_steps": 50,
    "use_ema": True,
}
# Folders in the repository, and the first twelve digits of their weights' SHA-256.
TEACHERS: dict[str, Settings] = {
    "1.2 M": {
        "pretrained_teacher_name_or_path": "liftplace/demo/teacher",
        "teacher_sha256": "ded1a300cc90",
    },
}
TEACHER = {"1.2 M": TEACHERS["1.2 M"]}
SIZES = {
    "31 %": {"student_block_out_channels": (32, 32, 32)},
    "10 %": {"student_block_out_channels": (16, 20, 20)},
    "5.6 %": {"student_block_out_channels": (12, 12, 16)},
    "2 %": {"student_block_out_channels": (8, 8, 8)},
    "1 %": {"student_block_out_channels": (8, 4, 4)},
}
TINY = {"2 %": SIZES["2 %"]}  # the share at which the paper's gain is largest
FEATURES = {"feature_weight": 0.03}  # about half of the gradient, of 0.01, 0.03, 0.1 and 1
METHODS = {
    "no KD": {"loss": "none"},
    "output KD": {"loss": "mse"},
    "feature KD": {"loss": "none", **FEATURES},
    "output + feature KD": {"loss": "mse", **FEATURES},
    "LIFT": {"loss": "lift"},
    "LIFT+PLACE": {"loss": "place"},
    "LIFT+PLACE + feature KD": {"loss": "place", **FEATURES},
}
FOUR = {label: METHODS[label] for label in ("no KD", "output KD", "LIFT", "LIFT+PLACE")}
KD_ONLY = {"task_weight": 0.0}

STUDIES = {
    "capacity": Study(
        question="Who wins at which size of the student?",
        base=DIGITS, teachers=TEACHER, students=SIZES, methods=METHODS,
    ),
    "stability": Study(
        question="Up to which learning rate does each method hold?",
        base=DIGITS, teachers=TEACHER, students=TINY, methods=METHODS,
        rates=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1), search=False,
    ),
    "ablation": Study(
        question="Which part of LIFT+PLACE does what?",
        base=DIGITS, teachers=TEACHER, students=TINY, methods={"LIFT+PLACE": METHODS["LIFT+PLACE"]},
        variants={
            "output KD": {"loss": "mse"},
            "LIFT+PLACE": {},
            "groups of 4": {"group_size": 4},
            "groups of 64": {"group_size": 64},
            "LIFT: a whole row": {"loss": "lift"},
            "scope sample": {"scope": "sample"},
            "coarse only": {"terms": "coarse"},
            "fine only": {"terms": "fine"},
            "w = 1": {"weight": 1.0},
            "w linear": {"weight": "linear"},
            "w cosine": {"weight": "cosine"},
            "l2": {"norm": "l2"},
            "l2, groups of 64": {"norm": "l2", "group_size": 64},
            "KD weight 0.1": {"kd_weight": 0.1},
            "KD weight 0.3": {"kd_weight": 0.3},
            "KD weight 3": {"kd_weight": 3.0},
            "KD weight 10": {"kd_weight": 10.0},
            "sums, as preset ddpm": {"reduction": "sum"},
            "no clipping": {"max_grad_norm": 0.0},
            "without the task loss": KD_ONLY,
            "output KD without the task loss": {"loss": "mse", **KD_ONLY},
        },
    ),
    "initialisation": Study(
        question="Does it matter whether the student starts from the teacher's weights?",
        base=DIGITS, teachers=TEACHER, methods=FOUR,
        students={
            "25 %": {"prune": {"width": 0.5}},
            "6 %": {"prune": {"width": 0.25}},
            "2 %": {"prune": {"width": 0.125}},
        },
        initialisations={"random": {"random_init": True}, "pruned": {"random_init": False}},
    ),
    "teacher_size": Study(
        question="Does a larger teacher teach a tiny student better or worse?",
        base=DIGITS, teachers=TEACHERS, students=TINY, methods=FOUR,
    ),
    "long": Study(
        question="Does the order change with the number of steps?",
        base={**DIGITS, "lr_scheduler": "constant_with_warmup"},
        teachers=TEACHER, students=TINY, methods=FOUR,
        rates=(1e-3, 3e-3), search=False, stages=(500, 1000, 2000, 4000, 8000),
    ),
}  # fmt: skip
