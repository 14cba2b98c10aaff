"""A client of the service, which trains adapters, runs jobs that generate datasets, and waits for both.

    with Client("http://127.0.0.1:8000") as client:
        adapter = client.create_adapter(images, masks, name="scratch", steps=400)
        client.wait(adapter.id, print)
        job = client.create_job(adapter.id, num_pairs=64, formats=["coco"])
        client.wait(job.id, print)
        client.download(job.id, Path("dataset.zip"))

The client repeats requests when the connection breaks or the server is temporarily unavailable. That does no harm,
because requests that create something carry an `Idempotency-Key`.
"""

from __future__ import annotations

from service.client.client import Client
from service.client.resources import HeldOut, Page, Progress, Resource
from service.client.transport import ApiError

__all__ = ["ApiError", "Client", "HeldOut", "Page", "Progress", "Resource"]
