"""Changes that a stranger could make to a study's folder, by name: each takes the folder and makes one change in it."""

import json
import os
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qsgd_ray.paths import leaves, set_value
from qsgd_ray.results.schema import MEASUREMENTS, TRIALS

Change = Callable[[Path], None]
SCHEMAS = {"trials": TRIALS, "measurements": MEASUREMENTS}
# Were it ever unescaped in a page, a browser would run it; on a terminal it would colour, title and close tags.
MARKUP = '<planted onload="planted()">{0.__class__} %s [/b][red]\x1b]0;planted\x07'
LAUNCHED = "launched-by-a-pickle"

JSON_FILES = ("study.json", "provenance.json", "chosen.json", "studies/VERSION")
TEXTS = {
    "empty": b"",
    "cut": b'{"name": "ma',
    "list": b"[]",
    "list-of-one": b"[1]",
    "text": b'"x"',
    "number": b"5",
    "null": b"null",
    "true": b"true",
    "object": b"{}",
    "long-integer": b'{"name": ' + b"1" * 5000 + b"}",
    "deep-lists": b"[" * 100_000,
    "deep-objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "not-finite": b'{"name": NaN, "seed": Infinity}',
    "beyond-float": b'{"seed": 1e999, "resumed": 1e999}',
    "no-utf8": b'{"name": "\xff\xfe"}',
    "utf16": '{"name": "x"}'.encode("utf-16"),
    "surrogate": b'{"name": "\\ud800", "question": "\\udfff"}',
    "zero-bytes": bytes(64),
    "pickle": pickle.dumps({"name": "x"}),
}
VALUES = {
    "null": None,
    "markup": MARKUP,
    "path": "../../victim",
    "negative": -1,
    "huge": 10**30,
    "float": 1e308,
    "list": [[]],
    "object": {"a": {"b": MARKUP}},
    "true": True,
}
CHOICES = {
    "number": 5,
    "list": [],
    "null": None,
    "point-number": {"search": "KEY", "point": 5},
    "point-list": {"search": "KEY", "point": [1]},
    "other-field": {"search": "KEY", "point": {"../../victim": 1.0}},
    "text": {"search": "KEY", "point": {"learning_rate": MARKUP}},
    "negative": {"search": "KEY", "point": {"learning_rate": -1.0}},
    "huge": {"search": "KEY", "point": {"learning_rate": 10**400}},
    "search-list": {"search": [], "point": {"learning_rate": 1e-3}},
}
OF_TYPE = {
    pa.string(): {"markup": MARKUP, "path": "../../victim", "json": '{"a": [' * 500, "empty": ""},
    pa.int32(): {"negative": -1, "huge": 2**31 - 1},
    pa.int64(): {"negative": -(2**63), "huge": 2**63 - 1},
    pa.float64(): {"nan": float("nan"), "infinite": float("-inf"), "huge": 1.7e308, "negative": -1e-300},
    pa.timestamp("us", tz="UTC"): {"first": datetime(1, 1, 1, tzinfo=UTC), "last": datetime(9999, 12, 31, tzinfo=UTC)},
}
NAMES = ("x", "search-a b", "search-ü", "..", "search-" + "a" * 200, "packed-", "packed-x y", "confirm-%s{0}", "[red]")


class Launcher:
    """An object whose pickle makes a file when it is read."""

    def __reduce__(self):
        return os.system, (f"touch {LAUNCHED}",)


def confirmed(folder: Path, table: str = "trials") -> Path:
    """Return the file of a confirmation."""
    return next(iter(sorted((folder / table).glob("confirm-sine-*.parquet"))))


def searched(folder: Path, table: str = "trials") -> Path:
    """Return the file of a search trial."""
    return next(iter(sorted((folder / table).glob("search-sine-*.parquet"))))


def replace_rows(file: Path, **values: object) -> None:
    """Give every row of a file other values."""
    rows = [row | values for row in pq.read_table(file).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[file.parent.name]), file)


def changes() -> dict[str, Change]:
    """Return all changes, each under a name of its own."""
    listed = [*_json_changes(), *_study_changes(), *_choice_changes(), *_row_changes(), *_file_changes()]
    named = dict(listed)
    assert len(named) == len(listed)
    return named


def _json_changes() -> Iterator[tuple[str, Change]]:
    for name in JSON_FILES:
        for kind, content in TEXTS.items():
            yield (
                f"{name}-{kind}",
                lambda folder, name=name, content=content: _json_file(folder, name).write_bytes(content),
            )


def _json_file(folder: Path, name: str) -> Path:
    return next((folder / "studies").iterdir()) if name == "studies/VERSION" else folder / name


def _study_changes() -> Iterator[tuple[str, Change]]:
    fields = (
        "name",
        "question",
        "workload",
        "arms",
        "baseline",
        "search",
        "confirm",
        "decision",
        "map",
        "claims",
        "seed",
    )
    inner = ("arms.0.name", "search.objectives", "confirm.seeds", "workload.target_accuracy", "resources.sharding")
    for number, field in enumerate((*fields, *inner)):
        for kind, value in list(VALUES.items())[number % 2 :: 2]:
            yield f"study-{field}-{kind}", lambda folder, f=field, v=value: _set(folder / "study.json", f, v)
    for field in ("packages", "hardware", "resumed", "started_at", "study_version", "commit", "planted"):
        for kind, value in list(VALUES.items())[len(field) % 2 :: 2]:
            yield f"provenance-{field}-{kind}", lambda folder, f=field, v=value: _set(folder / "provenance.json", f, v)
    for field in ("name", "since", "trials_before", "changed", "study"):
        for kind, value in list(VALUES.items())[len(field) % 2 :: 2]:
            yield (
                f"version-{field}-{kind}",
                lambda folder, f=field, v=value: _set(_json_file(folder, "studies/VERSION"), f, v),
            )


def _set(file: Path, path: str, value: object) -> None:
    tree = json.loads(file.read_text())
    if "." in path:
        set_value(tree, path, value)
    else:
        tree[path] = value
    file.write_text(json.dumps(tree))
    assert dict(leaves(tree))


def _choice_changes() -> Iterator[tuple[str, Change]]:
    def choose(folder: Path, choice: object) -> None:
        chosen = json.loads((folder / "chosen.json").read_text())
        if isinstance(choice, dict) and choice["search"] == "KEY":
            choice = choice | {"search": chosen["sine"]["search"]}
        (folder / "chosen.json").write_text(json.dumps(chosen | {"sine": choice}))

    for kind, choice in CHOICES.items():
        yield f"choice-{kind}", lambda folder, choice=choice: choose(folder, choice)


def _row_changes() -> Iterator[tuple[str, Change]]:
    for table, schema in SCHEMAS.items():
        for number, field in enumerate(schema):
            values = {"null": None, **OF_TYPE[field.type]}
            # Each column with null, and with the other values in turn.
            others = list(values)[1:]
            for kind in ("null", others[number % len(others)]):
                of = confirmed if number % 2 else searched
                yield (
                    f"{table}-{field.name}-{kind}",
                    lambda folder, t=table, c=field.name, v=values[kind], of=of: replace_rows(of(folder, t), **{c: v}),
                )


def _file_changes() -> Iterator[tuple[str, Change]]:
    for name in NAMES:
        yield f"name-{name[:20]}", lambda folder, name=name: _copy_as(folder, name)
    yield "name-no-utf8", lambda folder: _write(os.fsencode(folder) + b"/trials/search-\xff\xfe.parquet", b"PAR1")
    for table in SCHEMAS:
        for kind, content in {
            "empty": b"",
            "cut": b"PAR1",
            "pickle": pickle.dumps(Launcher()),
            "text": b"x" * 99,
        }.items():
            yield f"{table}-file-{kind}", lambda folder, t=table, c=content: confirmed(folder, t).write_bytes(c)
        yield f"{table}-file-half", lambda folder, t=table: _halve(confirmed(folder, t))
        yield f"{table}-file-flipped", lambda folder, t=table: _flip(confirmed(folder, t))
        for kind, other in _tables(table).items():
            yield f"{table}-table-{kind}", lambda folder, t=table, other=other: _rewrite(confirmed(folder, t), other)
        yield f"{table}-link-out", lambda folder, t=table: _link(confirmed(folder, t), "../../../outside/secret.txt")
        yield f"{table}-link-to-nothing", lambda folder, t=table: _link(confirmed(folder, t), "nothing")
        yield f"{table}-link-ring", lambda folder, t=table: _link(confirmed(folder, t), confirmed(folder, t).name)
        yield f"{table}-folder", lambda folder, t=table: _remove(confirmed(folder, t)).mkdir()
        yield f"{table}-pipe", lambda folder, t=table: os.mkfifo(_remove(confirmed(folder, t)))
        yield f"{table}-is-a-link-out", lambda folder, t=table: _move_out(folder, t)
        yield f"{table}-is-a-file", lambda folder, t=table: _write(_moved(folder / t), b"")
    for name in (*JSON_FILES[:3], "report.html", "limits.json"):
        yield f"{name}-link-out", lambda folder, name=name: _link(folder / name, "../../outside/secret.txt")
        yield f"{name}-link-to-nothing", lambda folder, name=name: _link(folder / name, "../../outside/new.txt")
        yield f"{name}-pipe", lambda folder, name=name: os.mkfifo(_remove(folder / name))
        yield f"{name}-folder", lambda folder, name=name: _remove(folder / name).mkdir()
    yield "studies-is-a-link-out", lambda folder: _move_out(folder, "studies")
    yield "victim-in-70-rows", _seventy_rows
    yield "beside-limits-broken", lambda folder: _beside(folder, b"[" * 5000)
    yield "beside-limits-dangling", lambda folder: _link(folder.parent / "lim" / "limits.json", "nothing")


def _tables(table: str) -> dict[str, Callable[[pa.Table], pa.Table]]:
    planted = pa.field("x", pa.int64(), metadata={"ARROW:extension:name": "arrow.py_extension_type"})
    launched = planted.with_metadata(planted.metadata | {b"ARROW:extension:metadata": pickle.dumps(Launcher())})
    return {
        "no-rows": lambda rows: rows.slice(0, 0),
        "twice": lambda rows: pa.concat_tables([rows, rows]),
        "no-id": lambda rows: rows.drop_columns(["trial_id"]),
        "no-columns": lambda rows: pa.table({"x": [1]}),
        "two-of-a-name": lambda rows: rows.append_column("arm", rows["arm"]),
        "numbers-as-text": lambda rows: rows.set_column(0, rows.column_names[0], pa.array([1.5] * len(rows))),
        "lists": lambda rows: rows.set_column(5, rows.column_names[5], pa.array([[1]] * len(rows))),
        "newer": lambda rows: rows.replace_schema_metadata({"qsgd_ray_schema": "9" * 5000}),
        "odd-version": lambda rows: rows.replace_schema_metadata({"qsgd_ray_schema": b"\xff\xb2"}),
        "extension": lambda rows: rows.append_column(launched, pa.array([1] * len(rows))),
        "more-columns": lambda rows: rows.append_column(MARKUP, pa.array([MARKUP] * len(rows))),
    }


def _copy_as(folder: Path, name: str) -> None:
    (folder / "trials" / f"{name}.parquet").write_bytes(confirmed(folder).read_bytes())


def _write(file: Path | bytes, content: bytes) -> None:
    with open(file, "wb") as stream:
        stream.write(content)


def _halve(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for place in range(200, len(content), 97):
        content[place] ^= 0x55
    file.write_bytes(bytes(content))


def _rewrite(file: Path, other: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(other(pq.read_table(file)), file)


def _remove(file: Path) -> Path:
    file.unlink(missing_ok=True)
    return file


def _link(file: Path, target: str) -> None:
    file.parent.mkdir(exist_ok=True)
    _remove(file).symlink_to(target)


def _moved(path: Path) -> Path:
    path.rename(path.with_name(f"was-{path.name}"))
    return path


def _move_out(folder: Path, name: str) -> None:
    target = folder.parent.parent / "outside" / name
    (folder / name).rename(target)
    (folder / name).symlink_to(target)


def _beside(folder: Path, content: bytes) -> None:
    (folder.parent / "lim").mkdir()
    (folder.parent / "lim" / "limits.json").write_bytes(content)


def _seventy_rows(folder: Path) -> None:
    row = pq.read_table(searched(folder)).to_pylist()[0]
    for number in range(70):
        name = f"search-sine-{number:03d}-aaaaaaaaaa"
        evil = {"trial_id": "../../victim" if number == 9 else name}
        pq.write_table(pa.Table.from_pylist([row | evil], schema=TRIALS), folder / "trials" / f"{name}.parquet")
