"""The command `qsgd-ray dashboard`: serve optuna-dashboard on a study's search, live while the study runs."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import typer
from rich.console import Console

from qsgd_ray.config import StudyError
from qsgd_ray.reporting.console import plain_console
from qsgd_ray.storage import Folder, storage_at

_LOOPBACK = "127.0.0.1"


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a page sends a request every few seconds."""


def dashboard(
    where: Annotated[
        str, typer.Argument(metavar="DIR", help="A study's results: a folder or e.g. s3://BUCKET/PREFIX.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="On this machine alone; 0: any that is free.")] = 8080,
) -> None:
    """Show a study's search in optuna-dashboard until Ctrl-C; of a store, as it is now."""
    if not find_spec("optuna_dashboard"):
        raise StudyError(
            "dashboard: got no package optuna-dashboard; allowed: with it (pip install 'qsgd-ray[dashboard]')"
        )
    with tempfile.TemporaryDirectory(prefix="qsgd-ray-") as scratch:
        _serve(_journal(where, Path(scratch)), port, plain_console())


def _journal(where: str, scratch: Path) -> Path:
    """Return the journal of a study's search, rebuilt where none can be read; that of a store is in `scratch`."""
    from qsgd_ray.results import Results
    from qsgd_ray.search.observations import unfinished_points
    from qsgd_ray.search.optuna_journal import FILE, is_readable, open_journal

    results = Results(storage_at(where, "DIR"))
    tables = results.tables()
    in_folder = isinstance(results.storage, Folder)
    path = results.storage.writable(FILE) if isinstance(results.storage, Folder) else scratch / FILE
    # The process of a search that may be running writes the journal itself.
    if not (in_folder and unfinished_points(tables) and is_readable(path)):
        try:
            open_journal(tables, path)
        except OSError as error:
            raise StudyError(f"DIR: got {where}; allowed: a folder in which {FILE} can be written ({error})") from None
    return path


def _serve(journal: Path, port: int, console: Console) -> None:
    """Serve the journal on loopback until Ctrl-C; StudyError where the port is taken."""
    import optuna_dashboard
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    app = optuna_dashboard.wsgi(JournalStorage(JournalFileBackend(str(journal))))
    try:
        server = make_server(_LOOPBACK, port, app, handler_class=_Silent)
    except OSError as error:
        raise StudyError(f"--port: got {port}; allowed: a free port ({error.strerror})") from None
    with server, suppress(KeyboardInterrupt):
        console.print(f"http://{_LOOPBACK}:{server.server_port}/dashboard (Ctrl-C ends it)", soft_wrap=True)
        server.serve_forever()
