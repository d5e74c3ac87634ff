"""The results of `liftplace analyze` as data. The field names are the keys of analysis.json."""

from dataclasses import dataclass

from torch import Tensor

from liftplace.analyze.maps import Maps
from liftplace.evaluate.evaluator import Score
from liftplace.models.norms import Norms


@dataclass(frozen=True)
class ModelErrors:
    """The distillation error of a student at T timesteps, over real noised images; float64, CPU.

    Every row (of an image and a channel, or of an image) has its own fit a + b s of t, with no eps;
    PLACE's residual and the weights have the eps of `place_loss` and `lift_loss`. Parts are means
    over all elements, so total = coarse + fine, and explained share = 1 - fine / total.
    Source: arXiv 2605.19729, its coarse-easy and fine-hard error.
    """

    timesteps: Tensor  # (T,), as the models take them, ascending in noise
    power: Tensor  # (T,): mean t^2, for scale
    total: Tensor  # (T,): mean (t - s)^2
    coarse: Tensor  # (T,): mean (a + b s - s)^2, explained by LIFT's fit
    fine: Tensor  # (T,): mean (a + b s - t)^2, its residual
    group_sizes: tuple[int, ...]  # of PLACE, ascending
    place_fine: Tensor  # (group sizes, T): the residual of PLACE's fits
    slope: Tensor  # (T, channels, 3): b at the 10th, 50th and 90th percentile of the images
    intercept: Tensor  # (T, channels, 3): a likewise; one channel where a row is a whole image
    weight: Tensor  # (group sizes, T): the adaptive weight w of PLACE, had a batch this timestep
    lift_weight: Tensor  # (T,): likewise, of LIFT
    identity_gap: float  # the largest |total - coarse - fine| / total
    num_images: int


@dataclass(frozen=True)
class PropagatedErrors:
    """What the error at each step of sampling does to the image, where no other step has an error;
    float64, CPU. See `liftplace.analyze.propagation`."""

    timesteps: Tensor  # (steps,) of the sampler, as the models take them
    factor: Tensor  # (steps,): how far the image is moved by an error of 1
    coarse: Tensor  # (steps,): mean square of what the coarse error moves the image by
    fine: Tensor  # (steps,): likewise, the fine error


@dataclass(frozen=True)
class Advice:
    """What to do with a student, and why; see `liftplace.analyze.advice`."""

    rule: str  # "norms", "coarse", "fine" or "agrees"
    share: float  # the number that it rests on, a coarse share; NaN where there is no error
    text: str  # one line


@dataclass(frozen=True)
class Samples:
    """Samples of one model and their scores; images (N, channels, height, width) in [-1, 1]."""

    images: Tensor  # the first samples; every model's start from the same noise
    scores: tuple[Score, ...]  # Frechet and kernel distance


@dataclass(frozen=True)
class StudentAnalysis:
    """One student."""

    label: str  # the shortest end of its path that tells it from the others
    parameters: int
    macs: int
    norms: Norms | None  # None where it has no group norms
    errors: ModelErrors
    carried: PropagatedErrors
    advice: Advice
    maps: Maps
    plain: Samples | None  # None where nothing was sampled
    corrected: Samples | None  # by the regression of the teacher on it at its own samples
    trajectory: Samples | None  # by one regression a step and channel, on the teacher's samples


@dataclass(frozen=True)
class Analysis:
    """A teacher and its students."""

    teacher: str
    teacher_parameters: int
    teacher_macs: int
    teacher_norms: Norms | None
    prediction_type: str  # of all models
    num_train_timesteps: int
    teacher_samples: Samples | None
    students: tuple[StudentAnalysis, ...]
    scope: str  # "channel" or "sample": the elements that share one linear fit
    elements: int  # of a row
    num_samples: int  # that were scored; 0 for none
    num_inference_steps: int
    network: str | None  # of the features
    num_components: int | None  # principal components in the Frechet distance
    sample_labels: tuple[str, ...] | None = None  # prompts or classes of the images shown
    few_images: str | None = None  # where samples are too few for the components, which would do

    @property
    def noisy(self) -> float:
        """Timesteps above it are the noisier half."""
        return self.num_train_timesteps / 2
