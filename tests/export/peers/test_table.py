"""The peers by name: what is accepted, and that every row leads somewhere."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from edgefetal_devices.errors import InputError
from edgefetal_export.peers.table import OURS, RUN, TABLE, PeerEntry, parse_peer


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_every_row_opens_what_it_names(entry: PeerEntry) -> None:
    """Without importing it, since not every tool is installed."""
    spec = importlib.util.find_spec(entry.module)
    assert spec is not None
    assert spec.origin is not None
    functions = [node for node in ast.parse(Path(spec.origin).read_text()).body if isinstance(node, ast.FunctionDef)]
    (opens,) = [function for function in functions if function.name == entry.opens]
    assert len(opens.args.args) == 2


def test_a_peer_is_named_with_what_it_needs() -> None:
    assert [entry.name for entry in TABLE if entry.argument == RUN] == ["torch", "torch-compile"]
    plain = parse_peer("notebook")
    assert (plain.entry.name, plain.argument, plain.name) == ("notebook", None, "notebook")
    run = parse_peer("torch:runs/teacher")
    assert (run.entry.name, run.argument, run.name) == ("torch", "runs/teacher", "torch:teacher")
    # A folder's name may hold a colon.
    assert parse_peer("torch:runs/a:b").argument == "runs/a:b"
    assert parse_peer("edgefetal:openvino").entry is OURS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("jax", "no peer 'jax'; choose one of edgefetal:BACKEND, torch:RUN"),
        ("", "no peer ''"),
        ("torch", "write torch:RUN"),
        ("torch:", "write torch:RUN"),
        ("notebook:x", "write notebook alone"),
        ("notebook:", "write notebook alone"),
        ("Torch:runs", "no peer 'Torch'"),
    ],
)
def test_another_name_is_refused_with_the_way_out(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_peer(text)
    assert says in str(caught.value)
