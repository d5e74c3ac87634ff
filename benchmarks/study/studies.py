"""The studies: what is varied in each, and what stays.

Those of the digits are for a CPU, those of Fashion-MNIST for a GPU.
"""

import hashlib
from pathlib import Path

from benchmarks.study.grid import Settings, Study

# As the demo trains, but for the number of steps.
DIGITS: Settings = {
    "dataset_name": "digits",
    "train_batch_size": 16,
    "lr_warmup_steps": 50,
    "use_ema": True,
}
# In colour, so that a row can be a channel or all of them.
EMOJI: Settings = {
    "train_data_dir": "benchmarks/data/emoji",
    **{name: value for name, value in DIGITS.items() if name != "dataset_name"},
}
ROOT = Path(__file__).parents[2]


# Teachers that have moved since the first rows, which name the folders they were in.
PLACES = {
    "liftplace/demo/teacher": "benchmarks/teachers/v",
    "benchmarks/teachers/noise": "liftplace/demo/teacher",
}


def teacher(folder: str) -> Settings:
    """A teacher in a folder of the repository, and what tells its weights from others: twelve
    digits of their SHA-256, or none where there are no weights yet."""
    weights = ROOT / PLACES.get(folder, folder) / "unet" / "diffusion_pytorch_model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12] if weights.exists() else ""
    return {"pretrained_teacher_name_or_path": folder, "teacher_sha256": digest}


TEACHER = {"1.2 M": teacher("liftplace/demo/teacher")}
TEACHERS = {
    **TEACHER,
    "0.3 M": teacher("benchmarks/teachers/small"),
    "0.1 M": teacher("benchmarks/teachers/tiny"),
}
EMOJI_TEACHER = {"0.3 M": teacher("benchmarks/teachers/emoji")}
PREDICTIONS = {
    "1.2 M, predicts noise": teacher("benchmarks/teachers/noise"),  # as the paper's DDPMs
    "1.2 M, predicts v": TEACHER["1.2 M"],
}
SIZES = {
    "31 %": {"student_block_out_channels": (32, 32, 32)},
    "10 %": {"student_block_out_channels": (16, 20, 20)},
    "5.6 %": {"student_block_out_channels": (12, 12, 16)},
    "2 %": {"student_block_out_channels": (8, 8, 8)},
    "1 %": {"student_block_out_channels": (8, 4, 4)},
}
TINY = {"2 %": SIZES["2 %"]}  # the share at which the paper's gain is largest
NORMS = {
    "2 %, norm groups of 1 channel": SIZES["2 %"],
    "2 %, norm groups of 4": {**SIZES["2 %"], "student_norm_num_groups": 2},
}
SAMPLERS = {  # 12 steps are those of all studies
    "2 %, 6 DDIM steps": {**NORMS["2 %, norm groups of 4"], "num_inference_steps": 6},
    "2 %, 12 DDIM steps": NORMS["2 %, norm groups of 4"],
    "2 %, 50 DDIM steps": {**NORMS["2 %, norm groups of 4"], "num_inference_steps": 50},
}
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
SCOPES = {
    **FOUR,
    "LIFT, all channels": {"loss": "lift", "scope": "sample"},
    "LIFT+PLACE, all channels": {"loss": "place", "scope": "sample"},
}
# What the paper's extreme student has, one channel a norm group, and the same student with four.
NARROW = {"narrow norms": {**SIZES["2 %"], "student_norm_num_groups": 8}}
WIDE = {"wide norms": {**SIZES["2 %"], "student_norm_num_groups": 2}}
ABSOLUTE = {"loss": "mse", "moment_weight": 0.5}  # output KD and a pull on means that does not fade
IN_V = {"loss": "mse", "kd_space": "v_prediction"}
REGIME_METHODS = {**FOUR, "output KD + |means|": ABSOLUTE, "output KD in v": IN_V}
REGIME: Settings = {**DIGITS, "samplers": "both"}  # see `SAMPLERS` of benchmarks/study/train.py
COARSE = {"mse_weight": 1.0, "loss": "lift", "terms": "coarse"}  # beside output KD
KD_ONLY = {"task_weight": 0.0}

# The paper's first question at a larger scale: trained by benchmarks/configs/fashion_teacher.yaml.
FASHION: Settings = {
    "dataset_name": "fashion-mnist",
    "train_batch_size": 128,
    "lr_warmup_steps": 500,
    "use_ema": True,
}
PREFIXES = ("fashion_", "emoji_")  # of studies that ask another one's question of other data
FASHION_TEACHER = {"3.6 M": teacher("benchmarks/teachers/fashion")}
FASHION_SIZES = {
    "30 %": {"student_block_out_channels": (24, 40, 64)},
    "11 %": {"student_block_out_channels": (24, 24, 32)},
    "5.4 %": {"student_block_out_channels": (16, 16, 24)},
    "1.9 %": {"student_block_out_channels": (8, 8, 16)},
    "1 %": {"student_block_out_channels": (8, 8, 8)},
}
FASHION_TINY = {"1.9 %": FASHION_SIZES["1.9 %"]}

ON_DIGITS = {"base": DIGITS, "teachers": TEACHER}
BOTH_TEACHERS = {"base": DIGITS, "teachers": PREDICTIONS, "search": False}
NOISE = {"noise": PREDICTIONS["1.2 M, predicts noise"]}
IN_REGIME = {"base": REGIME, "teachers": NOISE, "search": False}

STUDIES = {
    "capacity": Study(
        "Who wins at which size of the student?",
        **ON_DIGITS, students=SIZES, methods=METHODS, rates=(3e-3, 1e-2),
    ),
    "stability": Study(
        "Up to which learning rate does each method hold?",
        **ON_DIGITS, students=TINY, methods=METHODS,
        rates=(3e-3, 1e-2, 3e-2, 1e-1, 3e-1), search=False,
    ),
    "ablation": Study(
        "Which part of LIFT+PLACE does what?",
        **ON_DIGITS, students=TINY, methods={"LIFT+PLACE": METHODS["LIFT+PLACE"]},
        rates=(1e-2, 3e-2),
        variants={
            "output KD": {"loss": "mse"},
            "LIFT+PLACE": {},
            "groups of 4": {"group_size": 4},
            "groups of 64": {"group_size": 64},
            "LIFT: a whole row": {"loss": "lift"},
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
            "output KD + 0.1 coarse": {"mse_weight": 1.0, "terms": "coarse", "kd_weight": 0.1},
            "output KD + 0.1 coarse of LIFT": {
                "mse_weight": 1.0, "loss": "lift", "terms": "coarse", "kd_weight": 0.1
            },
        },
    ),
    "initialisation": Study(
        "Does it matter whether the student starts from the teacher's weights?",
        **ON_DIGITS, methods=FOUR,
        students={
            "25 %": {"prune": {"width": 0.5}},
            "6 %": {"prune": {"width": 0.25}},
            "3 %": {"prune": {"width": 0.15625}},
        },
        initialisations={"random": {"random_init": True}, "pruned": {"random_init": False}},
        rates=(3e-3, 1e-2),
    ),
    "teacher_size": Study(
        "Does a larger teacher teach a tiny student better or worse?",
        base=DIGITS, teachers=TEACHERS, students=TINY, methods=FOUR, rates=(3e-3, 1e-2),
    ),
    "colour": Study(
        "Is it so in colour, and does a row of all channels do better than one of each?",
        base=EMOJI, teachers=EMOJI_TEACHER, students={"8 %": SIZES["2 %"]}, methods=SCOPES,
        rates=(3e-3, 1e-2),
    ),
    "normalisation": Study(
        "Who wins when the teacher predicts noise, and what have norms to do with it?",
        **BOTH_TEACHERS, students=NORMS, methods=FOUR, rates=(3e-3, 1e-2),
    ),
    "sampler": Study(
        "Does the order change with the steps of the sampler?",
        **BOTH_TEACHERS, students=SAMPLERS, methods=FOUR, rates=(1e-2,),
    ),
    "noisy_timesteps": Study(
        "Does a coarse term help where it is of noisy timesteps alone?",
        **BOTH_TEACHERS,
        students={"2 %, norm groups of 4": NORMS["2 %, norm groups of 4"]},
        methods={
            "output KD": METHODS["output KD"],
            "LIFT+PLACE": METHODS["LIFT+PLACE"],
            "+ coarse LIFT, t >= 500": {**COARSE, "kd_min_timestep": 500.0},
            "+ coarse LIFT, t >= 750": {**COARSE, "kd_min_timestep": 750.0},
            "+ 0.2 coarse LIFT, t >= 750": {
                **COARSE, "kd_min_timestep": 750.0, "kd_weight": 0.2
            },
            "+ coarse LIFT+PLACE, t >= 750": {
                **COARSE, "kd_min_timestep": 750.0, "loss": "place"
            },
        },
        rates=(3e-3, 1e-2),
    ),
    "long": Study(
        "Does the order change with the number of steps, and what the teacher predicts?",
        base={**DIGITS, "lr_scheduler": "constant_with_warmup"},
        teachers=PREDICTIONS, students=NORMS, methods=FOUR,
        rates=(3e-3, 1e-2), search=False, stages=(500, 1000, 2000, 4000),
    ),
    "emoji_long": Study(
        "Does the order change with the number of steps? Colour emoji.",
        base={**EMOJI, "lr_scheduler": "constant_with_warmup"},
        teachers=EMOJI_TEACHER, students={"8 %": SIZES["2 %"]},
        methods={
            label: SCOPES[label]
            for label in ("no KD", "output KD", "LIFT+PLACE", "LIFT+PLACE, all channels")
        },
        rates=(1e-2, 3e-2), search=False, stages=(500, 1000, 2000),
    ),
    "regime": Study(
        "Who wins where norms lose the mean, and who where they keep it?",
        **IN_REGIME, students={**NARROW, **WIDE}, methods=REGIME_METHODS, rates=(1e-2,),
        stages=(12_000,), corrected=True,
    ),
    "regime_terms": Study(
        "Which pull on the means helps where norms lose them?",
        **IN_REGIME, students=NARROW,
        methods={
            "output KD": METHODS["output KD"],
            "LIFT+PLACE": METHODS["LIFT+PLACE"],
            "+ 0.15 |means|": {**ABSOLUTE, "moment_weight": 0.15},
            "+ 0.5 |means|": ABSOLUTE,
            "+ 1.5 |means|": {**ABSOLUTE, "moment_weight": 1.5},
            "+ 0.5 |means and scales|": {**ABSOLUTE, "moments": "mean_std"},
            "+ 0.5 huber means": {**ABSOLUTE, "moment_norm": "huber"},
            "+ 10 means²": {**ABSOLUTE, "moment_weight": 10.0, "moment_norm": "l2"},
            "+ 100 means²": {**ABSOLUTE, "moment_weight": 100.0, "moment_norm": "l2"},
            "in v": IN_V,
            "in x0": {**IN_V, "kd_space": "sample"},
            "as carried": {**IN_V, "kd_space": "sample", "kd_space_max_weight": 10_000.0},
            "LIFT, l2": {"loss": "lift", "norm": "l2"},
            "LIFT+PLACE, fine only": {"loss": "place", "terms": "fine"},
        },
        rates=(1e-2,), stages=(4000,),
    ),
    "regime_others": Study(
        "Is it so with a teacher of v, and with larger students?",
        base=REGIME, teachers={**NOISE, "v": PREDICTIONS["1.2 M, predicts v"]},
        students={
            **NARROW, **WIDE,
            "10 %": {"student_block_out_channels": (16, 20, 20), "student_norm_num_groups": 4},
        },
        methods={
            label: REGIME_METHODS[label]
            for label in ("output KD", "LIFT+PLACE", "output KD + |means|", "output KD in v")
        },
        rates=(1e-2,), search=False, stages=(4000,),
    ),
    "regime_rates": Study(
        "Which learning rate suits each of these methods?",
        **IN_REGIME, students=NARROW, methods=REGIME_METHODS,
        rates=(3e-3, 1e-2, 3e-2), stages=(4000,),
    ),
    "regime_32": Study(
        "Is it so at 32x32?",
        base=REGIME, teachers={"noise, 32x32": teacher("benchmarks/teachers/noise32")},
        students={**NARROW, **WIDE}, search=False,
        methods={
            label: REGIME_METHODS[label]
            for label in ("output KD", "LIFT+PLACE", "output KD + |means|", "output KD in v")
        },
        rates=(1e-2,), stages=(6000,),
    ),
    "fashion_capacity": Study(
        "Who wins at which size of the student? Fashion-MNIST.",
        base=FASHION, teachers=FASHION_TEACHER, students=FASHION_SIZES, methods=METHODS,
        rates=(3e-4, 1e-3, 3e-3), stages=(10_000,),
    ),
    "fashion_stability": Study(
        "Up to which learning rate does each method hold? Fashion-MNIST.",
        base=FASHION, teachers=FASHION_TEACHER, students=FASHION_TINY, methods=METHODS,
        rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1), search=False, stages=(10_000,),
    ),
    "fashion_long": Study(
        "Does the order change with the number of steps? Fashion-MNIST.",
        base={**FASHION, "lr_scheduler": "constant_with_warmup"},
        teachers=FASHION_TEACHER, students=FASHION_TINY, methods=FOUR,
        rates=(3e-4, 1e-3), search=False, stages=(1000, 3000, 10_000, 30_000, 100_000),
    ),
}  # fmt: skip
