.PHONY: test fast soak lint types wheel requirements

test: ## everything, as README says
	uv run pytest

fast: ## without what needs minutes
	uv run pytest -m "not slow"

soak: ## the heavy proofs whole: hours; docs/reliability.md has the figures
	SOAK=1 uv run pytest tests/soak tests/workflows/test_refresh_oauth.py --soak

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
