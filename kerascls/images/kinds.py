"""Kinds of image files, told by their first bytes: those that are read, and those that are refused by name."""

import os
import re
from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff")  # what image files end in
HEAD_BYTES = 1024  # of a file, which tell its kind
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # of either byte order, the latter two of BigTIFF

_UNREAD_BYTES = (  # where they stand, the bytes, and the kind
    (0, b"8BPS", "PSD"),
    (0, b"%PDF-", "PDF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (0, b"II\xbc\x01", "JPEG XR"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (0, b"gimp xcf ", "XCF"),
    (0, b"DDS \x7c\0\0\0", "DDS"),
    (0, b"SIMPLE  =", "FITS"),
    (128, b"DICM", "DICOM"),
    (8, b"CR\x02", "camera RAW"),  # Canon's CR2, whose first directory holds a small preview
    (0, b"IIRO", "camera RAW"),  # Olympus
    (0, b"IIRS", "camera RAW"),
    (0, b"MMOR", "camera RAW"),
    (0, b"IIU\0", "camera RAW"),  # Panasonic
    (0, b"FUJIFILMCCD-RAW", "camera RAW"),
    (0, b"FOVb", "camera RAW"),  # Sigma
    (0, b"\0MRM", "camera RAW"),  # Minolta
)
_UNREAD_PATTERNS = (
    (re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:svg[\s>]|(?:\?xml|!--|!DOCTYPE svg)(?s:.*)<svg[\s>])"), "SVG"),
    (re.compile(rb"P[1-6]\s(?:\s|#.*\n)*\d+\s+\d+\s"), "PNM"),
    (re.compile(rb"\0\0[\x01\x02]\0[^\0]\0(?s:...)\0"), "ICO"),
)
_BRANDS = {  # of files that begin with a box `ftyp`: ISO/IEC 14496-12, 23008-12 and the AV1 image file format
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"),
    b"crx ": "camera RAW",
    **dict.fromkeys((b"mif1", b"mif2", b"msf1", b"miaf"), "HEIF"),  # which often have one of the others behind them
}
_RAW_SUFFIXES = (
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mrw .nef .nrw .orf .pef .raf .rw2 .sr2 .srw .x3f"
)
_UNREAD_SUFFIXES = {
    **dict.fromkeys((".heic", ".heics"), "HEIC"),
    **dict.fromkeys((".heif", ".heifs", ".hif"), "HEIF"),
    **dict.fromkeys((".avif", ".avifs"), "AVIF"),
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx", ".jpm", ".j2c"), "JPEG 2000"),
    **dict.fromkeys((".jxr", ".wdp", ".hdp"), "JPEG XR"),
    **dict.fromkeys((".psd", ".psb"), "PSD"),
    **dict.fromkeys((".svg", ".svgz"), "SVG"),
    **dict.fromkeys((".ico", ".cur"), "ICO"),
    **dict.fromkeys((".pbm", ".pgm", ".ppm", ".pnm"), "PNM"),
    **dict.fromkeys(_RAW_SUFFIXES.split(), "camera RAW"),
    **{".jxl": "JPEG XL", ".jls": "JPEG-LS", ".pdf": "PDF", ".exr": "OpenEXR", ".xcf": "XCF", ".dds": "DDS"},
    **{".tga": "TGA", ".dcm": "DICOM", ".fits": "FITS"},
}
UNREAD_KINDS = frozenset(_UNREAD_SUFFIXES.values())


def image_kind(encoded: bytes) -> str | None:
    """`png`, `jpeg`, `gif`, `bmp`, `webp` or `tiff` by the first bytes; None for anything else."""
    if encoded[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if encoded[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if encoded[:4] == b"GIF8":
        return "gif"
    if encoded[:2] == b"BM":
        return "bmp"
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "webp"
    if encoded[:4] in TIFF_HEADS:
        return "tiff"
    return None


def unread_kind(encoded: bytes, name: str | Path = "") -> str | None:
    """The kind of image that is not read, as "HEIC", by a file's first bytes, or by its name where they tell nothing.

    >>> unread_kind(b"\\0\\0\\0\\x18ftypheic", "photo.jpg")
    'HEIC'
    >>> unread_kind(b"no known bytes", "IMG_0001.HEIC")
    'HEIC'
    """
    by_name = unread_suffix(name)
    if encoded[4:8] == b"ftyp":
        size = min(int.from_bytes(encoded[:4], "big"), HEAD_BYTES)
        brands = [encoded[at : at + 4] for at in (8, *range(16, size, 4))]
        known = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return next((kind for kind in known if kind != "HEIF"), known[0] if known else by_name)
    for at, magic, kind in _UNREAD_BYTES:
        if encoded.startswith(magic, at):
            return kind
    for pattern, kind in _UNREAD_PATTERNS:
        if pattern.match(encoded[:HEAD_BYTES]):
            return kind
    kind = image_kind(encoded)
    return by_name if kind is None or (kind == "tiff" and by_name == "camera RAW") else None


def unread_suffix(name: str | Path) -> str | None:
    """The kind of image that is not read which a file's name ends in."""
    return _UNREAD_SUFFIXES.get(os.path.splitext(str(name))[1].lower())


def refusal(encoded: bytes, name: str | Path) -> str | None:
    """Why a file is not read, by its first bytes and its name; None if it is to be decoded."""
    if not encoded:
        return "is empty"
    if unread := unread_kind(encoded, name):
        return f"is {unread}, which kerascls does not read: convert it to JPEG or PNG"
    return None if image_kind(encoded) else "is not an image"
