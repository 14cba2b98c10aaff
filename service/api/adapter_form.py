"""The form of `POST /adapters`: its schema, and how it is read as a request."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from service.api.problems import pointer
from service.api.uploads import HELD_OUT_PAIRS, KINDS, PAIRS, Form, kind_and_defect
from service.core.errors import UsageError
from service.core.object_keys import Upload
from service.core.options.declaration import reason
from service.core.options.methods import DEFAULT_METHOD, METHOD_OPTIONS, ON_NORMALS, TYPED, refusals
from service.core.requests import AdapterRequest, Phrase, TrainingOptions
from service.core.strict_json import parse
from service.core.uploads.decoding import ImageLimits
from service.core.uploads.formats import FORMATS
from service.core.uploads.reading import chosen_reading

_LIMITS = ImageLimits()
_KINDS = (
    f"{FORMATS}, at most {_LIMITS.max_side} pixels a side and {_LIMITS.max_pixels / 1e6:.1f} megapixels each, unless "
    "the server is set otherwise"
)
_NAME: TypeAdapter[str] = TypeAdapter(Phrase)

_ON_NORMALS = ", ".join(method for method in METHOD_OPTIONS if method in ON_NORMALS)

_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}

_READING = {
    "brightness": "`LOW:HIGH`: the values that become black and white in pictures with more than 8 bits.",
    "mask_values": "Mask values or colours that mark the defect, such as `1,2` or `#ff0000`.",
}
"""Fields that say how to read the files; a missing one is derived from the files."""


def _form_schema() -> dict[str, Any]:
    """Build the form schema of `POST /adapters`: files, request fields and training options on one level."""
    fields: dict[str, Any] = {}
    for model in (AdapterRequest, TrainingOptions):
        fields |= model.model_json_schema()["properties"]
    fields["training"] = {
        "type": "string",
        "description": "Training options as a JSON object, as in an adapter's `request`, or each in an own field.",
    }
    fields["metadata"] = {"type": "string", "description": fields["metadata"]["description"] + " As a JSON object."}
    return {
        "type": "object",
        "required": ["name"],
        "patternProperties": {
            r"^images\[[^\[\]]+\]$": {**_FILES, "description": "Photographs of a defect type, as in `images[crack]`."},
            r"^masks\[[^\[\]]+\]$": {**_FILES, "description": "Their masks, as in `masks[crack]`."},
            r"^held_out_images\[[^\[\]]+\]$": {
                **_FILES,
                "description": "Held-out photographs of a defect type that is trained on, as in "
                "`held_out_images[crack]`; every type needs some.",
            },
            r"^held_out_masks\[[^\[\]]+\]$": {
                **_FILES,
                "description": "Their masks, as in `held_out_masks[crack]`.",
            },
        },
        "properties": {
            "images[]": {
                **_FILES,
                "description": f"Photographs of the defect: {_KINDS}. Of several defect types of one product, name the "
                "type in the field: `images[crack]`, `images[break]`.",
            },
            "masks[]": {
                **_FILES,
                "description": "The images' masks, with the same file names, with or without a suffix such as `_mask` "
                "or `_mask_0`; several of one image are joined. White marks the defect. Of several types: "
                "`masks[crack]`, `masks[break]`.",
            },
            "normals[]": {
                **_FILES,
                "description": "Photographs of defect-free parts, used for training and as backgrounds. At least one "
                f"is needed with {_ON_NORMALS}, whose jobs make every pair on one of them.",
            },
            "held_out_images[]": {
                **_FILES,
                "description": "Photographs of the defect on other parts, which no training sees; jobs are evaluated "
                "on them. Each counts as one part: hold out as many photographs of every part. Of several types: "
                "`held_out_images[crack]`, `held_out_images[break]`, for numbers of each type and of how well they "
                "are told apart; without the names all types are measured together.",
            },
            "held_out_masks[]": {
                **_FILES,
                "description": "One mask per held-out image, with the same file name. Of several types: "
                "`held_out_masks[crack]`, `held_out_masks[break]`.",
            },
            "held_out_normals[]": {**_FILES, "description": "Photographs of further defect-free parts, likewise."},
            **{name: {"type": "string", "description": text} for name, text in _READING.items()},
            **fields,
        },
    }


_SCRATCHES = {
    "images[]": ["scratch_1.png", "scratch_2.png"],
    "masks[]": ["scratch_1.png", "scratch_2.png"],
    "name": "scratches",
}

_EXAMPLES = {
    "dualanodiff": {"summary": "Train a model", "value": {**_SCRATCHES, "steps": 1000}},
    "anomalydiffusion": {
        "summary": "Learn a defect that is then drawn into masks, where you want it on your good parts",
        "value": {**_SCRATCHES, "normals[]": ["good_1.png", "good_2.png"], "method": "anomalydiffusion"},
    },
    "defect-types": {
        "summary": "Learn several defect types of one product; jobs say how many pairs of each they want",
        "value": {
            "images[crack]": ["001.png", "002.png"],
            "masks[crack]": ["001.png", "002.png"],
            "images[break]": ["001.png", "005.png"],
            "masks[break]": ["001.png", "005.png"],
            "normals[]": ["good_1.png", "good_2.png"],
            "name": "tiles",
            "method": "anomalydiffusion",
        },
    },
    "held-out": {
        "summary": "Train a model, and keep photographs back to measure what its pairs are worth",
        "value": {
            **_SCRATCHES,
            "held_out_images[]": ["scratch_3.png", "scratch_4.png"],
            "held_out_masks[]": ["scratch_3.png", "scratch_4.png"],
            "held_out_normals[]": ["good_2.png"],
        },
    },
    "copy-paste": {
        "summary": "Keep the real defects, to copy them",
        "value": {**_SCRATCHES, "normals[]": ["good_1.png"], "method": "copy-paste", "flip_vertical": False},
    },
}

FORM = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": _form_schema(), "examples": _EXAMPLES}},
    }
}
"""The body of `POST /adapters` in the OpenAPI document."""


def read_request(form: Form) -> tuple[AdapterRequest | None, list[dict[str, Any]]]:
    """Parse the form's fields; returns the request, or None, and all mistakes found in the form."""
    own = AdapterRequest.model_fields.keys() - {"training"}
    values: dict[str, Any] = {name: text for name, text in form.fields.items() if name in own}
    errors: list[dict[str, Any]] = list(form.errors)
    options = {name: text for name, text in form.fields.items() if name not in own | _READING.keys()}
    for name in [name for name in options if kind_and_defect(name)[0] in KINDS]:
        text = options.pop(name)
        detail = (
            f"{name} is the text {text!r:.60} and not a file: with curl, write an @ before the file's name, "
            f"as in -F '{name}=@scratch.png'"
        )
        errors.append({"pointer": pointer(name), "detail": detail})
    values["training"] = _training(options, errors)
    for name in _READING.keys() & form.fields.keys():
        try:
            chosen_reading(**{**dict.fromkeys(_READING), name: form.fields[name]})
        except UsageError as error:
            errors += [{"pointer": pointer(name), "detail": problem} for problem in error.problems]
    errors += _missing_normals(form)
    try:
        wanted = AdapterRequest.model_validate(values)
    except ValidationError as error:
        for entry in error.errors():
            name = str(entry["loc"][-1 if entry["loc"][0] == "training" else 0])
            errors.append({"pointer": pointer(name), "detail": f"{name}: {reason(entry)}"})
        return None, errors
    refused = refusals("training", wanted.method, wanted.training.model_dump())
    errors += [{"pointer": pointer(name), "detail": detail} for name, detail in refused.items()]
    errors += _unfit_types(form, wanted.method)
    if types := form.types(PAIRS):
        wanted = wanted.model_copy(update={"defect": ", ".join(types)})
    return wanted, errors


def _missing_normals(form: Form) -> list[dict[str, Any]]:
    """Find whether the method needs good parts and gets none; its jobs use those of the upload alone."""
    method = form.fields.get("method", DEFAULT_METHOD)
    if method not in ON_NORMALS or form.of(Upload.NORMALS):
        return []
    detail = (
        f"{method} makes every pair on a photograph of a good part, and none was sent: send at least one as normals[], "
        "better a few dozen"
    )
    return [{"pointer": pointer(Upload.NORMALS), "detail": detail}]


def _unfit_types(form: Form, method: str) -> list[dict[str, Any]]:
    """Find what is wrong with the defect types that a form names."""
    types, errors = form.types(PAIRS), []
    for name in form.types(PAIRS + HELD_OUT_PAIRS):
        try:
            _NAME.validate_python(name)
        except ValidationError:
            detail = f"{name!r:.100} is no name of a defect type: at most 80 printable characters"
            errors.append({"pointer": pointer("images", name), "detail": detail})
    if types and (form.of(Upload.IMAGES) or form.of(Upload.MASKS)):
        detail = (
            f"some files name a defect type ({', '.join(types)}) and some do not: name the type of all, as in "
            f"images[{types[0]}], or of none"
        )
        errors.append({"pointer": pointer("images"), "detail": detail})
    if types and "defect" in form.fields:
        detail = f"defect names the one type of an upload, and the files name theirs, {', '.join(types)}: leave it out"
        errors.append({"pointer": pointer("defect"), "detail": detail})
    if len(types) > 1 and method not in TYPED:
        detail = (
            f"{method} learns one defect type per adapter, and these are {len(types)} ({', '.join(types)}): choose "
            f"{' or '.join(sorted(TYPED))}, or send each type as an adapter of its own"
        )
        errors.append({"pointer": pointer("method"), "detail": detail})
    return errors + _unfit_held_out_types(form, types)


def _unfit_held_out_types(form: Form, types: list[str]) -> list[dict[str, Any]]:
    """Find what is wrong with the types of held-out files: all of them name theirs, and each type has some, or none."""
    named, errors = form.types(HELD_OUT_PAIRS), []
    if not named:
        return []
    if unknown := [name for name in named if name not in types]:
        detail = (
            f"nothing to train on shows {', '.join(unknown)}, of which photographs are held out: give "
            f"images[{unknown[0]}] and its masks, or hold out the types that are trained on"
        )
        errors.append({"pointer": pointer(Upload.HELD_OUT_IMAGES, unknown[0]), "detail": detail})
    if any(form.of(kind) for kind in HELD_OUT_PAIRS):
        detail = "some held-out files name a defect type and some do not: name the type of all, or of none"
        errors.append({"pointer": pointer(Upload.HELD_OUT_IMAGES), "detail": detail})
    if missing := [name for name in types if name not in named]:
        detail = (
            f"no photograph of {', '.join(missing)} is held out: give held_out_images[{missing[0]}] and its masks, or "
            "held_out_images[] for all types together"
        )
        errors.append({"pointer": pointer(Upload.HELD_OUT_IMAGES), "detail": detail})
    return errors


def _training(options: dict[str, str], errors: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the options that are fields of their own with those in `training`, which is as an adapter shows them."""
    text = options.pop("training", "{}")
    try:
        nested = parse(text)
    except ValueError:
        nested = None
    if not isinstance(nested, dict):
        detail = f'training is {text!r:.60}; it must be a JSON object such as {{"steps": 1000}}'
        errors.append({"pointer": pointer("training"), "detail": detail})
        return dict(options)
    twice = nested.keys() & options.keys()
    errors += [{"pointer": pointer(name), "detail": f"{name} is given twice: give it once"} for name in sorted(twice)]
    return {**nested, **options}
