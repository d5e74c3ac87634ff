"""LIFT and PLACE: knowledge-distillation losses for diffusion models with very small students."""

import torch

from liftplace._version import __version__
from liftplace.functional import lift_loss, linear_fit, place_loss
from liftplace.losses import LiftLoss, PlaceLoss
from liftplace.reference import Fit, LinearFit

__all__ = ["LiftLoss", "PlaceLoss", "__version__", "lift_loss", "linear_fit", "place_loss"]

# So that torch.load, which by default makes no object that it does not know, makes these.
torch.serialization.add_safe_globals([Fit, LinearFit, LiftLoss, PlaceLoss])
