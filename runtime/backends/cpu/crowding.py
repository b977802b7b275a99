"""How many threads of the team a step uses: all of them, unless other programs are seen to hold them up.

An operation waits for its slowest thread. When the system gives the core of one thread to another program for a few
milliseconds, all wait, at hundreds of barriers for each token: two threads that share their cores with a busy program
can be several times slower than one that has a core of its own. This is seen by waits at barriers of more than 50
microseconds, of which there are hardly any on a quiet machine. Only then is it tried whether fewer threads are faster:
some steps with each number, in turns, and the mean decides, because delays are rare and long. Later it is tried whether
more threads are better again. The result of a step does not depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LATE = 4  # long waits in a step above which it was held up
SUSPICIONS = 3  # such steps, within as many steps as there were good ones, before anything is tried
TRIAL = 4  # steps with each number of threads
GAIN = 0.95  # of the time: a change has to be worth this much
PATIENCE = 1.0, 16.0  # seconds until the next trial: at first, and at most, doubled whenever nothing changes


FEWER, MORE = -1, 1


@dataclass
class Crowding:
    """Chooses the number of threads, from 1 to `most`: `threads` is for the next step, `note` is told about it."""

    most: int
    threads: int = field(init=False)
    _best: int = field(init=False)  # what is used outside trials
    _direction: int = 0  # FEWER or MORE while something is being tried, otherwise 0
    _other: int = 0  # the number that is being tried
    _seconds: list[float] = field(default_factory=list)  # of the steps of a trial: the other number, the best, ...
    _suspicion: int = 0
    _failed: int = 0  # trials of fewer threads since the last change
    _rest: dict[int, float] = field(default_factory=lambda: {FEWER: 0.0, MORE: 0.0})  # seconds until the next trial
    _patience: float = PATIENCE[0]

    def __post_init__(self) -> None:
        self.threads = self._best = self.most

    @property
    def settled(self) -> int:
        """The number that has proved best so far, also while another is being tried."""
        return self._best

    def note(self, seconds: float, late: int) -> None:
        """A step of `threads` threads took so long, with so many long waits at barriers."""
        if self._direction:
            self._compare(seconds)
            return
        self._rest = {direction: rest - seconds for direction, rest in self._rest.items()}
        self._suspicion = max(0, self._suspicion + (1 if late > LATE else -1))
        if self._suspicion >= SUSPICIONS and self._best > 1 and self._rest[FEWER] <= 0:
            self._try(FEWER)
        elif self._best < self.most and self._rest[MORE] <= 0:
            self._try(MORE)

    def _try(self, direction: int) -> None:
        self._other = self._best + 1 if direction == MORE else self._fewer()[self._failed]
        self._direction, self._seconds, self.threads = direction, [], self._other

    def _fewer(self) -> list[int]:
        """What to try below the best, in this order: where all are held up, one less changes nothing."""
        return sorted({self._best - 1, self._best // 2, 1}, reverse=True)

    def _compare(self, seconds: float) -> None:
        """A step of the trial is done: alternate, and decide when there are enough, or when it is clear already."""
        self._seconds.append(seconds)
        other, best = sum(self._seconds[::2]), sum(self._seconds[1::2])
        turns, half = divmod(len(self._seconds), 2)
        self.threads = self._best if half else self._other
        if not half and (turns == TRIAL or (turns > 1 and other > 2 * best)):
            self._decide(other < GAIN * best)

    def _decide(self, better: bool) -> None:
        tried = self._direction
        if better:  # going on in this direction needs no patience, turning back does
            self._best, self._patience, self._failed = self._other, PATIENCE[0], 0
            self._rest = {tried: 0.0, -tried: self._patience}
        elif tried == FEWER and self._failed + 1 < len(self._fewer()):
            self._failed += 1
        else:
            self._failed, self._rest[tried] = 0, self._patience
            self._patience = min(2 * self._patience, PATIENCE[1])
        self.threads, self._direction, self._suspicion = self._best, 0, 0
