"""What the team has: a fit, kept with joblib. The last lines are new: the same model as skops, and rows beside it.

python train.py
"""

import joblib
import numpy as np
import pandas as pd
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

made = np.random.default_rng(7)
rows = pd.DataFrame(
    {
        "age": made.integers(18, 80, 2000),
        "income": made.normal(50, 15, 2000).round(2),
        "visits": made.poisson(4, 2000),
    }
)
rows["churned"] = (0.03 * rows.age - 0.3 * rows.visits + made.normal(0, 0.8, 2000) > 0.3).astype(int)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[["age", "income", "visits"]], rows.churned)
joblib.dump(model, "model.joblib")

skops.io.dump(model, "model.skops")
rows.to_parquet("rows.parquet", index=False)
