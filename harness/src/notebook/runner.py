"""Executes a notebook cell by cell, and says how it goes on standard output, one JSON object a line.

Started as `python runner.py REQUEST`; the request is a JSON file that is deleted when it was read,
because it holds the environment of the notebook, and so its token.
"""

import asyncio
import hashlib
import json
import math
import os
import sys
import threading
import time

# Whatever a library prints must not run into what is said here.
answer, sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8"), sys.stderr


def say(**what):
    print(json.dumps(what), file=answer, flush=True)


def forward(socket, port):
    """Passes connections to a port of the loopback address on to a socket in the file system."""

    async def copy(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            try:
                writer.write_eof()
            except OSError:
                pass

    async def connect(reader, writer):
        try:
            to_reader, to_writer = await asyncio.open_unix_connection(socket)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))
        writer.close()
        to_writer.close()

    async def serve():
        server = await asyncio.start_server(connect, "127.0.0.1", port)
        ready.set()
        await server.serve_forever()

    ready = threading.Event()
    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    ready.wait(10)


# How many bytes of one cell's outputs are kept, and after how many it is interrupted.
KEPT = 8 * 1024 * 1024
MOST = 64 * 1024 * 1024
# How many characters of an error are passed on.
LONGEST = 20_000


def limited(base):
    """A client that keeps the first outputs of a cell and counts the others."""

    class Limited(base):
        def begin_cell(self):
            self.printed, self.digest, self.interrupted = 0, hashlib.sha256(), False

        def process_message(self, msg, cell, cell_index):
            content = msg["content"]
            if msg["msg_type"] == "stream":
                output = content["text"]
            elif msg["msg_type"] in ("display_data", "execute_result", "update_display_data"):
                output = json.dumps(content.get("data"), sort_keys=True)
            else:
                return super().process_message(msg, cell, cell_index)
            output = output.encode("utf-8", "replace")
            self.printed += len(output)
            self.digest.update(output)
            if self.printed > MOST and not self.interrupted:
                self.interrupted = True
                asyncio.ensure_future(self.km.interrupt_kernel())
            if self.printed > KEPT:
                return None
            return super().process_message(msg, cell, cell_index)

        def cut(self):
            """The note on what was left out. It has a hash of everything, so that it differs where what was
            left out does."""
            if self.printed <= KEPT:
                return None
            if self.interrupted:
                return f"[lockproof: cut; the cell printed more than {MOST} bytes and was interrupted]"
            return f"[lockproof: cut; the cell printed {self.printed} bytes, SHA-256 {self.digest.hexdigest()}]"

    return Limited


async def execute(request):
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = nbformat.read(request["notebook"], as_version=4)
    client = limited(NotebookClient)(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": request["directory"]}},
        shutdown_kernel="immediate",
    )
    try:
        async with client.async_setup_kernel():
            reply = await client.async_wait_for_reply(client.kc.kernel_info())
            notebook.metadata["language_info"] = reply["content"]["language_info"]
            end = time.monotonic() + request["notebook_timeout"]
            for index, cell in enumerate(notebook.cells):
                if cell.cell_type != "code" or not "".join(cell.source).strip():
                    continue
                say(begin=index)
                begun = time.monotonic()
                left = end - begun
                # nbclient knows whole seconds only.
                client.timeout = max(1, math.ceil(min(request["cell_timeout"], left)))
                how, detail = "done", ""
                client.begin_cell()
                try:
                    if left <= 0:
                        raise CellTimeoutError()
                    await client.async_execute_cell(cell, index)
                except CellExecutionError as error:
                    how, detail = "raised", f"{error.ename}: {error.evalue}"[:LONGEST]
                except CellTimeoutError:
                    how = "notebook-timeout" if left < request["cell_timeout"] else "cell-timeout"
                except DeadKernelError:
                    how = "died"
                if note := client.cut():
                    cell.outputs.append(nbformat.v4.new_output("stream", name="stderr", text=note))
                if client.interrupted:
                    how, detail = "raised", f"it printed more than {MOST} bytes and was interrupted"
                say(end=index, how=how, detail=detail, seconds=time.monotonic() - begun)
                if how != "done":
                    break
    finally:
        nbformat.write(notebook, request["executed"])


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    os.remove(sys.argv[1])
    os.environ.update(request["env"])
    if request["socket"]:
        forward(request["socket"], request["port"])
    try:
        asyncio.run(execute(request))
    except ImportError as error:
        say(broken=f"this Python lacks {error.name}", missing=error.name)
    except Exception as error:  # Whatever it is, it is told.
        if type(error).__name__ == "NoSuchKernel":
            say(broken="this Python has no kernel", missing="ipykernel")
            return
        say(broken=f"{type(error).__name__}: {error}")
    else:
        say(finished=True)


main()
