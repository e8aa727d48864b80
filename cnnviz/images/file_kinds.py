"""What a file holds that is no picture which can be read, told by its first bytes, with the way out."""

from __future__ import annotations

from pathlib import Path

HEAD = 512
"""How many first bytes tell what a file holds."""
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_AVIF = (b"avif", b"avis")
_BEGINNINGS = (
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the file itself; get that with: git lfs pull"),
    (b"\xff\x0a", "it is JPEG XL; save it as PNG"),
    (b"\x00\x00\x00\x0cJXL ", "it is JPEG XL; save it as PNG"),
    (b"\x00\x00\x00\x0cjP  ", "it is JPEG 2000; save it as PNG"),
    (b"%PDF", "it is a PDF; save its page as PNG"),
    (b"8BPS", "it is a file of Photoshop; save it as PNG"),
    (b"v/1\x01", "it is OpenEXR; save what the network takes as .npy"),
    (b"\x93NUMPY", "it is an array in .npy; give the file that suffix"),
    (b"PK\x03\x04", "it is an archive; arrays in one have the suffix .npz"),
    (b"\x89HDF", "it is HDF5; save what the network takes as .npy, an array (C, *spatial)"),
    (
        (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        "it is a TIFF that is damaged, or of a kind that Pillow does not know, such as float64 or several channels of "
        "float32; save it with 8 or 16 bits, or what the network takes as .npy",
    ),
)
_OWN = {".npy": b"\x93NUMPY", ".npz": b"PK\x03\x04"}
_MEDICAL = "save what the network takes as .npy, an array (C, *spatial)"


def is_heic(head: bytes) -> bool:
    """True for the first bytes of a HEIC or HEIF picture."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC and not any(brand in head[16:48] for brand in _AVIF)


def is_avif(head: bytes) -> bool:
    """True for the first bytes of an AVIF picture."""
    return head[4:8] == b"ftyp" and (head[8:12] in _AVIF or any(brand in head[16:48] for brand in _AVIF))


def first_bytes(path: Path) -> bytes:
    """As many as tell what a file holds."""
    with path.open("rb") as file:
        return file.read(HEAD)


def other_kind(path: Path) -> str | None:
    """What the file holds, and the way out; None where its first bytes do not tell, or are those of its suffix."""
    return kind_of(first_bytes(path), path)


def kind_of(head: bytes, path: Path) -> str | None:
    """The same of the first bytes of what has that name."""
    own = _OWN.get(path.suffix.lower())
    if not head:
        return "it is empty; get or save it again"
    if own is not None and head.startswith(own):
        return None
    if head[128:132] == b"DICM":
        return f"it is DICOM; read it with pydicom, and {_MEDICAL}"
    if path.name.lower().endswith((".nii", ".nii.gz")) or head[344:348] in (b"n+1\0", b"ni1\0"):
        return f"it is NIfTI; read it with nibabel, and {_MEDICAL}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "it is a web page (HTML); download the file itself"
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return "it is SVG, which has no pixels; save it as PNG"
    return next((kind for beginning, kind in _BEGINNINGS if head.startswith(beginning)), None)
