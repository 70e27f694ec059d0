"""A headless Chromium for tests, driven through its DevTools pipe, so that no driver program is needed. It reaches
nothing but this machine."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess


class Browser:
    "A headless Chromium, spoken to in DevTools messages, each ended by a zero byte."

    def __init__(self, profile):
        program = next(
            filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")))
        )
        read_end, self.out = os.pipe()
        self.into, write_end = os.pipe()
        arguments = [
            program,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-quic",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        ends = [
            fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read_end, write_end)
        ]  # chromium reads from 3 and writes to 4
        self.process = subprocess.Popen(
            arguments,
            pass_fds=(3, 4),
            preexec_fn=lambda: [os.dup2(end, to) for end, to in zip(ends, (3, 4))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (read_end, write_end, *ends):
            os.close(end)
        self.number, self.buffer, self.events, self.session = 0, b"", [], None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def message(self):
        while b"\0" not in self.buffer:
            data = os.read(self.into, 1 << 20)
            if not data:
                raise RuntimeError("chromium has gone")
            self.buffer += data
        one, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(one)

    def call(self, method, **params):
        self.number += 1
        order = {"id": self.number, "method": method, "params": params} | (
            {"sessionId": self.session} if self.session else {}
        )
        os.write(self.out, json.dumps(order).encode() + b"\0")
        while (message := self.message()).get("id") != self.number:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def open(self, page):
        "Open a file (`Path`) or an address, and wait until it is loaded."
        self.events.clear()
        self.call("Page.bringToFront")  # a page in the background draws no frames, and JupyterLab waits for one
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message())

    def js(self, text):
        result = self.call("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def key(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                **({"text": key} if kind == "keyDown" and len(key) == 1 else {}),
            )

    def close(self):
        with contextlib.suppress(RuntimeError, OSError):
            self.call("Browser.close")
        self.process.wait(20)
