# make demo      trains, converts and measures the handwritten digits; results in demo_output/
# make test      the quick tests
# make test-all  every test, those of PyTorch models too; with REST=1 only what the last make test did not pass
# make lint      style and types
# make docs      the guides and the reference as a site; results in site/
# make clean     removes everything that make has made
#
# The first call sets up .venv. Another interpreter: make PYTHON=/path/to/python3.12

SHELL := /bin/sh
PYTHON ?=
VENV := .venv
STAMP := $(VENV)/.installed
TORCH := $(VENV)/.installed-torch
SITE := $(VENV)/.installed-docs
RUN := $(VENV)/bin/python
# A dependency of litert-torch brings a pytest plugin that warns while it loads, and warnings are errors here.
PYTEST := $(RUN) -m pytest -p no:anyio -q -n 2
PASSED := $(VENV)/.passed
QUICK := not slow and not devicelab and not torch and not fuzz and not docs

# Keras 2 instead of Keras 3 would answer to the name tf.keras.
unexport TF_USE_LEGACY_KERAS

.PHONY: demo test test-all lint docs clean

demo: $(STAMP)
	@$(RUN) -m tfcompress.demo --output=demo_output

test: $(STAMP)
	@$(PYTEST) -m "$(QUICK)" --passed=$(PASSED)

test-all: $(TORCH)
	@$(PYTEST) $(if $(REST),--without=$(PASSED))

lint: $(STAMP)
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

docs: $(SITE)
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build
	@echo "The site is in site/: open site/index.html"

clean:
	@rm -rf $(VENV) build demo_output site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Prints "use <interpreter>" for the first one that runs, has a version we support and can make environments;
# otherwise what was found. The opening parentheses of the cases keep make's own parentheses balanced.
find_python = $(shell found=; \
    for name in $(if $(PYTHON),'$(PYTHON)',python3 python3.11 python3.12 python3.13); do \
        version=$$("$$name" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue; \
        case "$$version" in \
            (3.11.*|3.12.*|3.13.*) \
                if "$$name" -c 'import ensurepip, venv' 2>/dev/null; then echo "use $$name"; exit; fi; \
                found="$$found$${found:+, }$$name is $$version without venv" ;; \
            (*) found="$$found$${found:+, }$$name is $$version" ;; \
        esac; \
    done; echo "$${found:-none$(if $(PYTHON), that runs as $(PYTHON))}")

# The stamp is written last: an interrupted set-up is repeated from the start.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(eval answer := $(find_python))
	$(if $(filter use,$(firstword $(answer))),,$(error tfcompress needs Python 3.11 to 3.13 with venv. \
	Found: $(answer). Install one of them or name it: make PYTHON=/path/to/python3.12))
	@echo "Installing tfcompress and its pinned dependencies into $(VENV) (a few minutes)..."
	@'$(wordlist 2,99,$(answer))' -m venv --clear $(VENV)
	@$(RUN) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# PyTorch is 1.8 GB that only its own tests need, so that make test and make demo do without.
$(TORCH): $(STAMP)
	@echo "Installing PyTorch, litert-torch, TFLite Micro and Vela into $(VENV) (a few minutes)..."
	@$(RUN) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,torch,tflm,ethos-u,docs]'
	@touch $@ $(SITE)

$(SITE): $(STAMP)
	@echo "Installing MkDocs into $(VENV)..."
	@$(RUN) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@
