"""def functions over tunnel; for tests only."""

from fastlb._core._testing_relay cimport Way
from fastlb._core._testing_rig cimport End, Rig
from fastlb._core.tunnel cimport (
    TUNNEL_AGAIN, TUNNEL_BROKEN, TUNNEL_ENDED, TUNNEL_OPEN, tunnel_run, tunnel_start,
)

RESULTS = {
    TUNNEL_OPEN: "open", TUNNEL_ENDED: "ended", TUNNEL_BROKEN: "broken", TUNNEL_AGAIN: "again",
}


def start(Way way):
    tunnel_start(&way.flow)


def run(Rig rig, End client, End node, Way up, Way down):
    return RESULTS[tunnel_run(rig.w, &client.stream, &node.stream, &up.flow, &down.flow)]
