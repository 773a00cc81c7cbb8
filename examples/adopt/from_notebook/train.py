"""What a team has before: a fit in a script or a notebook. The last lines are all that is new.

python train.py
"""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

made = np.random.default_rng(7)
rows = pd.DataFrame(
    {
        "age": made.integers(18, 80, 2000),
        "income": made.normal(50, 15, 2000),
        "visits": made.poisson(4, 2000),
    }
)
churned = (0.03 * rows.age - 0.3 * rows.visits + made.normal(0, 0.8, 2000) > 0.3).astype(int)
X_train, X_test, y_train, y_test = train_test_split(rows, churned, test_size=0.25, random_state=7)
model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(X_train, y_train)

import seatrial  # noqa: E402  (what is new stands together)

run = seatrial.log_run(
    model,
    X_train,
    y_train,
    X_test,
    y_test,
    name="churn",
    params={"C": 0.5},
    target="churned",
    owner="crm",
    runbook="docs/runbook.md",
)
print(run.run, "" if run.reproducible else run.why)
