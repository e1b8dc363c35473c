"""The XMP packet: the mark for AI-generated images, the program's name and, outside PNG, the record."""

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
    """Returns a packet: IPTC DigitalSourceType, xmp:CreatorTool and, unless None, `record` (JSON) as clipgen:record.

    `composite`: the image was made from an image of the user.
    """
    source = SOURCE_TYPES + (COMPOSITE if composite else GENERATED)
    element = ""
    if record is not None:
        element = f'<clipgen:record xmlns:clipgen="{NAMESPACE}">{_xml_safe(record)}</clipgen:record>\n'
    return _PACKET.format(tool=escape(tool, quote=False), source=source, record=element)


def _xml_safe(json_text: str) -> str:
    """Escapes JSON for XML; the two code points that XML does not allow occur only inside JSON strings."""
    return escape(json_text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff"), quote=False)


def read_record(packet: str) -> str | None:
    """Returns the text of clipgen:record, None if there is none.

    Raises ImageFileError for damaged XML and for a DOCTYPE, which entity attacks need.
    """
    parts: list[str] = []
    inside = False

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal inside
        inside = name == _RECORD
        if _RECORD in attributes:
            parts.append(attributes[_RECORD])

    def text(data: str) -> None:
        if inside:
            parts.append(data)

    def end(name: str) -> None:
        nonlocal inside
        inside = False

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.StartDoctypeDeclHandler = _reject
    try:
        parser.Parse(packet.rstrip("\0"), True)
    except expat.ExpatError as error:
        raise ImageFileError(f"broken XMP ({error})") from None
    return "".join(parts) or None


def _reject(*declaration: object) -> None:
    raise ImageFileError("XMP with a DOCTYPE is not read")
