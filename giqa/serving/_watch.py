"""Keeping a server alive: canary inferences find what readiness does not show.

A Python model whose process died answers errors for ever while server and model say ready, and a
hung one answers nothing.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from giqa.contract import (
    GIQA,
    GIQA_ISOLATED,
    GLOBAL_VIEW,
    IMAGE,
    LOCAL_VIEW,
    PREPROCESS,
    PREPROCESS_BYTES,
    PREPROCESS_ISOLATED,
    PREPROCESSES,
)
from giqa.errors import (
    BundleInvalidError,
    DeadlineExceededError,
    GiqaError,
    InputError,
    OverloadedError,
    ServerFailedError,
    ServerUnavailableError,
)
from giqa.kserve import Tensor, is_dead_stub, request
from giqa.serving._metrics import WatchMetrics
from giqa.serving._progress import Progress
from giqa.serving._python_processes import Stubs
from giqa.serving._repository_options import instances_on_cpu
from giqa.serving._server import Server
from giqa.tensors import composing_models

T = TypeVar("T")

_REPAIRS = 2
"""Of a server that has just started, before it is started anew."""
_NAMED = re.compile(r"[Ss]tub process '([a-z_]+?)(?:_\d+)+'")
_WINDOW_S, _LONGEST_PAUSE_S = 300.0, 30.0
"""Starts of so many seconds lengthen the pause before the next, up to this."""
_LOOK_S = 0.1
"""How long the end of the server's process may go unnoticed."""
_ALWAYS = 10
"""The known image failing so often on the main road alone is no neighbour's fault any more."""


class Watch:
    """Asks canaries, repairs what they find, and says so.

    A dead model is loaded again; a server that is gone, hangs, or answers wrongly, is started
    anew, with pauses that grow while it does not help. Only its caller ends it.

    Args:
        server: a started server.
        say: takes lines for the log.
        interval_s: pause between canaries in seconds; whether the models' processes live is
            looked up four times as often.
        deadline_s: longest a canary may take in seconds; two in a row beyond it, while nothing
            else is done either, are a hang. A long queue must not have its server killed.
        hang_s: longest that no model finishes a batch while canaries are late, however busy its
            processes are.
        others: what else is to be looked after, at each tick; may raise.

    Attributes:
        metrics: what it saw and did.
    """

    def __init__(
        self,
        server: Server,
        *,
        say: Callable[[str], None],
        interval_s: float = 2.0,
        deadline_s: float = 10.0,
        hang_s: float = 120.0,
        others: Callable[[], None] = lambda: None,
    ) -> None:
        self._server, self._say, self._others = server, say, others
        self._interval_s, self._deadline_s, self._hang_s = interval_s, deadline_s, hang_s
        self.metrics = WatchMetrics(
            server.bundle.manifest.id, server.repository_options.engine, server.tolerance
        )
        self._stubs = Stubs(patience_s=2 * deadline_s)
        self._late = self._undecided = 0
        self._progress = Progress(server)
        self._starts: list[float] = []

    def run(self, stop: threading.Event) -> None:
        """Watch until told to stop; whatever happens is said, and tried again.

        Args:
            stop: ends the watch.
        """
        ticks = 0
        while not self._pause(stop):
            ticks += 1
            try:
                self._others()
                if not self.reload_dead() and ticks % 4 == 0 and self.check():
                    self._late = 0
            except GiqaError as e:
                if not stop.is_set():
                    self._restart(str(e), stop)
            except Exception as e:
                # No file descriptor, no memory, a bug: nothing is known of the server by that.
                self._complain("the watch could not look", e)

    def _pause(self, stop: threading.Event) -> bool:
        """Wait for the next look, which comes at once when the server ends; whether to stop."""
        end = time.monotonic() + self._interval_s / 4
        while not stop.wait(max(0.0, min(_LOOK_S, end - time.monotonic()))):
            if time.monotonic() >= end or (self._server.pid is not None and not self._server.alive):
                return False
        return True

    def _complain(self, what: str, error: Exception) -> None:
        with contextlib.suppress(Exception):
            self._say(f"{what}: {type(error).__name__}: {error}")

    def known_answer(self) -> float:
        """Ask the canary that goes alone, then that of the main road.

        Returns:
            The difference from the known score.

        Raises:
            BundleInvalidError: it is larger than the manifest's tolerance.
            GiqaError: the request failed.
        """
        difference = self._ask(self._known_answer)
        with contextlib.suppress(OverloadedError):  # the image alone was answered rightly
            self._ask(self._main_road)
        return difference

    def reload_dead(self) -> bool:
        """Load models again whose process is gone.

        Returns:
            Whether there were any.

        Raises:
            GiqaError: only a new start can help.
        """
        if not self._server.alive or (pid := self._server.pid) is None:
            raise ServerUnavailableError("tritonserver ended")
        if self._server.repository_options.device != "cpu":
            return False
        live = self._stubs.live(pid)
        wanted = {
            m: instances_on_cpu(m, self._server.repository_options) for m in composing_models("cpu")
        }
        dead = [m for m in wanted if live and live[m] < wanted[m]]
        for model in dead:
            gone = wanted[model] - live[model]
            self._say(f"{model}: {gone} of {wanted[model]} processes are gone")
            self._load(model)
        return bool(dead)

    def check(self) -> bool:
        """Ask canaries once and load dead models again.

        Returns:
            Whether all is well; False if that could not be told (overload), or was repaired.

        Raises:
            GiqaError: only a new start can help.
        """
        if not self._server.alive:
            raise ServerUnavailableError("tritonserver ended")
        well = True
        self._progress.note()
        for name, canary in self._canaries():
            try:
                self._ask(canary)
            except OverloadedError:
                well = False
            except DeadlineExceededError:
                well = False
                if not self._progress.made(self._hang_s):
                    self._late += 1
                    self.metrics.late()
                    self._say(f"canary of {name}: no answer in {self._deadline_s:g} s")
                if self._late >= 2:
                    raise
                break
            except BundleInvalidError:
                raise
            except GiqaError as e:
                well = False
                self._repair(name, e)
        return well

    def _ask(self, canary: Callable[[], T]) -> T:
        outcome = "ok"
        try:
            return canary()
        except GiqaError as e:
            outcome = e.code
            raise
        finally:
            self.metrics.canary(outcome)

    def _canaries(self) -> list[tuple[str, Callable[[], object]]]:
        """The known image alone and on the main road, and the models that it does not pass."""
        found: list[tuple[str, Callable[[], object]]] = [
            (GIQA_ISOLATED, self._known_answer),
            (GIQA, self._main_road),
        ]
        # So every ensemble of either device is asked for, by the models that it is made of.
        for model in composing_models(self._server.repository_options.device):
            if model in PREPROCESSES and model not in (PREPROCESS, PREPROCESS_ISOLATED):
                found.append((model, partial(self._preprocess, model)))
        return found

    def _known_answer(self, ensemble: str = GIQA_ISOLATED) -> float:
        started = time.monotonic()
        difference = self._server.difference(self._deadline_s, ensemble)
        self.metrics.answer(difference, time.monotonic() - started)
        self._server.judge(difference)
        return difference

    def _main_road(self) -> None:
        """The known image among others': on a GPU a bad one beside it fails it, too."""
        try:
            self._known_answer(GIQA)
            self._undecided = 0
        except InputError as e:
            self._undecided += 1
            if self._undecided >= _ALWAYS:
                self._undecided = 0
                message = f"the known image failed {_ALWAYS} times in a row: {e.message}"
                raise ServerFailedError(message, item=e.item) from e
            raise OverloadedError("beside a bad image", item=e.item) from e

    def _preprocess(self, model: str) -> None:
        image = _PIXEL
        tensor = Tensor("UINT8", (1, len(image)), image)
        if model == PREPROCESS_BYTES:
            tensor = Tensor.of_texts([image])
        message = request(
            model, {IMAGE: tensor}, [GLOBAL_VIEW, LOCAL_VIEW], timeout_s=self._deadline_s
        )
        self._server.call("ModelInfer", message, self._deadline_s)

    def _repair(self, canary: str, error: GiqaError) -> None:
        """Load the model that an error names, or all that could be meant."""
        if not self._server.alive:
            raise ServerUnavailableError("tritonserver ended")
        named = _NAMED.search(error.message)
        models = composing_models(self._server.repository_options.device)
        if not is_dead_stub(error.message) and not isinstance(error, ServerFailedError):
            raise error
        if isinstance(error, ServerFailedError) and canary == GIQA and not named:
            models = (PREPROCESS,)  # the rest answered rightly just before
        dead = [named[1]] if named and named[1] in models else list(models)
        self._say(f"canary of {canary}: {error.message}")
        for model in dead:
            self._load(model)

    def _first_answer(self) -> None:
        """The known answer after a start; a model that was lost meanwhile is loaded again first."""
        for _ in range(_REPAIRS):
            try:
                self.known_answer()
                return
            except GiqaError as e:
                self._repair(GIQA_ISOLATED, e)
        self.known_answer()

    def _load(self, model: str) -> None:
        started = time.monotonic()
        if (pid := self._server.pid) is None:
            raise ServerUnavailableError("tritonserver ended")
        with self._stubs.replacing(pid, model):
            self._server.load(model)
        self.metrics.load(model)
        self._say(f"loaded {model} again in {time.monotonic() - started:.1f} s")

    def _restart(self, why: str, stop: threading.Event) -> None:
        """Start the server anew, again and again until it is ready or told to stop."""
        while not stop.is_set():
            now = time.monotonic()
            self._starts = [t for t in self._starts if now - t < _WINDOW_S] + [now]
            self._say(f"starting tritonserver anew: {why}")
            self.metrics.start()
            try:
                self._server.stop(drain=False)
                self._server.start()
                self._first_answer()
            except Exception as e:  # a full disk, no memory: it may be otherwise in a while
                why = str(e) or repr(e)
                if not stop.is_set():
                    self._complain("it did not start", e)
                stop.wait(min(_LONGEST_PAUSE_S, 0.5 * 2 ** len(self._starts)))
                continue
            self._late = 0
            self._say("tritonserver is ready again")
            return


_PIXEL = bytes.fromhex("50360a3820380a3235350a") + bytes(8 * 8 * 3)
"""A black picture of 8x8 pixels, as PPM."""
