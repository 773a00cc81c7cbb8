"""A day of customers, older than those that the model was trained on, and what became of them.

python ask.py http://127.0.0.1:8000
"""

import csv
import json
import random
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

made = random.Random(11)


def advice(number: int, customer: dict[str, float]) -> dict[str, object]:
    body = json.dumps(customer).encode()
    address = f"{sys.argv[1]}/customers/{number}/advice"
    request = urllib.request.Request(address, body, {"content-type": "application/json"})
    for _ in range(300):  # the first customer waits for the service to come up
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the service did not come up")


with Path("labels.csv").open("w", newline="", encoding="utf-8") as file:
    labels = csv.writer(file)
    labels.writerow(["request_id", "churned", "known_at"])
    for number in range(400):
        customer = {
            "age": made.randint(45, 94),
            "income": round(made.gauss(50, 15), 2),
            "visits": sum(made.random() < 0.1 for _ in range(40)),
        }
        answer = advice(number, customer)
        left = 0.03 * customer["age"] - 0.3 * customer["visits"] + made.gauss(0, 0.8) > 0.3
        labels.writerow([number, int(left), datetime.now(UTC).isoformat()])
print(answer)
