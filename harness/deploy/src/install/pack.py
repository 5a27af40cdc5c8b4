"""Archives what pip has added since a list was made.

pack.py                         prints the installed distributions as JSON: {name: [version, place]}
pack.py LIST ARCHIVE LIMIT      LIST is such JSON; ends with 1 where anything but an addition happened
"""

import json
import os
import sys
import tarfile
from importlib import metadata


def installed():
    found = {}
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        # The first one is imported.
        found.setdefault(name, distribution)
    return found


def key(distribution):
    return [distribution.version, str(distribution.locate_file(""))]


def added(before):
    now = installed()
    for name, was in before.items():
        if name not in now or key(now[name]) != was:
            sys.exit("%s existed and has changed" % name)
    return [now[name] for name in sorted(set(now) - set(before))]


def main():
    if len(sys.argv) == 1:
        print(json.dumps({name: key(found) for name, found in installed().items()}))
        return
    paths = set()
    for distribution in added(json.loads(sys.argv[1])):
        root = os.path.realpath(str(distribution.locate_file("")))
        if distribution.files is None:
            sys.exit("no record of the files of %s" % distribution.metadata["Name"])
        for file in distribution.files:
            path = os.path.normpath(os.path.join(root, str(file)))
            if not os.path.lexists(path):
                continue
            paths.add(path)
            parent = os.path.dirname(path)
            while parent.startswith(root + os.sep):
                paths.add(parent)
                parent = os.path.dirname(parent)
    size = sum(os.lstat(path).st_size for path in paths)
    if size > int(sys.argv[3]):
        sys.exit("%d bytes are too many to carry" % size)
    with tarfile.open(sys.argv[2], "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(paths):
            archive.add(path, path.lstrip("/"), recursive=False)


main()
