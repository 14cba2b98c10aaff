"""Writes the folder layout of MVTec AD (Bergmann et al., CVPR 2019), which anomalib's `MVTecAD` reads directly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from model.export.formats import Entry, StoredNormal, StoredPair
from model.export.names import folder_name

TEST_EVERY = 5
"""One normal image in five goes to the test set, starting with the second: two images give one for each set."""


class MVTecLayout:
    """Writes `mvtec/<object>/{train/good, test/good, test/<defect>, ground_truth/<defect>}`.

    Args:
        num_pairs: sets the number of digits. Readers match images to masks by sorting both, and without equal lengths
            `1000.png` sorts after `100.png` but `1000_mask.png` before `100_mask.png`.
    """

    def __init__(self, object_name: str, defects: Sequence[str], num_pairs: int) -> None:
        self._root = f"mvtec/{folder_name(object_name, 'object')}"
        self._defects: list[str] = []
        for number, name in enumerate(defects, start=1):
            folder = folder_name(name, "defect")
            # Every reader takes `good` for healthy, and some file systems ignore the case of `Good`.
            folder = f"defect_{folder}" if folder.lower() == "good" else folder
            taken = folder.lower() in (other.lower() for other in self._defects)
            self._defects.append(f"{folder}_{number}" if taken else folder)
        self._digits = max(3, len(str(num_pairs - 1)))

    def stem(self, number: int) -> str:
        """Return the name of a pair's image, which its mask's name starts with."""
        return f"{number:0{self._digits}d}"

    def pair(self, pair: StoredPair) -> Iterator[Entry]:
        """Yield the image and its mask, `000.png` and `000_mask.png`."""
        stem, defect = self.stem(pair.number), self._defects[pair.defect]
        yield f"{self._root}/test/{defect}/{stem}.png", pair.image_png
        yield f"{self._root}/ground_truth/{defect}/{stem}_mask.png", pair.mask_png

    def normal(self, normal: StoredNormal) -> Iterator[Entry]:
        """Yield the image, for training or for testing."""
        split = "test" if normal.number % TEST_EVERY == 1 else "train"
        yield f"{self._root}/{split}/good/{normal.number:03d}.png", normal.image_png

    def close(self) -> Iterator[Entry]:
        """Yield nothing; the layout has no index file."""
        yield from ()
