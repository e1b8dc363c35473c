"""The XMP packet: the mark that a machine drew the picture, the program's name and, outside PNG, the record."""

from __future__ import annotations

from html import escape
from xml.parsers import expat

from clipgen.errors import ImageFileError

NAMESPACE = "urn:clipgen:1#"
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED, COMPOSITE = "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"
_RECORD = f"{NAMESPACE} record"
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" \
xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<xmp:CreatorTool>{tool}</xmp:CreatorTool>
<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>
{record}</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


def build_xmp(tool: str, *, composite: bool, record: str | None) -> str:
    """Builds the packet: IPTC DigitalSourceType, xmp:CreatorTool and, unless None, `record` (JSON) as clipgen:record.

    `composite` says that a person's picture went in.
    """
    source = SOURCE_TYPES + (COMPOSITE if composite else GENERATED)
    element = ""
    if record is not None:
        element = f'<clipgen:record xmlns:clipgen="{NAMESPACE}">{_xml_safe(record)}</clipgen:record>\n'
    return _PACKET.format(tool=escape(tool, quote=False), source=source, record=element)


def _xml_safe(json_text: str) -> str:
    """Escapes JSON for XML; the two code points XML cannot hold only ever stand inside JSON strings."""
    return escape(json_text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff"), quote=False)


def read_record(packet: str) -> str | None:
    """Returns the text of clipgen:record, None where there is none.

    Raises ImageFileError for XML that is broken or brings a DOCTYPE, the door of every entity attack.
    """
    found: list[str] = []
    inside = False

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal inside
        inside = name == _RECORD
        if _RECORD in attributes:
            found.append(attributes[_RECORD])

    def text(data: str) -> None:
        if inside:
            found.append(data)

    def end(name: str) -> None:
        nonlocal inside
        inside = False

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(packet.rstrip("\0"), True)
    except expat.ExpatError as error:
        raise ImageFileError(f"broken XMP ({error})") from None
    return "".join(found) or None


def _refuse(*declaration: object) -> None:
    raise ImageFileError("XMP with a DOCTYPE is not read")
