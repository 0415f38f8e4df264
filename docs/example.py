"""Ask the agent of this node for a uid, with nothing but the standard library.

    python3 example.py [SOCKET [POOL]]
"""
import http.client
import json
import os
import socket
import sys


class Agent(http.client.HTTPConnection):
    """A connection to the agent's Unix socket."""

    def __init__(self, path):
        super().__init__("agent", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def call(self, method, path, body=None, token=None):
        headers = {"content-type": "application/json"}
        if token:
            headers["if-match"] = '"%s"' % token
        self.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self.getresponse()
        text = answer.read()
        if answer.status >= 400:
            problem = json.loads(text)
            raise RuntimeError("%s: %s" % (problem["code"], problem["detail"]))
        return json.loads(text) if text else None


path = sys.argv[1] if len(sys.argv) > 1 else "/run/idpool/agent.sock"
pool = sys.argv[2] if len(sys.argv) > 2 else "jobs"
agent = Agent(path)
# The key makes it repeatable: sent again, it returns the same grant.
grant = agent.call("POST", "/v1/uid-pools/%s/uids" % pool, {"key": "example-%d" % os.getpid(), "holder": "example.py"})
uid = grant["items"][0]["uid"]
print("granted", uid)
# … start the process under it, then POST /v1/uids/UID/confirm; or give it back:
released = agent.call("DELETE", "/v1/uids/%d" % uid, token=grant["token"])
print("released", released["changed"])
