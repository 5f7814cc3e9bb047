"""A W&B server for tests: the part of the protocol that a training run speaks, on this machine."""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789" * 4  # the one account's key; W&B wants 40 characters
ENTITY = "tester"


@dataclass
class StoredRun:
    """What the server knows of a run."""

    name: str  # its id
    project: str
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)  # of the history, by their number
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None  # None: not ended
    preempted: bool = False
    upserts: int = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows as JSON gives them, in the order of their lines."""
        return [json.loads(line) for line in self.lines]


@dataclass
class StoredArtifact:
    """A version of an artifact, with its files once they are committed."""

    name: str
    kind: str
    run: str
    digest: str
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


class WandbServer:
    """Answers on ``url`` until it dies; what it stored outlives that, as on a server's disk."""

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: list[StoredArtifact] = []
        self.unknown: list[str] = []  # operations it has no answer to: a test should see none
        self.rows_came = threading.Event()
        self.died = threading.Event()
        self.refuses_history = False  # as if the account had lost its rights in mid-run
        self.dies_with_history = False  # stores the first rows, and dies instead of answering
        self.lock = threading.Lock()
        self._http: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()
        assert self._http is not None
        self._port = self._http.server_port

    @property
    def url(self) -> str:
        """For ``WANDB_BASE_URL``; the same after a death."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Begin to answer, or answer again."""
        self._http = _Server(("127.0.0.1", self._port), _handler_of(self))
        self.died.clear()
        threading.Thread(target=self._http.serve_forever, args=[0.02], daemon=True).start()

    def die(self) -> None:
        """Close the socket: connections are refused from now on."""
        assert self._http is not None
        self._http.shutdown()
        self._http.server_close()
        self.died.set()

    def graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to an operation; None if it is unknown."""
        answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "Viewer": _viewer,
            "ServerFeaturesQuery": lambda _: {"serverInfo": {"features": []}},
            "OrganizationCoreWeaveOrganizationID": lambda _: {"entity": None},
            "RunResumeStatus": self._resume_status,
            "UpsertBucket": self._upsert,
            "CreateRunFiles": self._run_files,
            "ArtifactType": lambda _: {"project": None},
            "CreateArtifact": self._artifact,
            "CreateArtifactManifest": self._manifest,
            "CreateArtifactFiles": self._artifact_files,
            "CommitArtifact": self._commit,
            "ArtifactByID": self._artifact_by_id,
        }
        with self.lock:
            if operation in answers:
                return answers[operation](variables)
            self.unknown.append(f"{operation} {json.dumps(variables)[:2000]}")
            return None

    def file_stream(self, name: str, content: dict[str, Any]) -> bool:
        """Store rows, summary and exit code; False if the server died of it."""
        files = content.get("files", {})
        with self.lock:
            run = self.runs[name]
            if chunk := files.get("wandb-history.jsonl"):
                start = chunk["offset"]
                assert start <= len(run.lines), "a gap in the history"
                run.lines[start : start + len(chunk["content"])] = chunk["content"]
                self.rows_came.set()
            if "wandb-summary.json" in files:
                run.summary = json.loads(files["wandb-summary.json"]["content"][-1])
            run.preempted = run.preempted or bool(content.get("preempting"))
            if content.get("complete"):
                run.exit_code = content["exitcode"]
        if self.dies_with_history and chunk:
            self.dies_with_history = False
            self.die()
            return False
        return True

    def store(self, path: str, content: bytes) -> None:
        """Keep an uploaded file; the path is one that the server gave out itself."""
        _, kind, owner, name = path.split("/", 3)
        with self.lock:
            if kind == "run-file":
                self.runs[owner].files[name] = content
            elif kind == "artifact-file":
                self.artifacts[int(owner)].files[name] = content

    def _resume_status(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(variables["name"])
        bucket = run and {
            "id": run.name,
            "name": run.name,
            "displayName": run.name,
            "summaryMetrics": json.dumps(run.summary),
            "config": json.dumps(run.config),
            "historyLineCount": len(run.lines),
            "historyTail": json.dumps(run.lines[-1:]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "tags": run.tags,
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }
        return {"model": {**_project(variables["project"]), "bucket": bucket}}

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, StoredRun(name, variables["project"]))
        run.upserts += 1
        run.group = variables["groupName"] or run.group
        run.job_type = variables["jobType"] or run.job_type
        run.tags = variables["tags"] or run.tags
        if variables["config"]:
            run.config = json.loads(variables["config"])
        bucket = {
            "id": run.name,
            "name": run.name,
            "displayName": run.name,
            "description": None,
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": _project(run.project),
            "historyLineCount": len(run.lines),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _run_files(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = variables["run"]
        files = [
            {"name": file, "uploadUrl": f"{self.url}/run-file/{run}/{file}"}
            for file in variables["files"]
        ]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    def _artifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        given = variables["input"]
        name, digest = given["artifactCollectionName"], given["digest"]
        earlier = [i for i, each in enumerate(self.artifacts) if each.name == name]
        same = [i for i in earlier if self.artifacts[i].digest == digest]
        number = same[0] if same else len(self.artifacts)
        if not same:
            kind = given["artifactTypeName"]
            self.artifacts.append(StoredArtifact(name, kind, given["runName"], digest))
        latest = {"id": str(earlier[-1])} if earlier else None
        state = "COMMITTED" if self.artifacts[number].committed else "PENDING"
        artifact = {
            "id": str(number),
            "state": state,
            "artifactSequence": {"latestArtifact": latest},
        }
        return {"createArtifact": {"artifact": artifact}}

    def _manifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        owner = variables["artifactID"]
        url = f"{self.url}/artifact-file/{owner}/{variables['name']}"
        file = {"id": "1", "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": owner, "file": file}}}

    def _artifact_files(self, variables: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for file in variables["input"]["artifactFiles"]:
            owner, name = file["artifactID"], file["name"]
            node = {
                "storagePath": name,
                "uploadUrl": f"{self.url}/artifact-file/{owner}/{name}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": owner},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commit(self, variables: dict[str, Any]) -> dict[str, Any]:
        artifact = self.artifacts[int(variables["artifactID"])]
        artifact.committed = True
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": ""}}}

    def _artifact_by_id(self, variables: dict[str, Any]) -> dict[str, Any]:
        found = self.artifacts[int(variables["id"])]
        artifact = {
            "__typename": "Artifact",
            "id": variables["id"],
            "artifactSequence": {
                "__typename": "ArtifactSequence",
                "name": found.name,
                "project": None,
            },
            "versionIndex": 0,
            "artifactType": {"name": found.kind},
            "description": None,
            "metadata": None,
            "ttlDurationSeconds": 0,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": "COMMITTED" if found.committed else "PENDING",
            "size": 0,
            "digest": found.digest,
            "commitHash": "",
            "fileCount": len(found.files),
            "createdAt": "2026-01-01T00:00:00",
            "updatedAt": None,
            "aliases": [],
        }
        return {"artifact": artifact}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a request may be what kills the server


def _handler_of(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self._body()
            if self.path.startswith("/sdk/"):  # telemetry, which a server need not have
                self._answer(404, {})
            elif self.headers.get("Authorization") != _authorization(KEY):
                self._answer(401, {"errors": [{"message": "invalid API key"}]})
            elif self.path == "/graphql":
                self._graphql(json.loads(body))
            elif server.refuses_history and b"wandb-history.jsonl" in body:
                self._answer(403, {"errors": [{"message": "permission denied"}]})
            elif server.file_stream(self.path.split("/")[-2], json.loads(body)):
                self._answer(200, {"exitcode": None, "limits": {}})

        def do_PUT(self) -> None:
            server.store(self.path, self._body())
            self._answer(200, {})

        def _graphql(self, request: dict[str, Any]) -> None:
            found = re.match(r"\s*(?:query|mutation)\s+(\w+)", request["query"])
            operation = found[1] if found else request["query"]
            data = server.graphql(operation, request.get("variables") or {})
            if data is None:
                self._answer(400, {"errors": [{"message": f"unknown operation {operation}"}]})
            else:
                self._answer(200, {"data": data})

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            zipped = self.headers.get("Content-Encoding") == "gzip"
            return gzip.decompress(body) if zipped else body

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    return Handler


def _authorization(key: str) -> str:
    return f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}"


def _viewer(_: dict[str, Any]) -> dict[str, Any]:
    teams = {"edges": [{"node": {"name": ENTITY}}]}
    who = {"id": "1", "entity": ENTITY, "username": ENTITY, "email": None, "flags": "{}"}
    return {"viewer": {**who, "teams": teams}}


def _project(name: str) -> dict[str, Any]:
    return {"id": name, "name": name, "entity": {"id": ENTITY, "name": ENTITY}}
