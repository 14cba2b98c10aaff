"""Recognises a file by its first bytes: the accepted formats, and what is often sent in place of a picture."""

from __future__ import annotations

import re

FORMATS = "PNG, JPEG, BMP, TIFF or WebP"

HEAD_BYTES = 200
"""Bytes at a file's beginning that suffice to recognise it."""

_SAVE = "save it as PNG"
_EXPORT = "export masks as PNG, white (255) = defect and black = good"

_POINTERS = {
    rb"version https://git-lfs": "a Git LFS pointer, not the picture: fetch it with git lfs pull",
    rb"(?:\.\./|\.git/)*/?annex/objects/": "a git-annex pointer, not the picture: fetch it with git annex get",
    rb"outs:|md5:|deps:": "a DVC pointer, not the picture: fetch it with dvc pull",
    rb"XSym\n|!<symlink>|[ -~]{1,190}\.(?i:png|jpe?g|tiff?|bmp)\s*\Z": "a link, not the picture: copy the picture",
    rb"L\0\0\0\x01\x14\x02\0|\[InternetShortcut\]|book\0{4}mark": "a shortcut, not the picture: copy the picture",
}
"""Placeholders by their first bytes."""

_OTHERS = {
    rb"....ftyp(?:hei|hev|mif1|msf1)": f"an HEIC photograph: {_SAVE} or JPEG",
    rb"....ftypavi[fs]": f"an AVIF image: {_SAVE}",
    rb"....ftypcrx|FUJIFILMCCD-RAW|II\*\0....CR": "a camera's raw file: develop it, and save it as PNG or TIFF",
    rb"....ftyp|RIFF....AVI |\x1aE\xdf\xa3": "a video: save one of its pictures as PNG",
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51": f"a JPEG 2000 image: {_SAVE}",
    rb"\0\0\0\x0cJXL |\xff\x0a": f"a JPEG XL image: {_SAVE}",
    rb"II\xbc": f"a JPEG XR image: {_SAVE}",
    rb"GIF8": f"a GIF: {_SAVE}",
    rb"8BPS": f"a Photoshop file: {_SAVE}",
    rb"P[1-7]\s": f"a PNM image: {_SAVE}",
    rb"\0\0[\1\2]\0": f"an icon: {_SAVE}",
    rb"qoif|DDS |\x76\x2f\x31\x01|#\?RADIANCE|SIMPLE  =|icns": f"an image of another format: {_SAVE}",
    rb".{128}DICM": f"a DICOM file: {_SAVE} or as TIFF",
    rb"(?:\xef\xbb\xbf)?\s*(?:<[?!][^>]*>\s*)*<svg": f"a drawing (SVG): {_SAVE}",
    rb"(?i:(?:\xef\xbb\xbf)?\s*<(?:!doctype )?html)": "a web page: download the picture again",
    rb"(?:\xef\xbb\xbf)?\s*(?:[{\[]|<\?xml|<annotation)": f"an annotation: {_EXPORT}",
    rb"%PDF": f"a PDF: {_SAVE}",
    rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!": "an archive: unpack it",
    rb"\x93NUMPY|MATLAB |\x89HDF": "an array: save it as PNG, 255 = defect in a mask",
    rb"\0\x05\x16\x07": "a Mac's twin (AppleDouble) of a file: send the file itself",
}
"""Other files, by their first bytes, and what would be right; the first match counts."""


def image_format(head: bytes) -> str | None:
    """Recognise an accepted format by a file's first 12 bytes; returns Pillow's name of it, or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return None if head[8:10] == b"CR" else "TIFF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    return "BMP" if head.startswith(b"BM") else None


def what_else(head: bytes) -> str:
    """Say what a file of no accepted format is, as the end of a sentence that begins with its name.

    Args:
        head: the first `HEAD_BYTES` of the file.
    """
    for pattern, what in _POINTERS.items():
        if re.match(pattern, head):
            return f"is {what}"
    for pattern, what in _OTHERS.items():
        if re.match(pattern, head, re.DOTALL):
            return f"is not a {FORMATS} image but {what}"
    return f"is not a {FORMATS} image (it begins with {head[:8]!r})"
