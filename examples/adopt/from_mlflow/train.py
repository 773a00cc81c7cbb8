"""What a team has before: a model trained and registered with plain MLflow. Nothing here knows of seatrial.

    python train.py FOLDER

writes rows.parquet, a sample with the outcome, and registers the model `churn` on the server of MLFLOW_TRACKING_URI.
"""

import sys
from pathlib import Path

import mlflow
import mlflow.sklearn
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
made = np.random.default_rng(7)
rows = pd.DataFrame(
    {
        "age": made.integers(18, 80, 2000),
        "income": made.normal(50, 15, 2000),
        "visits": made.poisson(4, 2000),
    }
)
rows["churned"] = (0.03 * rows.age - 0.3 * rows.visits + made.normal(0, 0.8, 2000) > 0.3).astype(int)
train, test = train_test_split(rows, test_size=0.25, random_state=7)
inputs = ["age", "income", "visits"]

mlflow.set_experiment("churn")
with mlflow.start_run():
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(train[inputs], train.churned)
    mlflow.log_metric("accuracy", model.score(test[inputs], test.churned))
    mlflow.sklearn.log_model(
        model,
        name="model",
        registered_model_name="churn",
        serialization_format="cloudpickle",  # MLflow's own way for years
        pip_requirements=["scikit-learn"],
    )
mlflow.MlflowClient().set_registered_model_alias("churn", "champion", "1")

test.to_parquet(folder / "rows.parquet")
pd.DataFrame({"churn": model.predict_proba(test[inputs])[:, 1]}).to_parquet(folder / "answers.parquet")
