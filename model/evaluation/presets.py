"""Checks what a profile's preset means to a table's methods: some have none, and a base may be too small for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model.diffusion.base import Base
from model.evaluation.profiles import Profile
from model.evaluation.rows import Row, Source
from service.core.errors import UsageError
from service.core.options.methods import METHOD_OPTIONS
from service.core.options.presets import training_preset


def check_preset(profile: Profile, rows: Sequence[Row], sources: Mapping[str, Source], base: Base) -> list[str]:
    """Compare a profile's preset with methods and base; returns a sentence on the methods that have no such preset.

    Methods that train nothing are not named.

    Raises:
        UsageError: a row's method has the preset, and that is for pictures of another size than the base's.
    """
    if profile.preset is None:
        return []
    methods = dict.fromkeys(sources[row.source].method for row in rows if row.source)
    options = {method: METHOD_OPTIONS[method].of("training") for method in methods if method}
    having = [method for method, known in options.items() if "preset" in known]
    wanted = training_preset(profile.preset, bcm=False).get("resolution", base.resolution)
    if having and wanted != base.resolution:
        raise UsageError(
            f"the profile {profile.name} trains {' and '.join(having)} at {wanted} pixels, but base {base.name} draws "
            f"pictures of {base.resolution}: name a base of {wanted} pixels by --base, or take another profile"
        )
    lacking = [method for method, known in options.items() if "steps" in known and "preset" not in known]
    if not lacking:
        return []
    return [
        f"the preset {profile.preset} does not exist for {' and '.join(lacking)}: what the base recommends is taken"
    ]
