"""Threads spin only briefly, in workers as on the command line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from model.runtime.threads import BRIEFLY

CLI = "import model.cli.app; model.cli.app.app = lambda **_: None; import model.cli; model.cli.main()"


@pytest.mark.parametrize("begin", ["import worker.app", CLI], ids=["worker", "command line"])
@pytest.mark.parametrize("chosen", [None, "active"])
def test_threads_spin_briefly_unless_the_user_chose_otherwise(begin: str, chosen: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in BRIEFLY}
    environment |= {} if chosen is None else {"OMP_WAIT_POLICY": chosen}
    told = "os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules"
    code = f"import os, sys; {begin}; print({told})"
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [*(["passive", "2000"] if chosen is None else [chosen, "None"]), "False"]
