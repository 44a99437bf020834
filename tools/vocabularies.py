"""Fit the vocabularies that the package ships: ``make vocabularies``, or ``python tools/vocabularies.py FOLDER``.

FOLDER is ``ai_benchmark/data/classification`` of the wheel of ai-benchmark 0.1.2 (PyPI, Apache-2.0): 100 photos, 0.jpg
to 99.jpg. The vocabularies take those whose number leaves 3 or 4 when divided by 5. Constants of this project are
chosen on photos that leave 0, and measured on those that leave 2, so that no vocabulary has seen them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import invrep
from invrep.fitting.codes import CODES
from invrep.representations.vocabularies.vocabulary import SHIPPED, Vocabulary, save

SOURCE = "40 photos of ai-benchmark 0.1.2 (PyPI, Apache-2.0), data/classification: those with number mod 5 = 3 or 4"
MOST = 300_000  # bytes of a file
LIST = "photos.txt"


def ship(code: str, photos: Path) -> Path:
    """Fit the vocabulary of a code to the photos in a list, and write it to the package.

    Args:
        code: name of the code.
        photos: list of photos, a .txt file.

    Returns:
        Path of the file.
    """
    path = SHIPPED / f"{code}.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        fitted = invrep.fit_vocabulary(photos, code, output=Path(folder) / path.name)
    # What is rounded before it is used changes no code later.
    half = fitted.kind != "mixture"  # a variance may be too small for 16 bits
    tensors = {name: tensor.half().float() if half else tensor for name, tensor in fitted.tensors.items()}
    save(Vocabulary(fitted.kind, tensors, {**fitted.settings, "source": SOURCE}), path, half=half)
    path.chmod(0o644)
    return path


def main() -> None:
    """Write all files, or those of the codes named after the folder."""
    folder, codes = Path(sys.argv[1]), sys.argv[2:] or list(CODES)
    with tempfile.TemporaryDirectory() as place:
        photos = Path(place) / LIST
        photos.write_text("".join(f"{folder.resolve() / f'{k}.jpg'}\n" for k in range(100) if k % 5 in (3, 4)))
        for code in codes:
            path = ship(code, photos)
            size = path.stat().st_size
            print(f"{path.name}: {size} bytes")
            if size > MOST:
                raise SystemExit(f"{path} has more than {MOST} bytes")


if __name__ == "__main__":
    main()
