"""A small client of a ComfyUI server, with or without a login. It needs nothing but Python 3.8.

    from comfyui_client import ComfyUI
    comfy = ComfyUI()                      # COMFYUI_URL and COMFYUI_API_TOKEN
    pictures = comfy.run(workflow)         # a workflow in the API format

Where the server is and which token it takes come from the arguments, else from the environment, else
from the `.env` of this directory or one above it. Without a token the client sends none, which an
open server serves. Whatever goes wrong is a ComfyUIError that says what to do:

    AuthenticationError   the server wants a token, or refuses this one
    ServerUnreachable     nobody answers, or not in time
    WorkflowError         the server refuses the workflow, or a node failed

Every request shows the token as `Authorization: Bearer`. Nothing here ever prints it.
"""

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

URL, TOKEN = "COMFYUI_URL", "COMFYUI_API_TOKEN"
DEFAULT_URL = "http://127.0.0.1:8188"


class ComfyUIError(Exception):
    """What all errors of this client are."""


class AuthenticationError(ComfyUIError):
    """The server wants a token, or refuses the one that it was shown."""


class ServerUnreachable(ComfyUIError):
    """Nobody answers at that address, or not in time."""


class WorkflowError(ComfyUIError):
    """The server refuses the workflow, or one of its nodes failed."""


class ComfyUI:
    """A server. `timeout` is how many seconds one answer may take."""

    def __init__(self, url=None, token=None, timeout=30):
        self.url = (url or _setting(URL) or DEFAULT_URL).rstrip("/")
        self.timeout = timeout
        self._token = token if token is not None else _setting(TOKEN)
        if self._token and not all(33 <= ord(c) <= 126 for c in self._token):
            raise AuthenticationError(f"{TOKEN} holds white space or characters that no token has; "
                                      "is the .env quoted?")

    def __repr__(self):
        return f"ComfyUI({self.url}, {'with' if self._token else 'without'} a token)"

    def get(self, path, **query):
        """The JSON that a GET gives."""
        return self._json(self._send("GET", path, query=query), path)

    def post(self, path, body):
        """The JSON that a POST of JSON gives."""
        data = json.dumps(body).encode()
        answer = self._send("POST", path, data=data, headers={"Content-Type": "application/json"})
        return self._json(answer, path)

    def nodes(self):
        """Every node class of the server, with its inputs."""
        return self.get("/object_info")

    def upload(self, picture, name):
        """Puts a picture (bytes, or the path of a file) among the server's inputs, and gives the name
        by which LoadImage finds it."""
        if not isinstance(picture, (bytes, bytearray)):
            with open(picture, "rb") as file:
                picture = file.read()
        border = uuid.uuid4().hex
        head = (f'--{border}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'
                f'--{border}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
                "Content-Type: application/octet-stream\r\n\r\n")
        data = head.encode() + bytes(picture) + f"\r\n--{border}--\r\n".encode()
        answer = self._send("POST", "/upload/image", data=data,
                            headers={"Content-Type": f"multipart/form-data; boundary={border}"})
        stored = self._json(answer, "/upload/image")
        return "/".join(part for part in (stored.get("subfolder"), stored["name"]) if part)

    def queue(self, workflow):
        """Queues a workflow in the API format, and gives its id."""
        answer = self.post("/prompt", {"prompt": workflow, "client_id": uuid.uuid4().hex})
        return answer["prompt_id"]

    def wait(self, prompt_id, timeout=600, pause=0.1):
        """Waits for a queued workflow, and gives its entry in the history."""
        end = time.monotonic() + timeout
        while True:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                status = entry.get("status") or {}
                if status.get("status_str") == "error":
                    raise WorkflowError(_failure(status.get("messages") or []))
                if status.get("completed", True):
                    return entry
            if time.monotonic() > end:
                raise WorkflowError(f"the workflow is not done after {timeout} s; it may still be queued")
            time.sleep(pause)
            pause = min(pause * 1.5, 2)

    def run(self, workflow, timeout=600):
        """Runs a workflow and gives its saved pictures, as PNG bytes, in the order of its nodes."""
        entry = self.wait(self.queue(workflow), timeout)
        found = []
        for node in sorted(entry.get("outputs", {}), key=lambda name: (len(name), name)):
            found += entry["outputs"][node].get("images", [])
        if not found:
            raise WorkflowError("the workflow gave no pictures; does it end in SaveImage or PreviewImage?")
        return [self.picture(image) for image in found]

    def picture(self, image):
        """The bytes of a picture that the history lists."""
        query = {key: image.get(key, "") for key in ("filename", "subfolder", "type")}
        return self._send("GET", "/view", query=query)[1]

    def _send(self, method, path, query=None, data=None, headers=None):
        """Sends a request, and gives the kind and the bytes of the answer."""
        url = self.url + path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with _open(request, timeout=self.timeout) as answer:
                return answer.headers.get_content_type(), answer.read()
        except urllib.error.HTTPError as error:
            raise self._refusal(error, method, path) from None
        except urllib.error.URLError as error:
            raise ServerUnreachable(self._nobody(error.reason)) from None
        except (OSError, ValueError) as error:
            # A connection that breaks in mid-answer; a URL that is none.
            raise ServerUnreachable(self._nobody(error)) from None

    def _refusal(self, error, method, path):
        where = f"{method} {path}"
        to_login = 300 <= error.code < 400 and "login" in error.headers.get("Location", "")
        if error.code in (401, 403, 407) or to_login:
            if self._token:
                return AuthenticationError(f"the server refuses the token ({error.code} at {where}): is {TOKEN} the "
                                           "present one? `lockproof token check` compares them")
            return AuthenticationError(f"the server wants a token ({error.code} at {where}): set {TOKEN} in the "
                                       "environment or in .env")
        if error.code in (502, 503, 504):
            return ServerUnreachable(self._nobody(f"{error.code} at {where}"))
        text = error.read(100_000).decode("utf-8", "replace")
        try:
            return WorkflowError(_refused_workflow(json.loads(text)))
        except (ValueError, AttributeError, TypeError):
            return ComfyUIError(f"the server answers {error.code} at {where}: {text[:200].strip()}")

    def _nobody(self, why):
        return f"{self.url} does not answer ({why}): does the server run, and is {URL} its address?"

    def _json(self, answer, path):
        kind, data = answer
        try:
            return json.loads(data)
        except ValueError:
            if kind == "text/html":
                # A proxy's login page, sent as if all were well.
                raise AuthenticationError(f"the server sends a page at {path} where data should be: a login page? "
                                          f"Set {TOKEN}") from None
            raise ComfyUIError(f"the server sends no JSON at {path}") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect leads to a login page; followed, it would look like an answer."""

    def redirect_request(self, *_):
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def _open(request, timeout):
    return _opener.open(request, timeout=timeout)


def _refused_workflow(answer):
    """What `POST /prompt` says of a workflow that it refuses, node by node."""
    said = [answer["error"]["message"]]
    for node, problem in (answer.get("node_errors") or {}).items():
        for error in problem.get("errors", []):
            said.append(f"node {node} ({problem.get('class_type')}): {error.get('message')}: {error.get('details')}")
    return "the server refuses the workflow: " + "; ".join(said)


def _failure(messages):
    for kind, what in messages:
        if kind == "execution_error":
            message = str(what.get("exception_message", "")).strip()
            return f"node {what.get('node_id')} ({what.get('node_type')}) failed: {message}"
        if kind == "execution_interrupted":
            return f"the run was interrupted at node {what.get('node_id')}"
    return "the server says that the workflow failed, and not why"


def _setting(name):
    value = os.environ.get(name)
    if value:
        return value
    directory = os.getcwd()
    while True:
        path = os.path.join(directory, ".env")
        if os.path.isfile(path):
            return _in_env_file(path, name)
        parent = os.path.dirname(directory)
        if parent == directory:
            return None
        directory = parent


def _in_env_file(path, name):
    """The last `NAME=value`; in quotes or not, and nothing in it is interpolated."""
    found = None
    with open(path, encoding="utf-8") as file:
        for line in file:
            key, equals, value = line.strip().partition("=")
            if not equals or key.split()[-1:] != [name]:
                continue
            value = value.strip()
            if value[:1] in ("'", '"') and value.find(value[0], 1) > 0:
                found = value[1:value.find(value[0], 1)]
            else:
                found = value.split(" #")[0].strip()
    return found or None
