"""Image files: writes them atomically with the settings inside, names them, and reads the settings of six apps."""

from clipgen.image_file.a1111_block import parameters_block
from clipgen.image_file.chunks import read_chunks
from clipgen.image_file.names import FORMATS, format_of, output_path, slug
from clipgen.image_file.open_image import open_image
from clipgen.image_file.paths import strip_folders
from clipgen.image_file.read import read_settings, settings_from_text
from clipgen.image_file.record import make_record
from clipgen.image_file.restored import RestoredSettings
from clipgen.image_file.save import check_writable, save_bytes
from clipgen.image_file.write import SUFFIXES, Format, encode_image, fit_record

__all__ = [
    "FORMATS",
    "Format",
    "RestoredSettings",
    "SUFFIXES",
    "check_writable",
    "encode_image",
    "fit_record",
    "format_of",
    "make_record",
    "open_image",
    "output_path",
    "parameters_block",
    "read_chunks",
    "read_settings",
    "save_bytes",
    "settings_from_text",
    "slug",
    "strip_folders",
]
