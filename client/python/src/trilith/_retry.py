"""Deadlines, and pauses between tries."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from trilith import errors

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
STREAM_SECONDS = 3600.0
"""The longest life of a stream; one that follows a task is opened again."""


@dataclass
class Deadline:
    """A moment until which a call may take, across its tries. `seconds` None means for ever."""

    seconds: float | None
    tries: int = 0
    _end: float | None = field(init=False)

    def __post_init__(self) -> None:
        self._end = None if self.seconds is None else time.monotonic() + self.seconds

    def left(self, most: float | None = None) -> float | None:
        """Seconds until the deadline, at least 0 and at most `most`."""
        if self._end is None:
            return most
        left = max(self._end - time.monotonic(), 0.0)
        return left if most is None else min(left, most)

    def pause(self, asked: float = 0.0) -> float | None:
        """Seconds to wait before the next try, with jitter and at least what the server asked for.

        None when the deadline would pass meanwhile.
        """
        longest = min(FIRST_PAUSE * 2.0**self.tries, LONGEST_PAUSE)
        self.tries += 1
        pause = max(longest * random.uniform(0.5, 1.0), asked)
        left = self.left()
        return pause if left is None or pause < left else None


def pause_after(error: errors.TrilithError, *deadlines: Deadline) -> float:
    """Seconds to wait before the next try. Raises `error` when it is no matter of waiting, or of waiting too long."""
    if not isinstance(error, errors.Unavailable):
        raise error
    asked = error.retry_after.total_seconds() if error.retry_after else 0.0
    pauses = [deadline.pause(asked) for deadline in deadlines]
    if None in pauses:
        raise error
    return max(pause for pause in pauses if pause is not None)
