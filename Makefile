.PHONY: test fast lint types wheel requirements

test: ## everything, as README says
	uv run pytest

fast: ## without what needs minutes
	uv run pytest -m "not slow"

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
	  uv export --quiet --no-default-groups --no-emit-project --no-annotate --no-header --format requirements.txt; \
	} > requirements.txt
