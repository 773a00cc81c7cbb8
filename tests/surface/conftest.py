import pytest


@pytest.fixture(autouse=True)
def without_mirror(monkeypatch):
    """No MLflow: its first use takes seconds. What it is told stays in the outbox, where tests look."""
    monkeypatch.setenv("SEATRIAL_STORES_MLFLOW", "")
