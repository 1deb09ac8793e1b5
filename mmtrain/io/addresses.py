"""Public internet only: connections that check the address they go to (against request forgery, CWE-918). No torch.

The name is resolved once, and the connection goes to the address that was checked: a name that resolves otherwise a
moment later (DNS rebinding) gains nothing. Every redirect makes a connection of its own and is checked as well.
"""

import ipaddress
import socket

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

from mmtrain.io.errors import AddressRefusedError

NAT64 = ipaddress.ip_network("64:ff9b::/96")  # the last four bytes are an IPv4 address


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet: not private, loopback, link-local, shared or reserved."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if found in NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def public_addresses(host: str, port: int) -> list[str]:
    """The public addresses of a host; AddressRefusedError where it has none, socket.gaierror where it is unknown."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    resolved = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    public = [address for address in resolved if is_public(address)]
    if not public:
        raise AddressRefusedError(f"{host} has the address {resolved[0]}, which is not one of the public internet")
    return public


class _PublicMixin:
    """Connects to a checked address of the host; certificates are still checked for the host's name."""

    def _new_conn(self) -> socket.socket:
        try:
            addresses = public_addresses(self.host, self.port)
        except (socket.gaierror, UnicodeError) as error:
            raise NameResolutionError(self.host, self, error) from error
        for address in addresses:
            try:
                return create_connection((address, self.port), self.timeout, self.source_address, self.socket_options)
            except TimeoutError as error:
                failure = ConnectTimeoutError(self, f"Connection to {self.host} timed out")
                failure.__cause__ = error
            except OSError as error:
                failure = NewConnectionError(self, f"Failed to establish a new connection: {error}")
                failure.__cause__ = error
        raise failure


class _PublicHTTPConnection(_PublicMixin, HTTPConnection):
    pass


class _PublicHTTPSConnection(_PublicMixin, HTTPSConnection):
    pass


class _PublicHTTPPool(HTTPConnectionPool):
    ConnectionCls = _PublicHTTPConnection


class _PublicHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _PublicHTTPSConnection


PUBLIC_POOLS = {"http": _PublicHTTPPool, "https": _PublicHTTPSPool}
