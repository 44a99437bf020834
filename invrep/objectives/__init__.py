"""Define objectives: match a target code, or raise activations."""

from invrep.objectives.activation import Caricature, InnerProduct, Maximise
from invrep.objectives.base import Objective
from invrep.objectives.match import Match, MatchFile

__all__ = ["Caricature", "InnerProduct", "Match", "MatchFile", "Maximise", "Objective"]
