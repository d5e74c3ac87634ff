"""LIFT and PLACE: knowledge-distillation losses for diffusion models with very small students."""

from liftplace._version import __version__
from liftplace.functional import lift_loss, linear_fit, place_loss
from liftplace.losses import LiftLoss, PlaceLoss

__all__ = ["LiftLoss", "PlaceLoss", "__version__", "lift_loss", "linear_fit", "place_loss"]
