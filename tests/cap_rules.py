"""The rules of the Common Alerting Protocol 1.2 (OASIS, 1 July 2010, sections 3.2 and 3.3), written from its text.

Raises AssertionError for a message that breaks one.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

SPACE = "{urn:oasis:names:tc:emergency:cap:1.2}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[-+]\d\d:\d\d"
"""Never with a Z (3.3.2)."""
NAME = r"[^\s,<&]+"
ANY = r"(?s).*\S.*"
NUMBER = r"-?\d+(\.\d+)?"


def one_of(names: str) -> str:
    return names.replace(" ", "|")


RULES: dict[str, list[tuple[str, str, str]]] = {
    "alert": [
        ("identifier", "1", NAME),
        ("sender", "1", NAME),
        ("sent", "1", TIME),
        ("status", "1", one_of("Actual Exercise System Test Draft")),
        ("msgType", "1", one_of("Alert Update Cancel Ack Error")),
        ("source", "?", ANY),
        ("scope", "1", one_of("Public Restricted Private")),
        ("restriction", "?", ANY),
        ("addresses", "?", ANY),
        ("code", "*", ANY),
        ("note", "?", ANY),
        ("references", "?", rf"{NAME},{NAME},{TIME}(\s+{NAME},{NAME},{TIME})*"),
        ("incidents", "?", ANY),
        ("info", "*", ""),
    ],
    "info": [
        ("language", "?", r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*"),
        ("category", "+", one_of("Geo Met Safety Security Rescue Fire Health Env Transport Infra CBRNE Other")),
        ("event", "1", ANY),
        ("responseType", "*", one_of("Shelter Evacuate Prepare Execute Avoid Monitor Assess AllClear None")),
        ("urgency", "1", one_of("Immediate Expected Future Past Unknown")),
        ("severity", "1", one_of("Extreme Severe Moderate Minor Unknown")),
        ("certainty", "1", one_of("Observed Likely Possible Unlikely Unknown")),
        ("audience", "?", ANY),
        ("eventCode", "*", ""),
        ("effective", "?", TIME),
        ("onset", "?", TIME),
        ("expires", "?", TIME),
        ("senderName", "?", ANY),
        ("headline", "?", ANY),
        ("description", "?", ANY),
        ("instruction", "?", ANY),
        ("web", "?", r"\w+:\S+"),
        ("contact", "?", ANY),
        ("parameter", "*", ""),
        ("resource", "*", ""),
        ("area", "*", ""),
    ],
    "parameter": [("valueName", "1", ANY), ("value", "1", ANY)],
    "area": [
        ("areaDesc", "1", ANY),
        ("polygon", "*", ANY),
        ("circle", "*", rf"{NUMBER},{NUMBER} \d+(\.\d+)?"),
        ("geocode", "*", ""),
        ("altitude", "?", NUMBER),
        ("ceiling", "?", NUMBER),
    ],
}
COUNTS = {"1": (1, 1), "?": (0, 1), "+": (1, 10_000), "*": (0, 10_000)}


def check(content: bytes) -> ElementTree.Element:
    top = ElementTree.fromstring(content)
    assert top.tag == SPACE + "alert"
    _check(top)
    scope = text(top, "scope")
    assert (top.find(SPACE + "restriction") is not None) == (scope == "Restricted")
    assert scope != "Private" or text(top, "addresses")
    assert text(top, "msgType") == "Alert" or text(top, "references")
    return top


def text(top: ElementTree.Element, path: str) -> str:
    return top.findtext("/".join(SPACE + part for part in path.split("/"))) or ""


def _check(element: ElementTree.Element) -> None:
    name = element.tag.removeprefix(SPACE)
    rules = RULES[name]
    order = [rule[0] for rule in rules]
    children = [child.tag.removeprefix(SPACE) for child in element]
    assert set(children) <= set(order), (name, children)
    assert children == sorted(children, key=order.index), (name, children)
    for child, count, pattern in rules:
        found = [one for one in element if one.tag == SPACE + child]
        least, most = COUNTS[count]
        assert least <= len(found) <= most, (name, child, len(found))
        for one in found:
            if child in RULES:
                _check(one)
            else:
                assert re.fullmatch(pattern, one.text or ""), (child, one.text)
