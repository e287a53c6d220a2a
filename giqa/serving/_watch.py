"""Keeping a server alive: canary inferences find what readiness does not show.

A Python model whose process died answers errors for ever while server and model say ready, and a
hung one answers nothing.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from giqa.contract import (
    FUSION,
    GLOBAL_VIEW,
    IMAGE,
    LOCAL_VIEW,
    PREPROCESS,
    PREPROCESS_BYTES,
    PREPROCESSES,
)
from giqa.errors import (
    BundleInvalidError,
    DeadlineExceededError,
    GiqaError,
    OverloadedError,
    ServerFailedError,
    ServerUnavailableError,
)
from giqa.kserve import Tensor, is_dead_stub, request
from giqa.serving._metrics import WatchMetrics
from giqa.serving._options import instances_on_cpu
from giqa.serving._process import Server
from giqa.serving._python_processes import Stubs
from giqa.tensors import composing_models

T = TypeVar("T")

_NAMED = re.compile(r"[Ss]tub process '([a-z_]+?)(?:_\d+)+'")
_RESTARTS, _WINDOW_S = 5, 300.0


class Watch:
    """Asks canaries, repairs what they find, and says so.

    A dead model is loaded again; a server that is gone, hangs, or answers wrongly, is started
    anew. Gives up after 5 starts in 5 minutes.

    Args:
        server: a started server.
        say: takes lines for the log.
        interval_s: pause between canaries in seconds; whether the models' processes live is
            looked up four times as often.
        deadline_s: longest a canary may take in seconds; two in a row beyond it, while nobody else
            is answered either, are a hang. A long queue must not have its server killed.

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
    ) -> None:
        self._server, self._say = server, say
        self._interval_s, self._deadline_s = interval_s, deadline_s
        self.metrics = WatchMetrics(
            server.bundle.manifest.id, server.repository_options.engine, server.tolerance
        )
        self._stubs = Stubs(patience_s=2 * deadline_s)
        self._late = self._done = 0
        self._starts: list[float] = []

    def run(self, stop: threading.Event) -> None:
        """Watch until told to stop.

        Args:
            stop: ends the watch.

        Raises:
            GiqaError: the server cannot be kept alive.
        """
        ticks = 0
        while not stop.wait(self._interval_s / 4):
            ticks += 1
            try:
                if not self.reload_dead() and ticks % 4 == 0 and self.check():
                    self._late = 0
            except GiqaError as e:
                if stop.is_set():
                    return
                self._restart(str(e), stop)

    def known_answer(self) -> float:
        """Ask the canary of the main road.

        Returns:
            The difference from the known score, in points of 100.

        Raises:
            BundleInvalidError: it is larger than the manifest's tolerance.
            GiqaError: the request failed.
        """
        return self._ask(self._known_answer)

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
        self._done = self._server.executed(FUSION)
        for name, canary in self._canaries():
            try:
                self._ask(canary)
            except OverloadedError:
                well = False
            except DeadlineExceededError:
                well = False
                if not self._works():
                    self._late += 1
                    self._say(f"canary of {name}: no answer in {self._deadline_s:.0f} s")
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

    def _works(self) -> bool:
        """Whether others got answers meanwhile: then it is busy, and does not hang."""
        return self._server.executed(FUSION) != self._done

    def _canaries(self) -> list[tuple[str, Callable[[], object]]]:
        """The main road, and the models that it does not pass."""
        found: list[tuple[str, Callable[[], object]]] = [("giqa", self._known_answer)]
        if self._server.repository_options.device == "cpu":
            for model in PREPROCESSES:
                if model != PREPROCESS:
                    found.append((model, partial(self._preprocess, model)))
        return found

    def _known_answer(self) -> float:
        started = time.monotonic()
        difference = self._server.difference(self._deadline_s)
        self.metrics.answer(difference, time.monotonic() - started)
        self._server.judge(difference)
        return difference

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
        dead = [named[1]] if named and named[1] in models else list(models)
        self._say(f"canary of {canary}: {error.message}")
        for model in dead:
            self._load(model)

    def _load(self, model: str) -> None:
        started = time.monotonic()
        if (pid := self._server.pid) is None:
            raise ServerUnavailableError("tritonserver ended")
        with self._stubs.replacing(pid, model):
            self._server.load(model)
        self.metrics.load(model)
        self._say(f"loaded {model} again in {time.monotonic() - started:.1f} s")

    def _restart(self, why: str, stop: threading.Event) -> None:
        """Start the server anew."""
        while True:
            now = time.monotonic()
            self._starts = [t for t in self._starts if now - t < _WINDOW_S] + [now]
            if len(self._starts) > _RESTARTS:
                raise ServerUnavailableError(
                    f"started {_RESTARTS} times in {_WINDOW_S:.0f} s, the last time because: {why}"
                )
            self._say(f"starting tritonserver anew: {why}")
            self.metrics.start()
            self._server.stop(drain=False)
            try:
                self._server.start()
                self.known_answer()
            except GiqaError as e:
                why = str(e)
                if stop.wait(min(10.0, 0.5 * 2 ** len(self._starts))):
                    return
                continue
            self._late = 0
            self._say("tritonserver is ready again")
            return


_PIXEL = bytes.fromhex("50360a3820380a3235350a") + bytes(8 * 8 * 3)
"""A black picture of 8x8 pixels, as PPM."""
