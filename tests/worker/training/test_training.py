"""One attempt at a training: what it stores, how it hands over, and how it ends."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.diffusion.base import Base
from model.training import early_stopping
from service.core import object_keys
from service.core.messaging import pending_ids
from service.core.record import State
from tests.support.servers import RedisServer
from tests.worker.ending import asked_to_end_at
from tests.worker.stored import Service, files_of, train_by_library
from worker.training.run import run_training


def test_a_training_stores_what_the_library_makes(service: Service, library_adapter: Path) -> None:
    adapter = service.create_adapter()
    run_training(adapter, service.context())
    record = service.record(adapter)
    assert record.state is State.SUCCEEDED, record.error
    assert record.result is not None
    assert service.artifact(adapter) == files_of(library_adapter)
    assert {file["path"] for file in record.result["files"]} == {*files_of(library_adapter), "run.json"}
    assert record.result["loss"] == record.result["card"]["loss_curve"]
    assert list(record.result["samples"]) == ["3", "6"]
    for key in record.result["samples"].values():
        service.objects.download(key, service.settings.spool_dir / "sheet.png")
        with Image.open(service.settings.spool_dir / "sheet.png") as sheet:
            assert np.asarray(sheet).std() > 5
    assert service.folders(adapter) == {"inputs", "inputs.json", "artifact", "samples"}
    assert record.stored_bytes == sum(each.size for each in service.objects.list(object_keys.prefix(adapter)))


def test_the_resolved_request_and_the_stages_are_told(service: Service) -> None:
    adapter = service.create_adapter(steps=3, checkpoint_every=2, rank=None)
    run_training(adapter, service.context())
    told = [event.data["progress"] for event in service.store.records.events(adapter) if event.data["progress"]]
    stages = list(dict.fromkeys(progress["stage"] for progress in told))
    assert (told[-1]["stage"], told[-1]["completed"], told[-1]["total"]) == ("finish", 1, 1)
    assert stages[0] == "prepare"
    assert stages[-2:] == ["train", "finish"]
    assert told[-1]["request"]["training"]["rank"] == 32  # the paper's, as nobody chose
    assert service.record(adapter).checkpoint["step"] == 2


def test_after_an_early_stop_the_last_sheet_is_of_the_weights_that_were_kept(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At this learning rate it soon gets worse; the checkpoint of the last step, for the masks, has no sheet."""
    for name in ("PATIENCE", "MEASURE_EVERY", "LEAST_PAIRS", "LEAST_OF_TYPE"):
        monkeypatch.setattr(early_stopping, name, 2)
    adapter = service.create_adapter(steps=40, checkpoint_every=1000, lr=1.0, mask_steps=1)
    run_training(adapter, service.context())
    record = service.record(adapter)
    assert record.state is State.SUCCEEDED, record.error
    assert record.result is not None
    card = record.result["card"]
    assert card["kept_step"] < card["steps"] < 40
    assert list(record.result["samples"]) == [str(card["kept_step"])]


def test_a_training_that_is_asked_to_end_hands_over_and_is_finished_by_another(
    service: Service, base: Base, redis_server: RedisServer, tmp_path: Path
) -> None:
    """No regular checkpoint comes in between: what is handed over is the one made on the spot."""
    chosen = {"steps": 8, "checkpoint_every": 1000}
    adapter = service.create_adapter(**chosen)
    with asked_to_end_at(service, redis_server, b'"stage": "train"') as context:
        run_training(adapter, context)
    record = service.record(adapter)
    assert (record.state, record.attempt) == (State.QUEUED, 0)
    assert record.checkpoint is not None
    assert 0 < record.checkpoint["step"] < 8
    assert adapter in pending_ids(service.store.redis)
    run_training(adapter, service.context())
    assert service.artifact(adapter) == files_of(train_by_library(base, tmp_path, **chosen))


def test_the_first_checkpoint_is_early_and_changes_nothing(
    service: Service, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.training.run.FIRST_CHECKPOINT_SECONDS", 0.0)
    chosen = {"steps": 6, "checkpoint_every": 1000}
    adapter = service.create_adapter(**chosen)
    saved: list[int] = []
    context = service.context()
    save = context.store.claims.save_checkpoint
    monkeypatch.setattr(
        context.store.claims, "save_checkpoint", lambda *given: saved.append(given[2]["step"]) or save(*given)
    )
    run_training(adapter, context)
    assert saved[0] == 1
    record = service.record(adapter)
    assert record.result is not None
    assert "1" not in record.result["samples"]
    assert service.artifact(adapter) == files_of(train_by_library(base, tmp_path, **chosen))


def test_a_training_whose_checkpoint_is_lost_begins_anew(service: Service, library_adapter: Path) -> None:
    adapter = service.create_adapter()
    assert service.store.claims.claim(adapter, "before")
    lost = {
        "step": 3,
        "owner": "before",
        "files": ["elapsed.json", "loss.safetensors"],
        "samples": {"3": "gone"},
        "loss": [],
    }
    assert service.store.claims.save_checkpoint(adapter, "before", lost)
    assert service.store.claims.release(adapter, "before")
    run_training(adapter, service.context())
    record = service.record(adapter)
    assert record.state is State.SUCCEEDED, record.error
    assert record.result is not None
    assert list(record.result["samples"]) == ["3", "6"]
    assert "gone" not in record.result["samples"].values()
    assert service.artifact(adapter) == files_of(library_adapter)


def test_a_message_delivered_twice_changes_nothing(service: Service) -> None:
    adapter = service.create_adapter(steps=1)
    run_training(adapter, service.context())
    before = service.record(adapter)
    run_training(adapter, service.context())
    assert service.record(adapter) == before


def test_a_record_that_somebody_alive_holds_is_left_alone(service: Service) -> None:
    """It is not waited for either: the hold of one who is dead would be over, and taken, before this is."""
    adapter, context = service.create_adapter(steps=1), service.context(lease_seconds=60.0)
    assert context.store.claims.claim(adapter, "somebody")
    run_training(adapter, context)
    assert service.record(adapter).owner == "somebody"


def test_a_record_whose_holder_died_is_taken_over(service: Service) -> None:
    adapter = service.create_adapter(steps=1)
    assert service.store.claims.claim(adapter, "somebody")
    time.sleep(0.3 * service.settings.lease_seconds)
    run_training(adapter, service.context())
    assert service.record(adapter).state is State.SUCCEEDED


def test_a_training_that_diverges_fails_as_such_and_is_not_tried_again(service: Service) -> None:
    adapter = service.create_adapter(steps=400, lr=1e30, interaction_lr=1e30)
    run_training(adapter, service.context())
    record = service.record(adapter)
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error["code"] == "diverged"
    assert "lower lr and interaction_lr" in record.error["problems"][0]


def test_options_that_do_not_fit_the_base_fail_with_every_reason(service: Service) -> None:
    adapter = service.create_adapter(resolution=33, warmup=-1)
    run_training(adapter, service.context())
    error = service.record(adapter).error
    assert error is not None
    assert error["code"] == "unusable_input"
    assert len(error["problems"]) == 2
    assert any("resolution is 33" in problem for problem in error["problems"])
