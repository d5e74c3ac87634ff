"""What to do with a student: a few rules, each on one number. The first that holds decides.

- agrees: there is no error in the noisier half of the timesteps. Nothing to do.
- norms: the teacher predicts noise and the last group norm has one channel a group. Wider groups.
- coarse: of what the noisier half carries into the image, `LARGE_COARSE` or more is coarse. More
  training, or a loss that pulls on means and scales.
- fine: else. Output KD: what is wrong is content, which no linear fit explains.
"""

import math

from torch import nn

from liftplace.analyze.analysis import Advice, ModelErrors, PropagatedErrors
from liftplace.analyze.propagation import coarse_share, in_half
from liftplace.families.norm_groups import LEAST, choose_groups
from liftplace.models.norms import Norms, norms_of

# Of the error that the noisier half of the timesteps carries into the image. After 2,000 steps a
# student that cannot pass its mean on has 0.85 of it coarse, one with groups of four channels 0.31:
# docs/analysis.md.
LARGE_COARSE = 0.5
# Prediction types whose errors at the noisiest timesteps are multiplied on the way to the image.
AMPLIFIED = ("epsilon",)


def advise(
    student: nn.Module,
    prediction_type: str,
    errors: ModelErrors,
    propagated: PropagatedErrors,
    noisy: float,
) -> Advice:
    """The advice for one student.

    Args:
        student: whose group norms are read.
        prediction_type: of it and its teacher.
        errors, propagated: measured; the student need not be trained.
        noisy: timesteps above it are the noisier half.
    """
    share = coarse_share(errors, in_half(errors, noisy, True))
    share_in_image = coarse_share(propagated, in_half(propagated, noisy, True))
    norms = norms_of(student)
    if math.isnan(share):
        return Advice("agrees", share, f"It agrees with its teacher at t > {noisy:g}.")
    if prediction_type in AMPLIFIED and norms is not None and norms.last_forgets:
        return Advice("norms", share, _widen(student, norms, share, noisy))
    if share_in_image >= LARGE_COARSE:
        text = (
            f"Train longer, or pull on means (--moment_weight 0.5): {share_in_image:.0%} of the "
            f"error that t > {noisy:g} carries into the image is coarse."
        )
        return Advice("coarse", share_in_image, text)
    text = (
        f"Plain output KD (--loss mse): linear fits explain only {share:.0%} of its error at "
        f"t > {noisy:g}, the rest is content."
    )
    return Advice("fine", share, text)


def _widen(student: nn.Module, norms: Norms, share: float, noisy: float) -> str:
    channels = {each.num_channels for each in student.modules() if isinstance(each, nn.GroupNorm)}
    groups = choose_groups(sorted(channels), norms.groups, LEAST)
    return (
        f"Widen its norm groups (--student_norm_num_groups {groups}, which adds no weights): the "
        f"teacher predicts noise, and {norms.forgetting} of {norms.count} norms, the one before "
        f"the output too, have one channel a group and lose the mean; {share:.0%} of its error at "
        f"t > {noisy:g} is coarse."
    )
