"""A service of one's own, as it was: its own route, its own words, its own types.

uvicorn before:app
"""

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel, Field

app = FastAPI(title="Advice")
model = joblib.load("model.joblib")


class Customer(BaseModel):
    age: int = Field(ge=18, le=120)
    income: float
    visits: int


class Advice(BaseModel):
    number: str
    churn_risk: float
    call: bool


@app.post("/customers/{number}/advice")
def advise(number: str, customer: Customer) -> Advice:
    risk = float(model.predict_proba(pd.DataFrame([customer.model_dump()]))[0, 1])
    return Advice(number=number, churn_risk=risk, call=risk >= 0.5)
