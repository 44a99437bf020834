"""Make the pictures of the README and these pages, each by the command in its caption.

A picture of docs/gallery/ stands before a block with its command. The script runs each command and saves its figure as
a JPEG of at most 300 kB. Finished jobs are not computed again.

    python docs/gallery.py [--weights FOLDER] [--output outputs] [NAME …]
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "gallery"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CAPTIONED = re.compile(r"!\[[^\]]+\]\((?:docs/)?gallery/([\w-]+)\.jpg\)\n\n(?:```bash\n)? *invrep (.+)")
MADE = re.compile(r"(?:laid out|picture): (.+\.png)")
WIDTH = 1110  # pixels, one and a half of the site's column
MOST = 300_000  # bytes


def commands() -> dict[str, list[str]]:
    """Return the words after ``invrep`` of each picture's command, by the picture's name."""
    return {name: line.split() for page in PAGES for name, line in CAPTIONED.findall(page.read_text())}


def weights(words: list[str], folder: Path) -> Iterator[str]:
    """Yield the override that takes a network's weights from a folder, from the file that begins with its name."""
    text = "\n".join(words)
    for name in re.findall(r"^experiment=(.+)", text, re.MULTILINE):
        text += (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text()
    for rep in re.findall(r"^(?:rep=|.*override /rep: )(\w+)", text, re.MULTILINE):
        yield from (f"rep.weights={file.resolve()}" for file in folder.glob(f"{rep}*.safetensors"))


def make(name: str, words: list[str], output: Path) -> None:
    """Run a command and save its picture.

    Args:
        name: picture's name.
        words: command's words after ``invrep``.
        output: folder of results.
    """
    command = [sys.executable, str(ROOT / "train.py"), *words, "logger=none", f"output={output.resolve()}"]
    made = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        for line in job.stdout:
            print(line, end="", flush=True)
            made = made if (found := MADE.match(line)) is None else Path(found[1])
    if job.returncode or made is None:
        raise SystemExit(f"{name}: the command made no picture: invrep {' '.join(words)}")
    with Image.open(made) as picture:
        picture = picture.convert("RGB")
        size = min(WIDTH, picture.width), round(picture.height * min(WIDTH, picture.width) / picture.width)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    file = PICTURES / f"{name}.jpg"
    for quality in range(88, 40, -4):
        picture.save(file, quality=quality, optimize=True)
        if file.stat().st_size <= MOST:
            break
    print(f"{file}: {picture.width}×{picture.height}, quality {quality}, {file.stat().st_size // 1000} kB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="pictures to make; by default all")
    parser.add_argument("--weights", type=Path, help="folder of files such as vgg16.safetensors; by default torch hub")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs", help="folder of results")
    args = parser.parse_args()
    known = commands()
    if unknown := sorted(set(args.names) - known.keys()):
        raise SystemExit(f"No page shows {', '.join(unknown)}; expected {', '.join(known)}.")
    PICTURES.mkdir(exist_ok=True)
    for name in args.names or known:
        more = [] if args.weights is None else [*weights(known[name], args.weights)]
        make(name, [*known[name], *more], args.output)


if __name__ == "__main__":
    main()
