"""The gateway's process: options and commands come through stdin, a line each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, TextIO

from PIL import Image

from giqa.errors import GiqaError
from giqa.serving._gateway import Gateway
from giqa.serving._gateway_grpc import listen
from giqa.serving._gateway_options import Backend, GatewayOptions


def _say(stream: TextIO, line: str) -> None:
    with contextlib.suppress(OSError):  # whoever listened is gone
        stream.write(f"{line}\n")
        stream.flush()


async def _lines() -> AsyncIterator[str]:
    """Lines of stdin, until whoever started this is gone."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode()


async def _main(options: GatewayOptions) -> None:
    gateway = Gateway(options, lambda line: _say(sys.stderr, line))
    server = await listen(gateway)
    http: Any = None
    serving: asyncio.Task[None] | None = None
    if options.http_port is not None:
        from giqa.serving._gateway_http import listener

        http = listener(gateway)
        serving = asyncio.create_task(http.serve())
    _say(sys.stdout, "ready")
    drain_s = 0.0
    async for line in _lines():
        command = json.loads(line)
        if "drain_s" in command:
            drain_s = command["drain_s"]
            break
        gateway.ready = command.get("ready", gateway.ready)
        if "backends" in command:
            await gateway.serve([Backend(**one) for one in command["backends"]])
            _say(sys.stdout, "served")
    if http is not None:
        http.stop()
    gateway.ready = False
    await server.stop(drain_s)
    await gateway.stop()
    if serving is not None:
        await asyncio.wait([serving], timeout=5)


def main() -> None:
    """Run a gateway; its options come as the first line of stdin."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the supervisor tells when to end
    with open(0, "rb", buffering=0, closefd=False) as stdin:  # no byte of the next line
        options = GatewayOptions.of_json(stdin.readline().decode())
    os.umask(0o077)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # each connection is one
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Image.MAX_IMAGE_PIXELS = None  # headers alone are read here, and the models have limits
    try:
        asyncio.run(_main(options))
    except GiqaError as e:
        _say(sys.stdout, f"failed {e}")
        sys.exit(1)


if __name__ == "__main__":
    main()
