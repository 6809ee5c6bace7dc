"""MLflow's server as an application, for `ladder serve`.

`mlflow server` would start it in two more processes, and takes no middleware.
"""

from __future__ import annotations

import os
from typing import Any

from conf.home import home

ASSISTANT = "/ajax-api/3.0/mlflow/assistant"  # runs shell commands for its chat; nobody asked for it here


def create_app() -> Any:
    """MLflow's application on the store `MLFLOW_BACKEND_STORE_URI`; with its own accounts where `MLFLOW_AUTH_CONFIG_PATH` is set.

    For a process that serves nothing else: what `mlflow server` hands to its processes is set in the environment.
    """
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = os.environ[
        "MLFLOW_BACKEND_STORE_URI"
    ]
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = "mlflow-artifacts:/"
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = str(home().mlflow / "artifacts")
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    os.environ["_MLFLOW_SGI_NAME"] = "uvicorn"
    if os.environ.get("MLFLOW_AUTH_CONFIG_PATH"):
        from mlflow.server import auth

        auth.bootstrap_admin_user()
        return auth.create_app()
    from mlflow.server.fastapi_app import create_fastapi_app

    return create_fastapi_app()
