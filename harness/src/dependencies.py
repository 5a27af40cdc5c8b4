"""Prints, as JSON, the Python distributions that a plugin needs: {name: {place, record}}, where the
package lies and where its metadata does.

Run by the subject's own Python: only it knows its search path. Arguments: the plugin's directory,
then its requirements files; or `--` and the names of distributions, where the plugin may be gone.
What is not installed is left out; the reader compares.
"""
import ast
import csv
import importlib.metadata as metadata
import importlib.util
import json
import os
import re
import sys

plugin, requirement_files, names = "", [], []
if sys.argv[1] == "--":
    names = sys.argv[2:]
else:
    plugin, requirement_files = sys.argv[1], sys.argv[2:]


def normalise(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def required_name(line):
    match = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", line)
    return normalise(match.group(1)) if match else None


def listed():
    for path in requirement_files:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                name = required_name(line.split("#")[0])
                if name:
                    yield name


def imported():
    """Top-level modules that the plugin's own files import."""
    for folder, folders, files in os.walk(plugin):
        folders[:] = [f for f in folders if not f.startswith((".", "__"))]
        for name in files:
            if not name.endswith(".py"):
                continue
            try:
                with open(os.path.join(folder, name), "rb") as file:
                    tree = ast.parse(file.read())
            except (SyntaxError, ValueError, OSError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    yield from (alias.name.split(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    yield node.module.split(".")[0]


def by_module():
    mapping = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if not name:
            continue
        top = distribution.read_text("top_level.txt")
        modules = top.split() if top else {
            str(f).split("/")[0].split(".")[0] for f in distribution.files or [] if str(f).endswith(".py")
        }
        for module in modules:
            mapping.setdefault(module, normalise(name))
    return mapping


def recorded(distribution):
    """The files that the installer wrote down; `files` leaves out missing ones from Python 3.12 on."""
    record = distribution.read_text("RECORD")
    if not record:
        return [str(f) for f in distribution.files or []]
    return [row[0] for row in csv.reader(record.splitlines()) if row]


def is_hollow(distribution):
    """Whether of a package in it only the record is left: a mount may hide the package, and not that.

    Some bring more than one, so each is looked at by itself; tests may be left out of an image.
    """
    packages = {}
    for path in recorded(distribution):
        package = path.split("/")[0]
        if path.endswith((".py", ".so")) and package not in ("", "..", "tests", "test", "docs", "examples"):
            packages.setdefault(package, []).append(path)
    gone = lambda path: not os.path.exists(distribution.locate_file(path))
    return any(all(map(gone, paths)) for paths in packages.values())


def place(distribution):
    """The directory of the package, which is what an import needs; else of its metadata."""
    top = (distribution.read_text("top_level.txt") or "").split()
    for module in [m for m in top if not m.startswith("_")] + [distribution.metadata["Name"].replace("-", "_")]:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError, AttributeError):
            spec = None
        if spec and spec.submodule_search_locations:
            return list(spec.submodule_search_locations)[0]
        if spec and spec.origin and spec.origin not in ("built-in", "frozen"):
            return spec.origin
    return str(getattr(distribution, "_path", ""))


modules = by_module()
wanted = names or list(listed()) + [modules[m] for m in imported() if m in modules]
found = {}
while wanted:
    name = wanted.pop()
    if name in found:
        continue
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        continue
    if is_hollow(distribution):
        continue
    record = str(getattr(distribution, "_path", ""))
    found[name] = {"place": os.path.realpath(place(distribution)), "record": record and os.path.realpath(record)}
    for requirement in distribution.requires or []:
        # An extra is an option; what of it is installed shows when the plugin lists it.
        if "extra ==" in requirement.replace("'", '"') and "cryptography" not in requirement:
            continue
        child = required_name(requirement)
        if child:
            wanted.append(child)
print(json.dumps(found, sort_keys=True))
