"""`docs/performance.md` from records: every figure in it stands in one of them.

    python -m edgefetal_runtime.bench.document docs/performance.md docs/performance/*.json

writes the page anew.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgefetal_devices.errors import EdgeFetalError, InputError
from edgefetal_runtime.atomic import write_file
from edgefetal_runtime.bench.record import read_record
from edgefetal_runtime.bench.tables import Table, headline, titled_tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgefetal_runtime.bench.record import BenchRecord

_HEAD: Final = """# Performance

This page is written from the records beside it and holds no other figure:

    make bench

measures anew, here, in under 15 minutes. `edgefetal bench BUNDLE` does it for any bundle; `--html` gives a page with
the latencies' distribution. How it measures is said in `runtime/edgefetal_runtime/bench/__init__.py`.

- **Warm-up**: frames until the medians of two successive windows agree; a run that never settles is marked.
- **Stages**: one frame at a time with nothing beside it, so that they sum to glass to result.
- **Throughput**: the whole examination and the network alone on the same frames, in turns, ratio pair by pair.
- **Beside another**: blocks for each of which both are loaded anew, turns in the order AB BA within them. Intervals
  hold the true median in at least 99 % of cases, whatever the distribution.
- **Beside other tools**: each in its own process, all in turns on the same recordings; ratios recording by recording.
- **First result**: `edgefetal run` in a fresh process, from its start, with what it takes to write the examination.
- **Disturbed**: others used more than a tenth of the cores before, after, or in more than one second of twenty; a
  hypervisor took more than 1 % of the time; or the machine throttled. Wall-clock times of such a run are not the
  machine's own, and are shown as what they are.
"""


def performance_page(records: Mapping[str, BenchRecord]) -> str:
    """Write the page.

    Args:
        records: by the name of their file, as seen from the page.
    """
    if not records:
        raise InputError("There is no record to write the page from; run `make bench`.")
    parts = [_HEAD]
    for name, record in records.items():
        parts.append(_section(name, record))
    return "\n".join(parts)


def _section(name: str, record: BenchRecord) -> str:
    machine, subject = record.machine, record.subject
    threads = "" if subject.threads is None else f", {subject.threads} thread{'s' if subject.threads > 1 else ''}"
    mark = " (disturbed)" if record.conditions.disturbed else ""
    parts = [
        f"## {subject.name} on {machine.board or machine.processor}, {machine.cores} cores{threads}{mark}\n",
        *(f"{line}\n" for line in headline(record)),
        f"The record: [{name}]({name}).\n",
    ]
    parts += [f"### {title}\n\n{_markdown(table)}" for title, table in titled_tables(record).items()]
    parts += [f"{note}\n" for note in record.notes]
    return "\n".join(parts)


def _markdown(table: Table) -> str:
    lines = [table.heads, tuple("---" for _ in table.heads), *table.rows]
    text = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
    return f"{text}\n{table.note}\n" if table.note else text


def main(arguments: Sequence[str]) -> int:
    """Write the page anew; return the exit code."""
    if len(arguments) < 2:  # noqa: PLR2004 - a page and a record
        sys.stderr.write("usage: python -m edgefetal_runtime.bench.document PAGE RECORD...\n")
        return InputError.exit_code
    page, *files = map(Path, arguments)
    try:
        records = {file.absolute().relative_to(page.absolute().parent).as_posix(): read_record(file) for file in files}
        write_file(page, performance_page(records).encode())
    except ValueError:
        sys.stderr.write(f"Error: the records must lie beside {page} or below; move them there.\n")
        return InputError.exit_code
    except EdgeFetalError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
