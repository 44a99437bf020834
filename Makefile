PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint docs gallery vocabularies dictionaries clean

demo: .venv/installed ## a photo bundled with scikit-image, back from its HOG
	$(BIN)/python train.py

test: .venv/installed ## all tests but those marked slow, in three processes: some wait for others
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal

lint: .venv/installed ## style, types, and which room may import which
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

docs: .venv/installed ## the site, docs/_build/html/index.html
	$(BIN)/python -m sphinx -W -q docs docs/_build/html

gallery: .venv/installed ## the pictures of README and docs, each by its caption's command: an hour or more on CPUs
	$(BIN)/python docs/gallery.py

vocabularies: .venv/installed ## the package's vocabularies: make vocabularies PHOTOS=ai_benchmark/data/classification
	$(BIN)/python tools/vocabularies.py $(PHOTOS)

dictionaries: .venv/installed ## HOGgle's, which the package has: make dictionaries PHOTOS='classification/*[3489].jpg'
	rm -f invrep/baselines/shipped/*.safetensors
	for variant in vlfeat cvpr15; do \
	    $(BIN)/invrep vocabulary baseline=hoggle rep=hog rep.variant=$$variant "data.path='$(PHOTOS)'" \
	        output=invrep/baselines/shipped/hog-$$variant.safetensors || exit 1; done

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf .venv outputs docs/_build
