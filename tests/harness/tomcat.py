"""Apache Tomcat as a node: a servlet container whose sessions only it knows.

Every instance has a folder and a loopback address of its own, its name as jvmRoute, and one small
JSP application in three contexts: /shop, where sessions are tracked by cookies, /plain, where
cookies are switched off and the id is written into URLs, and /renamed with another name for both.
"""

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from .client import tool_environment
from .node import next_host
from .proxy import free_port
from .wait import TIMEOUT, until

HOME = Path("/usr/share/tomcat10")
START_SECONDS = max(120, TIMEOUT)  # to load a JVM and compile a page, on a busy machine
CONTEXTS = ("/shop", "/plain", "/renamed")

# Many short-lived JVMs: what makes them start fast, and nothing that only pays in the long run.
JAVA = [
    "java", "-Xmx64m", "-Xss512k", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto",
    "-Djava.awt.headless=true", "-Djava.security.egd=file:/dev/./urandom",
    "-Djava.net.preferIPv4Stack=true",
]  # fmt: skip

SERVER = """\
<Server port="-1">
  <Service name="Catalina">
    <Connector address="{host}" port="{port}" protocol="HTTP/1.1" maxThreads="20"
               minSpareThreads="1"/>
    <Engine name="Catalina" defaultHost="localhost" jvmRoute="{name}">
      <Host name="localhost" appBase="none" autoDeploy="false" deployOnStartup="false">
        <Context path="/shop" docBase="{folder}/shop">{quick}</Context>
        <Context path="/plain" docBase="{folder}/shop" cookies="false">{quick}</Context>
        <Context path="/renamed" docBase="{folder}/shop" sessionCookieName="SID">{quick}</Context>
      </Host>
    </Engine>
  </Service>
</Server>
"""

# No libraries are searched, no sessions are saved at the end.
QUICK = """
          <JarScanner><JarScanFilter defaultTldScan="false" defaultPluggabilityScan="false"/>
          </JarScanner><Manager pathname=""/>"""

WEB = """\
<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0" metadata-complete="true">
  <absolute-ordering/>
</web-app>
"""

DEFAULTS = """\
<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0">
  <servlet>
    <servlet-name>jsp</servlet-name>
    <servlet-class>org.apache.jasper.servlet.JspServlet</servlet-class>
    <init-param><param-name>development</param-name><param-value>false</param-value></init-param>
    <load-on-startup>3</load-on-startup>
  </servlet>
  <servlet-mapping>
    <servlet-name>jsp</servlet-name><url-pattern>*.jsp</url-pattern>
  </servlet-mapping>
</web-app>
"""

# The page says what the application knows. The id is renewed at login (against session fixation),
# and logout deletes the cookie, as frameworks do. "enter" begins a session and redirects, which is
# how an application finds out whether its client keeps cookies.
PAGE = """\
<%@ page session="false" contentType="application/json" %><%
String action = String.valueOf(request.getParameter("do"));
HttpSession session = request.getSession(action.equals("enter") || action.equals("login"));
if (action.equals("enter")) {
  response.sendRedirect(response.encodeRedirectURL("page.jsp?entered"));
  return;
}
if (action.equals("login")) {
  request.changeSessionId();
  session.setAttribute("user", request.getParameter("user"));
  session.setAttribute("count", 0);
  response.sendRedirect(response.encodeRedirectURL("page.jsp?welcome"));
  return;
}
if (action.equals("logout") && session != null) {
  session.invalidate();
  session = null;
  Cookie gone = new Cookie("JSESSIONID", "");
  gone.setMaxAge(0);
  gone.setPath(request.getContextPath());
  response.addCookie(gone);
}
Object user = session == null ? null : session.getAttribute("user");
int count = 0;
if (user != null) {
  synchronized (session) {
    count = (Integer) session.getAttribute("count") + 1;
    session.setAttribute("count", count);
  }
}
%>{"node": "@NAME@",
"user": "<%= user == null ? "" : user %>", "count": <%= count %>,
"asked": "<%= request.getRequestedSessionId() == null ? "" : request.getRequestedSessionId() %>",
"known": <%= request.isRequestedSessionIdValid() %>,
"link": "<%= response.encodeURL("page.jsp") %>"}
"""


class Tomcat:
    """One instance; a context manager. stop() and start() end it and begin it, sessions lost."""

    def __init__(self, name: str):
        self.name = name
        self.host = next_host()
        self.port = free_port(self.host)
        self.address = f"{self.host}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="fastlb-tomcat-")
        self._write(Path(self._folder.name))

    def _write(self, folder: Path) -> None:
        for each in ("conf", "logs", "temp", "work", "none", "shop/WEB-INF"):
            (folder / each).mkdir(parents=True)
        shutil.copy(HOME / "etc/catalina.properties", folder / "conf")
        (folder / "conf/web.xml").write_text(DEFAULTS)
        (folder / "shop/WEB-INF/web.xml").write_text(WEB)
        (folder / "shop/page.jsp").write_text(PAGE.replace("@NAME@", self.name))
        server = SERVER.format(
            host=self.host, port=self.port, name=self.name, folder=folder, quick=QUICK
        )
        (folder / "conf/server.xml").write_text(server)

    def __enter__(self) -> "Tomcat":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        """Start; `ready` waits."""
        folder = self._folder.name
        classes = f"{HOME}/bin/bootstrap.jar:{HOME}/bin/tomcat-juli.jar"
        with open(f"{folder}/logs/out", "ab") as out:
            self._process = subprocess.Popen(
                [*JAVA, f"-Dcatalina.home={HOME}", f"-Dcatalina.base={folder}",
                 f"-Djava.io.tmpdir={folder}/temp", "-cp", classes,
                 "org.apache.catalina.startup.Bootstrap", "start"],
                env=tool_environment(), stdout=out, stderr=out, cwd=folder,
            )  # fmt: skip

    def ready(self) -> None:
        """Wait until every context has answered, its page compiled."""
        with httpx.Client(timeout=START_SECONDS, trust_env=False) as client:
            for context in CONTEXTS:
                until(lambda path=context: self._answers(client, path),
                      f"{context} of Tomcat {self.name}", START_SECONDS)  # fmt: skip

    def _answers(self, client: httpx.Client, context: str) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"Tomcat ended:\n{self.output()}"
        try:
            answer = client.get(f"http://{self.address}{context}/page.jsp")
        except httpx.ConnectError:
            return False
        assert answer.status_code == 200, f"{answer.text}\n{self.output()}"
        return bool(json.loads(answer.text)["node"] == self.name)

    def output(self) -> str:
        return Path(self._folder.name, "logs/out").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(3 * TIMEOUT)
            self._process = None


@contextlib.contextmanager
def tomcats(*names: str) -> Iterator[list[Tomcat]]:
    """Several instances, started at one time."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(Tomcat(name)) for name in names]
        with ThreadPoolExecutor(len(made)) as pool:
            list(pool.map(Tomcat.ready, made))
        yield made
