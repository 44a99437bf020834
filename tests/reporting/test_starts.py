"""The starts of descents that a report draws again, against those of the jobs themselves."""

import numpy as np
import pytest
import torch

from invrep.data.display import shown
from invrep.reporting.comparison import Run
from invrep.reporting.page.starts import start_of
from invrep.results.store import Results
from invrep.tracking.film import Film

NET = ["rep=resnet18", "layer=relu", "rep.weights=random"]


@pytest.mark.parametrize(
    "words",
    [
        ["rep=hogb"],
        [*NET, "optim.jitter=true"],
        ["rep=hogb", "optim=cvpr15", "prior=cvpr15"],
        ["rep=hogb", "optim=ijcv16", "prior=ijcv16"],
    ],
    ids=["natural", "jitter", "gaussian", "uniform"],
)
def test_a_start_is_that_of_the_descent(job, photos, monkeypatch, words):
    begun = {}

    def keep(film, row, results, image, restart, **options):
        begun[image, restart] = shown(film.frames[0][row], options["display"])

    monkeypatch.setattr(Film, "save", keep)
    outcome = job(*words, f"data.path={photos}", "data.limit=1", "restarts=2", "seed=3", "video=gif", "optim.steps=2")
    assert outcome.status == 0, outcome.err
    run = Run(Results(outcome.folder))
    for key, frame in begun.items():
        drawn = torch.from_numpy(np.asarray(start_of(run, key)).astype(float) / 255).reshape(*frame.shape[1:], -1)
        # a film keeps 16 bits of a number, and a PNG 8
        assert (drawn - frame.permute(1, 2, 0)).abs().max() < 1.1 / 255 and drawn.std() > 0.005
    assert len(begun) == 2


def test_a_descent_from_the_photo_has_none(job, photos):
    outcome = job("rep=hogb", "objective=caricature", f"data.path={photos}", "data.limit=1", "optim.steps=2")
    run = Run(Results(outcome.folder))
    assert start_of(run, next(iter(run.rows))) is None
