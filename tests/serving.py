"A web server in a thread of the test, for servers that stand in for others."

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

from aiohttp import web


@contextmanager
def serving(routes: Sequence[web.RouteDef], **options) -> Iterator[str]:
    "The address of a server with these routes, while the block runs; `options` are those of the application."
    started, ended = SimpleQueue(), []

    async def main():
        app = web.Application(**options)
        app.add_routes(routes)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ended[:] = [asyncio.get_running_loop(), asyncio.Event()]
        started.put(runner.addresses[0][1])
        await ended[1].wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{started.get(timeout=30)}"
    finally:
        ended[0].call_soon_threadsafe(ended[1].set)
        thread.join(10)
