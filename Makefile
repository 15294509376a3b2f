.PHONY: test fast soak bench bench-data lint types wheel requirements

test: ## everything, as README says
	uv run pytest

fast: ## without what needs minutes
	uv run pytest -m "not slow"

soak: ## the heavy proofs whole: hours; docs/reliability.md has the figures
	SOAK=1 uv run pytest tests/soak tests/workflows/test_refresh_oauth.py --soak

bench: ## calls against bare Temporal: three quarters of an hour, some minutes with QUICK=1; writes docs/performance.md
	uv run --group bench python -m benchmarks $(if $(QUICK),--quick)

bench-data: ## the same call among ten million rows
	uv run --group bench python -m benchmarks data $(if $(QUICK),--quick)

lint:
	uv run ruff check .
	uv run ruff format --check .
	uv run lint-imports

types:
	uv run mypy .

wheel:
	uv build --wheel

requirements: ## what the image installs, hashed; names no index
	{ echo '# What the image installs, hashed. Made by `make requirements` from pyproject.toml; do not edit.'; \
	  uv export --quiet --no-default-groups --extra telemetry --no-emit-project --no-annotate --no-header --format requirements.txt; \
	} > requirements.txt
