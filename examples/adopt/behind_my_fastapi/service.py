"""The same service with a verified release in it, and a log of what it answered.

uvicorn service:app
"""

from fastapi import FastAPI
from pydantic import BaseModel, Field

import seatrial

app = FastAPI(title="Advice")
model = seatrial.load("churn.seatrial", trusted="keys", log="log")


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
    answer = model.predict(customer.model_dump(), request_id=number)
    return Advice(number=number, churn_risk=answer["probability"], call=answer["prediction"])
