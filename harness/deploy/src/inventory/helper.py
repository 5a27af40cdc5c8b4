"""Writes down what the server registers: routes, middlewares and static directories.

lockproof puts it into custom_nodes for one throw-away start, whose container is removed. A judged
start never has it. It registers no node and no route of its own.
"""
import functools
import inspect
import json
import os
import sys

NODE_CLASS_MAPPINGS = {}

ANSWER = "/tmp/lockproof-inventory.json"
# A lock may leave files with these suffixes public, so they do not represent the directory.
PLAIN = (".js", ".mjs", ".css", ".map", ".ico")


def source(function):
    """Name, module and file of a handler, without the wrappers around it."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    module = getattr(function, "__module__", None)
    code = getattr(function, "__code__", None)
    file = code.co_filename if code else getattr(sys.modules.get(module), "__file__", None)
    return {"name": getattr(function, "__qualname__", repr(function)), "module": module, "file": file}


def sample(directory):
    """A file below a static directory, to request it."""
    looked = 0
    for folder, folders, files in os.walk(directory):
        folders.sort()
        for name in sorted(files):
            looked += 1
            if not name.startswith(".") and not name.endswith(PLAIN):
                return os.path.relpath(os.path.join(folder, name), directory)
            if looked > 5000:
                return None
    return None


def routes(app):
    for resource in app.router.resources():
        info = resource.get_info()
        inner = info.get("app")
        if inner is not None:
            # Its resources already contain the prefix.
            yield from routes(inner)
            continue
        for route in resource:
            entry = {"method": route.method, "path": resource.canonical, **source(route.handler)}
            if info.get("directory") is not None:
                entry["directory"] = str(info["directory"])
                entry["sample"] = sample(info["directory"])
            yield entry


async def write(app):
    answer = {"routes": list(routes(app)), "middlewares": [source(m) for m in app.middlewares]}
    part = ANSWER + ".part"
    with open(part, "w", encoding="utf-8") as file:
        json.dump(answer, file)
    os.replace(part, ANSWER)


def attach():
    server = getattr(sys.modules.get("server"), "PromptServer", None)
    app = getattr(getattr(server, "instance", None), "app", None)
    if app is not None:
        # At startup everything is registered, regardless of the load order of custom nodes.
        app.on_startup.append(write)


attach()
