"""Synthesise metamers by plenoptic, as lines of JSON on the standard input ask; ``peers.py`` starts this script.

It runs in plenoptic's environment and imports nothing of invrep. plenoptic is used as its documentation does: its
default loss, penalty and optimiser (Adam with amsgrad). Its stop criterion is off, so that each request has all its
passes.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import plenoptic
import torch
import torchvision
from safetensors.torch import load_file, save_file


def network(name: str, modules: int, weights: str) -> torch.nn.Module:
    """Return the first modules of a torchvision network's ``features``, after its normalisation, frozen."""
    features = torchvision.models.get_model(name, weights=None).features[:modules]
    state = {key.removeprefix("features."): tensor for key, tensor in load_file(weights).items()}
    features.load_state_dict({key: state[key] for key in features.state_dict()})
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    model = torch.nn.Sequential(normalise, features).eval()
    plenoptic.remove_grad(model)
    return model


def metamer(model: torch.nn.Module, tensors: dict[str, torch.Tensor], request: dict[str, Any]) -> float:
    """Synthesise one metamer, save it, and return the seconds that it took."""
    began = time.perf_counter()
    made = plenoptic.Metamer(tensors["photo"], model)
    made.setup(initial_image=tensors["start"], optimizer_kwargs={"lr": request["lr"]})
    made.synthesize(max_iter=request["passes"], stop_criterion=0)
    took = time.perf_counter() - began
    save_file({"metamer": made.metamer.detach().contiguous()}, request["out"])
    return took


def main() -> None:
    """Print a line of JSON for the versions, and one for each request."""
    print(json.dumps({"torch": torch.__version__, "plenoptic": plenoptic.__version__}), flush=True)
    models: dict[str, torch.nn.Module] = {}
    for line in sys.stdin:
        request = json.loads(line)
        torch.set_num_threads(request["threads"])
        key = json.dumps(request["network"])
        if key not in models:
            models[key] = network(*request["network"])
        took = metamer(models[key], load_file(request["tensors"]), request)
        print(json.dumps({"seconds": took}), flush=True)


if __name__ == "__main__":
    main()
