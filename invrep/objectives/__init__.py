"""What is asked of a code: to match a photo's, or to raise activations."""

from invrep.objectives.activation import Caricature, InnerProduct, Maximise
from invrep.objectives.base import Objective
from invrep.objectives.match import Match, MatchFile

__all__ = ["Caricature", "InnerProduct", "Match", "MatchFile", "Maximise", "Objective"]
