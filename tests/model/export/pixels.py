"""Reading pictures back."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pixels(file: Path | IO[bytes]) -> NDArray[np.uint8]:
    """`(H, W)` for grey, `(H, W, 3)` for colour, as stored."""
    with Image.open(file) as image:
        assert image.mode in {"L", "RGB"}
        return np.array(image)
