"""The simulated users of `fastlb demo`: each has a cookie jar, and a new connection every time."""

import http.client
import json
from dataclasses import dataclass, field


@dataclass
class Visit:
    """What one request of a user met."""

    node: str
    hits: int
    stranger: bool


@dataclass
class DemoUser:
    """A user who keeps the cookies that the site sets, as a browser does."""

    name: str
    host: str
    port: int
    source: str  # a loopback address of the user's own, as real users have
    cookies: dict[str, str] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)

    def visit(self, path: str = "/api") -> Visit:
        """One request; raises OSError, http.client.HTTPException or ValueError when it fails."""
        connection = http.client.HTTPConnection(
            self.host, self.port, timeout=5, source_address=(self.source, 0)
        )
        try:
            connection.request("GET", path, headers=self._headers())
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(f"{self.name} got status {response.status}")
        for line in response.headers.get_all("Set-Cookie", []):
            name, _, rest = line.partition("=")
            self.cookies[name.strip()] = rest.partition(";")[0]
        account = json.loads(body)
        visit = Visit(account["node"], account["hits"], account["stranger"])
        self.visits.append(visit)
        return visit

    def _headers(self) -> dict[str, str]:
        headers = {"X-Demo-User": self.name, "User-Agent": f"demo user {self.name}"}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        return headers

    @property
    def stuck(self) -> bool:
        """All requests reached one node, which counted every one of them."""
        nodes = {visit.node for visit in self.visits}
        strangers = any(visit.stranger for visit in self.visits)
        return len(nodes) == 1 and not strangers and self.visits[-1].hits == len(self.visits)
