"""Which packages the chosen loggers need: known without importing them, so that nothing is loaded for it."""

from importlib.util import find_spec

from omegaconf import DictConfig

from golden_noise.errors import UserError

#: Logger -> its modules -> the packages that hold them. MLflow keeps a local store in SQLite by way of SQLAlchemy.
PACKAGES = {
    "wandb": {"wandb": "wandb"},
    "tensorboard": {"tensorboard": "tensorboard"},
    "mlflow": {"mlflow": "mlflow-skinny", "sqlalchemy": "sqlalchemy", "alembic": "alembic", "pandas": "pandas"},
    "trackio": {"trackio": "trackio"},
}
EXTRA = {"wandb": "evaluate"}  # that brings them, where it is not called as the logger


def check_packages(config: DictConfig) -> None:
    """Raise UserError for the first package that a chosen logger lacks."""
    for logger in config.get("logger") or {}:
        for module, package in PACKAGES.get(logger, {}).items():
            found = find_spec(module)
            if found is None or found.origin is None:  # a mere folder of that name is none
                extra = EXTRA.get(logger, logger)
                raise UserError(f"logger={logger} needs the package {package}: pip install 'golden-noise[{extra}]'")
