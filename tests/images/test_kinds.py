"""Kinds of image files that are not read: told by their bytes under any name, counted as images, and said by name."""

import io

import numpy as np
import pytest
from conftest import here, one_line_error
from PIL import Image

from kerascls.data import loading
from kerascls.errors import DataError
from kerascls.images import pillow
from kerascls.images.files import looks_like_image
from kerascls.images.kinds import image_kind, refusal, unread_kind
from kerascls.images.read import read_pixels


def encoded(kind, **options):
    written = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 120, np.uint8)).save(written, kind, **options)
    return written.getvalue()


def ftyp(major, *compatible):
    brands = b"".join(compatible)
    return (16 + len(brands)).to_bytes(4, "big") + b"ftyp" + major + bytes(4) + brands + bytes(range(256)) * 4


UNREAD = {
    "heic": (ftyp(b"heic", b"mif1", b"heic"), "HEIC"),
    "heic of a generic brand": (ftyp(b"mif1", b"mif1", b"heix"), "HEIC"),
    "heic without compatible brands": (b"\0\0\0\x18ftypheic" + bytes(4), "HEIC"),
    "heif": (ftyp(b"mif1", b"miaf"), "HEIF"),
    "avif": (ftyp(b"avif", b"avif", b"mif1", b"miaf"), "AVIF"),
    "avif of a generic brand": (ftyp(b"mif1", b"miaf", b"avif"), "AVIF"),
    "canon cr3": (ftyp(b"crx ", b"crx ", b"isom"), "camera RAW"),
    "canon cr2": (b"II*\0\x10\0\0\0CR\x02\0" + bytes(400), "camera RAW"),
    "olympus": (b"IIRO\x08\0\0\0" + bytes(400), "camera RAW"),
    "panasonic": (b"IIU\0\x18\0\0\0" + bytes(400), "camera RAW"),
    "fujifilm": (b"FUJIFILMCCD-RAW 0201" + bytes(400), "camera RAW"),
    "jxl codestream": (b"\xff\x0a\xfa\x1f" + bytes(40), "JPEG XL"),
    "jxl": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
    "jp2": (encoded("jpeg2000"), "JPEG 2000"),
    "j2k": (b"\xff\x4f\xff\x51\0\x2f" + bytes(40), "JPEG 2000"),
    "jls": (b"\xff\xd8\xff\xf7\0\x0b" + bytes(40), "JPEG-LS"),
    "psd": (b"8BPS\0\x01" + bytes(40), "PSD"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "svg with a head": (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- drawn -->\n<svg width="9"></svg>', "SVG"),
    "pdf": (encoded("pdf"), "PDF"),
    "ico": (encoded("ico"), "ICO"),
    "ppm": (encoded("ppm"), "PNM"),
    "pgm with a comment": (b"P2\n# by hand\n2 1\n255\n0 255\n", "PNM"),
    "dds": (encoded("dds"), "DDS"),
    "exr": (b"v/1\x01\x02\0\0\0" + bytes(40), "OpenEXR"),
    "hdr": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "Radiance HDR"),
    "dicom": (bytes(128) + b"DICM" + bytes(40), "DICOM"),
    "fits": (b"SIMPLE  =                    T" + bytes(40), "FITS"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_kind_that_is_not_read_is_named_under_any_name(name, tmp_path):
    content, kind = UNREAD[name]
    reason = f"is {kind}, which kerascls does not read: convert it to JPEG or PNG"
    for file in ("photo.jpg", "photo"):
        path = tmp_path / file
        path.write_bytes(content)
        assert refusal(content[:1024], path) == reason and looks_like_image(path)
        for road in (read_pixels, pillow.read_pixels):
            with pytest.raises(DataError) as error:
                road(path, (16, 16, 3))
            assert str(error.value) == f"{path}: {reason}."


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "webp", "tiff"])
def test_a_kind_that_is_read_is_taken_for_no_other(kind):
    content = encoded(kind)
    assert (image_kind(content), unread_kind(content, "photo.heic"), refusal(content, "photo.heic")) == (
        kind,
        None,
        None,
    )


@pytest.mark.parametrize(
    "content, name, kind",
    [
        (b"nothing known", "IMG_1.HEIC", "HEIC"),
        (b"nothing known", "a.b/IMG_1.AvIf", "AVIF"),
        (b"nothing known", "scan.tga", "TGA"),
        (b"II*\0\x08\0\0\0\0\0", "photo.NEF", "camera RAW"),  # a TIFF inside, whose first image is a preview
        (b"II*\0\x08\0\0\0\0\0", "photo.tif", None),
        (b"P1 is a name", "notes.txt", None),
        (b"\0\0\0\x18ftypisom" + bytes(16), "film.mp4", None),
        (b"<?xml version='1.0'?><note>", "note.xml", None),
        (b"BMW", "cars", None),
        (b"", "", None),
    ],
)
def test_a_name_tells_the_kind_where_the_bytes_do_not(content, name, kind):
    assert unread_kind(content, name) == kind


def test_an_empty_file_is_empty_whatever_its_name(tmp_path):
    assert refusal(b"", "IMG_1.HEIC") == "is empty"


def test_images_of_a_folder_that_are_not_read_count_as_bad(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "d" / name / f"{i}.jpg").write_bytes(encoded("jpeg", quality=50 + i))
            (tmp_path / "d" / name / f"IMG_{i}.HEIC").write_bytes(UNREAD["heic"][0])
    with pytest.raises(DataError) as error:
        loading.load_dataset(str(tmp_path / "d"), image_shape=(16, 16, 3))
    assert "20 of 40 images cannot be read" in str(error.value)
    assert "is HEIC, which kerascls does not read: convert it to JPEG or PNG" in str(error.value)


def test_predict_says_what_it_passes_over_in_a_folder(digits_run, tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(encoded("jpeg"))
    (folder / "2.HEIC").write_bytes(UNREAD["heic"][0])
    (folder / "3.heic").write_bytes(UNREAD["heic"][0])
    (folder / "4.avif").write_bytes(UNREAD["avif"][0])
    for name in ("notes.txt", "more.txt", "LICENSE", ".hidden.txt"):
        (folder / name).write_text("hello")
    code, out, err = here("predict", digits_run, "mixed", "--json", capsys=capsys)
    assert code == 0 and out.count("\n") == 1 and '"file": "mixed/1.jpg"' in out
    assert (
        "Passed over in mixed: 1 AVIF, 2 HEIC, 2 .txt, 1 without a suffix. "
        "kerascls does not read AVIF, HEIC: convert them to JPEG or PNG.\n" in err
    )
    (folder / "1.jpg").write_bytes(UNREAD["avif"][0])
    code, out, err = here("predict", digits_run, "mixed/1.jpg", capsys=capsys)
    assert code == 1 and "mixed/1.jpg: is AVIF, which kerascls does not read: convert it to JPEG or PNG." in err
    (folder / "1.jpg").unlink()
    error = one_line_error("predict", digits_run, "mixed", capsys=capsys)
    assert error.startswith("Error: Folder mixed has no images.") and "Received: 1 AVIF, 2 HEIC" in error


def test_a_folder_of_images_alone_has_nothing_passed_over(digits_run, digit_pngs, capsys):
    code, _, err = here("predict", digits_run, digit_pngs[0], capsys=capsys)
    assert code == 0 and "Passed over" not in err
