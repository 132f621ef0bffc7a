"""Where decisions are recorded: a file of JSON Lines that is kept within bounds.

`Router(record="decisions.jsonl")` is `Router(record=DecisionLog("decisions.jsonl"))`. What stands in the file, and what
`linepicker replay` makes of it, is in the README under "Record and replay".
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from linepicker._journal import HEADER, header

try:
    import fcntl
except ImportError:  # Windows: there, one process per file
    fcntl = None  # type: ignore[assignment]

__all__ = ["DecisionLog"]

_CHECKED: Final = 64  # lines between two looks at the file's size
_LEAST: Final = 65_536

_log = logging.getLogger("linepicker")


class DecisionLog:
    """A file that decisions are appended to, and at most `keep` older ones beside it: path.1 is the latest of them.

    path: the file; it is made readable by its owner alone. max_bytes: how large it may grow before it becomes path.1 and a new
    one is begun; at least 65,536. So the whole takes `max_bytes × (keep + 1)` bytes, and a little more. keep: how many older
    files stay, 0 or more. key: 16 to 64 bytes that name and seal recipients. None: the key that the file begins with, or a new
    one, which is then written there: so the file alone can be replayed, and whoever has it can try handles until one fits. With
    a key of yours the file holds none, and tells nobody's handle but its mask; `linepicker replay --key-file` asks for it.

    Several routers, threads and processes may append to one file: each line is one write to its end, and says whose it is. On
    Windows give each process its own. What can't be written is lost: counted in `.lost`, and said once in the log. It never
    raises, but for a path or key that can't be one: ValueError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 64 * 1024 * 1024,
        keep: int = 4,
        key: bytes | None = None,
    ) -> None:
        self.path = Path(path)
        if not self.path.name:
            raise ValueError("path must name a file")
        if max_bytes < _LEAST or keep < 0:
            raise ValueError(f"max_bytes must be at least {_LEAST}, and keep at least 0")
        if key is not None and not (isinstance(key, bytes) and 16 <= len(key) <= 64):
            raise ValueError("key must be 16 to 64 bytes")
        self.lost = 0
        """How many lines could not be written."""
        self._max_bytes, self._keep = max_bytes, keep
        self._told = key is None
        self._key = key
        self._lock = threading.RLock()
        self._file = -1
        self._pid = 0
        self._unchecked = 0
        self._stretch = 0
        self._said = self._cut = False

    @property
    def key(self) -> bytes:
        """What names and seals recipients."""
        with self._lock:
            if self._key is None:
                self._open()
            if self._key is None:
                self._key = secrets.token_bytes(16)
            return self._key

    def stretch(self) -> tuple[int, int]:
        """What changes when a file is begun, after a fork, and after a line was lost: then a session begins anew."""
        with self._lock:
            if self._file < 0 or self._pid != os.getpid():
                self._open()
            elif self._unchecked >= _CHECKED:
                self._look()
            return self._pid, self._stretch

    def write(self, text: str) -> None:
        """Append a line."""
        with self._lock:
            self._unchecked += 1
            raw = text.encode()
            if self._cut:
                raw = b"\n" + raw
            try:
                self._cut = os.write(self._file, raw) < len(raw)
            except OSError as error:
                self._failed(error)
            else:
                if self._cut:  # half a line is there: the disk is full
                    self._failed(OSError("the disk is full"))

    def close(self) -> None:
        """Close the file. Closing twice is nothing; the next line opens it again."""
        with self._lock:
            if self._file >= 0 and self._pid == os.getpid():
                os.close(self._file)
            self._file = -1

    def _failed(self, error: OSError) -> None:
        self.lost += 1
        self._stretch += 1
        if not self._said:
            self._said = True
            _log.warning(
                "decisions can't be recorded in %s: %s. Those that are not written are lost (said once; "
                "DecisionLog.lost counts them)",
                self.path,
                error.strerror or error,
            )

    def _open(self) -> None:
        """Open the file, begin it if it is new, and learn its key."""
        if self._pid == os.getpid() and self._file >= 0:
            os.close(self._file)
        self._file, self._pid, self._unchecked = -1, os.getpid(), 0
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            self._file = os.open(self.path, flags, 0o600)
            with self._alone():
                size = os.fstat(self._file).st_size
                if size == 0:
                    self._key = self._key or secrets.token_bytes(16)
                    os.write(self._file, header(self._key, told=self._told).encode())
                else:
                    self._cut = os.pread(self._file, 1, size - 1) != b"\n"
                    if self._told:
                        self._key = self._key_there() or self._key
        except OSError as error:
            self._failed(error)
        self._stretch += 1

    def _key_there(self) -> bytes | None:
        """The key that the file begins with, None where there is none to be found."""
        first = os.pread(self._file, 4096, 0).partition(b"\n")[0]
        try:
            value: Any = json.loads(first)
            return bytes.fromhex(value["key"]) if value["t"] == HEADER else None
        except (ValueError, KeyError, TypeError):
            return None

    def _look(self) -> None:
        """Begin a new file where this one is full, or another process has begun one."""
        self._unchecked = 0
        try:
            mine = os.fstat(self._file)
            if mine.st_size >= self._max_bytes:
                with self._alone():
                    if self._is_still(mine):
                        self._turn()
            if not self._is_still(mine):
                self._open()
        except OSError as error:
            self._failed(error)

    def _is_still(self, mine: os.stat_result) -> bool:
        """Whether the path still names this file."""
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def _turn(self) -> None:
        """Every file becomes the next older one."""
        for age in range(self._keep, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{age}")
            newer = self.path.with_name(f"{self.path.name}.{age - 1}") if age > 1 else self.path
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        if not self._keep:
            self.path.unlink()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process looks at the same file."""
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)
