"""XML as S3 speaks it: a writer that cannot emit what it was not given, and a bounded reader.

The writer puts elements into a list of strings; text is escaped at one place. Control characters that XML 1.0 cannot
carry are written as character references, as S3 does (clients ask for `encoding-type=url` to avoid them).

The reader takes documents from outside. It refuses document types, entities and processing instructions, and
documents too deep or with too many elements, before any memory is spent on them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from holdfast.gateways.s3.errors import S3Error

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'

# The deepest document that S3 defines among those read here has 4 levels; the rest is room for foreign elements.
_DEPTH_MAX_COUNT = 12

# Complete of 10,000 parts, each with number, ETag and five checksums, and the part's own element.
_ELEMENTS_MAX_COUNT = 100_000

_SPECIAL = re.compile("[&<>\"'\x00-\x08\x0b-\x1f\x7f\ufffe\uffff\r]")
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}


def _escape_one(match: re.Match[str]) -> str:
    character = match.group()
    return _ESCAPED.get(character) or f"&#x{ord(character):x};"


def escape(text: str) -> str:
    """`text` as element content."""
    return _SPECIAL.sub(_escape_one, text)


def is_legal(text: str) -> bool:
    """Whether XML 1.0 can carry the text."""
    return _ILLEGAL.search(text) is None


def element(name: str, text: str) -> str:
    """`<name>text</name>`, escaped."""
    return f"<{name}>{_SPECIAL.sub(_escape_one, text)}</{name}>"


def document(root: str, parts: list[str], *, namespace: bool = True) -> bytes:
    """A whole document; `parts` are elements already written."""
    opening = f'<{root} xmlns="{NAMESPACE}">' if namespace else f"<{root}>"
    return "".join((DECLARATION, opening, *parts, f"</{root}>")).encode("utf-8", "surrogatepass")


@dataclass(slots=True)
class Element:
    """What was read: name without prefix, text of its own, children in order."""

    name: str
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def all(self, name: str) -> Iterator["Element"]:
        """The children of that name."""
        return (child for child in self.children if child.name == name)

    def text_of(self, name: str) -> str | None:
        """The text of the one child of that name; None when there is none. MalformedXML when there are several."""
        found = list(self.all(name))
        if len(found) > 1:
            raise malformed()
        return found[0].text if found else None


def malformed() -> S3Error:
    return S3Error(
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our published schema",
    )


class _Reader:
    """Builds the tree from expat's events, within the bounds."""

    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) >= _DEPTH_MAX_COUNT or self._count > _ELEMENTS_MAX_COUNT:
            raise malformed()
        opened = Element(name.rpartition(":")[2])
        if self._open:
            self._open[-1].children.append(opened)
        else:
            self.root = opened
        self._open.append(opened)

    def end(self, name: str) -> None:
        self._open.pop()

    def data(self, text: str) -> None:
        self._open[-1].text += text

    def refuse(self, *_: object) -> None:
        raise malformed()


def parse(data: bytes, root: str) -> Element:
    """The tree of a document whose outermost element is `root`. MalformedXML for anything else."""
    reader = _Reader()
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.data
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.EntityDeclHandler = reader.refuse
    parser.ProcessingInstructionHandler = reader.refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise malformed() from error
    if reader.root is None or reader.root.name != root:
        raise malformed()
    return reader.root
