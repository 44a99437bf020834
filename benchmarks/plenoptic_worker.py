"""Synthesise metamers by plenoptic, as lines of JSON on the standard input ask; ``peers.py`` starts this script.

It runs in plenoptic's environment and imports nothing of invrep. plenoptic is used as its documentation does: its
default loss, penalty and optimiser (Adam with amsgrad). Its stop criterion is off, so that each request has all its
passes.
"""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any

import plenoptic
import torch
import torchvision
from safetensors.torch import load_file, save_file


def upto(module: torch.nn.Module, path: str) -> torch.nn.Module:
    """Return the submodules of a module, one after another, up to the one at a path."""
    head, _, rest = path.partition(".")
    children = list(module.named_children())
    last = [name for name, _ in children].index(head)
    end = upto(children[last][1], rest) if rest else children[last][1]
    return torch.nn.Sequential(*(child for _, child in children[:last]), end)


def network(name: str, path: str, weights: str) -> torch.nn.Module:
    """Return a torchvision network up to a module, after its normalisation, frozen."""
    with torch.device("meta"):
        whole = torchvision.models.get_model(name, weights=None)
    whole.load_state_dict(load_file(weights), strict=False, assign=True)
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    model = torch.nn.Sequential(normalise, upto(whole, path)).eval()
    plenoptic.remove_grad(model)
    return model


def metamer(model: torch.nn.Module, tensors: dict[str, torch.Tensor], request: dict[str, Any]) -> dict[str, float]:
    """Synthesise one metamer, save it, and return the passes and the seconds that it took.

    With ``limit``, seconds of the processor, the number of passes is what they allow instead of ``passes``.
    """
    limit = request["limit"]
    clock = time.process_time if limit else time.perf_counter
    began, passes = clock(), 0
    made = plenoptic.Metamer(tensors["photo"], model)
    made.setup(initial_image=tensors["start"], optimizer_kwargs={"lr": request["lr"]})
    wanted = 5 if limit else request["passes"]
    while wanted > 0:
        made.synthesize(max_iter=wanted, stop_criterion=0)
        passes += wanted
        # Each call ends with one more forward pass, so calls are few; with the set-up in it, the estimate is low.
        wanted = math.ceil(passes * (limit / (clock() - began) - 1)) if limit else 0
    took = clock() - began
    save_file({"metamer": made.metamer.detach().contiguous()}, request["out"])
    return {"seconds": took, "passes": passes}


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
        print(json.dumps(metamer(models[key], load_file(request["tensors"]), request)), flush=True)


if __name__ == "__main__":
    main()
