# Thin: every target is `python make.py <target>`; `python make.py --help` describes them.
PYTHON ?= python3

.PHONY: install demo test lint typecheck bench bench-quick chaos simulate mutate matrix docs flower-shots clean

install demo test lint typecheck bench bench-quick chaos simulate mutate matrix docs flower-shots clean:
	@$(PYTHON) make.py $@
