"""The kinds of image files that are read, told without TensorFlow."""


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
    if encoded[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    return None
