"""An SVG file of matplotlib's as an element of a page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from .colors import COLORS

_VARIABLES = {light: f"var(--{name})" for name, (light, _) in COLORS.items()}
_HEX = re.compile("|".join(_VARIABLES))
_FONT = re.compile(r"font(-family)?:[^;]*;?\s*")
_SIZE = re.compile(r"font(?:-size)?:[^;]*?([\d.]+)px")
_REFERENCE = re.compile(r"#([\w-]+)")


def for_page(text: str, alt: str) -> str:
    """Without declarations, sizes, and ids that nothing refers to; fonts and colours are left to the style sheet."""
    root = ET.fromstring(text)
    used = {match for node in root.iter() for value in node.attrib.values() for match in _REFERENCE.findall(value)}
    for parent in root.iter():
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for node in root.iter():
        node.tag = _local(node.tag)
        node.attrib = {
            _local(key): _for_css(value) for key, value in node.attrib.items() if _local(key) != "id" or value in used
        }
    box = root.attrib["viewBox"]
    root.attrib = {"viewBox": box, "role": "img", "aria-label": alt}
    root.tail = None
    return ET.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    """A name without its namespace: HTML knows what is inside <svg>."""
    return name.rpartition("}")[2]


def _for_css(value: str) -> str:
    size = _SIZE.search(value)
    value = _FONT.sub("", value) if size else value
    value = f"font-size: {size[1]}px; {value}".strip() if size else value
    return _HEX.sub(lambda match: _VARIABLES[match[0]], value)
