"""Every section of "Operating it" is tried, and its lines are put in as README says."""

import pytest
import yaml

from tests import readme
from tests.operating import (
    lines,
    test_extension,
    test_guard,
    test_limits,
    test_reach,
    test_way,
)

TRIED = {
    title
    for module in (test_extension, test_guard, test_limits, test_reach, test_way)
    for title in module.SECTIONS
}
# It has a command and no lines; `test_extension` takes its variables.
WITHOUT_LINES = {"Metrics"}


def test_every_section_is_tried() -> None:
    """A section that no server boots with would be a promise without a proof."""
    told = {each.title for each in readme.below("Operating it")}
    assert told == TRIED | WITHOUT_LINES


def test_every_section_has_its_lines() -> None:
    """All but the one that needs none."""
    without = {
        each.title for each in readme.below("Operating it") if not each.blocks("yaml")
    }
    assert without == WITHOUT_LINES


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("b: 2", "{a: {x: 1}, l: [{provider_id: p, config: {u: 1}}], b: 2}"),
        ("a: {x: 2, y: 3}", "{a: {x: 2, y: 3}, l: [{provider_id: p, config: {u: 1}}]}"),
        (
            "l: [{provider_id: p, config: {v: 2}}]",
            "{a: {x: 1}, l: [{provider_id: p, config: {u: 1, v: 2}}]}",
        ),
        (
            "l: [{provider_id: q}]",
            "{a: {x: 1}, l: [{provider_id: p, config: {u: 1}}, {provider_id: q}]}",
        ),
        (
            "l: [{provider_id: p, model_id: m}]",
            """
            a: {x: 1}
            l: [{provider_id: p, config: {u: 1}}, {provider_id: p, model_id: m}]
            """,
        ),
    ],
    ids=["new key", "mapping", "same entry", "other entry", "other model"],
)
def test_lines_go_where_their_keys_are(added: str, expected: str) -> None:
    """Mappings are merged; a list's entry joins the others, or the same one."""
    there = yaml.safe_load("{a: {x: 1}, l: [{provider_id: p, config: {u: 1}}]}")
    assert yaml.safe_load(expected) == lines.merged(there, yaml.safe_load(added))
