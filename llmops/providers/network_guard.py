"""Which network addresses a provider may have, so that nobody can point the console at its own insides. Pure.

Registries: IANA special-purpose addresses for IPv4 (RFC 6890 and its updates) and IPv6. Forms of IPv6 that carry an
IPv4 address are judged by what they carry: mapped and compatible (RFC 4291), 6to4 (RFC 3056), Teredo (RFC 4380), NAT64
(RFC 6052, RFC 8215) and ISATAP (RFC 5214).
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

PUBLIC, PRIVATE, LOOPBACK, LINK_LOCAL, METADATA, MULTICAST, UNSPECIFIED, RESERVED = (
    "public",
    "private",
    "loopback",
    "link-local",
    "metadata service",
    "multicast",
    "unspecified",
    "reserved",
)
#: What an operator can open by allowing private networks; everything else that is not public stays shut.
_OPENED = (PRIVATE, LOOPBACK)

_METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Google, Azure, most others
        "169.254.170.2",  # AWS container credentials
        "169.254.170.23",
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "168.63.129.16",  # Azure platform
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",  # Google
    )
)
_V4 = [
    (IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", UNSPECIFIED),
        ("10.0.0.0/8", PRIVATE),
        ("100.64.0.0/10", PRIVATE),
        ("127.0.0.0/8", LOOPBACK),
        ("169.254.0.0/16", LINK_LOCAL),
        ("172.16.0.0/12", PRIVATE),
        ("192.0.0.0/24", RESERVED),
        ("192.0.2.0/24", RESERVED),
        ("192.31.196.0/24", RESERVED),
        ("192.52.193.0/24", RESERVED),
        ("192.88.99.0/24", RESERVED),
        ("192.168.0.0/16", PRIVATE),
        ("192.175.48.0/24", RESERVED),
        ("198.18.0.0/15", RESERVED),
        ("198.51.100.0/24", RESERVED),
        ("203.0.113.0/24", RESERVED),
        ("224.0.0.0/4", MULTICAST),
        ("240.0.0.0/4", RESERVED),
    )
]
_V6 = [
    (IPv6Network(network), kind)
    for network, kind in (
        ("::/128", UNSPECIFIED),
        ("::1/128", LOOPBACK),
        ("fc00::/7", PRIVATE),
        ("fec0::/10", PRIVATE),
        ("fe80::/10", LINK_LOCAL),
        ("ff00::/8", MULTICAST),
        ("2001::/23", RESERVED),
        ("2001:db8::/32", RESERVED),
        ("3fff::/20", RESERVED),
    )
]
_GLOBAL_V6 = IPv6Network("2000::/3")
_COMPATIBLE = IPv6Network("::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_ISATAP = (0x00005EFE, 0x02005EFE)


def parse(text: str) -> IPv4Address | IPv6Address | None:
    """The address that ``text`` is, or None for a host name. A scope id (``%eth0``) is not an address here."""
    try:
        return ip_address(text.strip("[]"))
    except (ValueError, AddressValueError):
        return None


def looks_numeric(host: str) -> bool:
    """Whether resolvers may read ``host`` as an IPv4 address in an odd form (``127.1``, ``0x7f000001``, ``017700000001``)."""
    last = host.rstrip(".").rsplit(".", 1)[-1].lower()
    return bool(last) and (last.isdigit() or (last.startswith("0x") and _is_hex(last[2:])))


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)


def classify(address: IPv4Address | IPv6Address) -> str:
    """One of the kinds above for a parsed address."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return LINK_LOCAL
    if address in _METADATA:
        return METADATA
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _V4 if address in network), PUBLIC)
    carried = _carried(address)
    if carried is not None:
        return classify(carried)
    for network, kind in _V6:
        if address in network:
            return kind
    return PUBLIC if address in _GLOBAL_V6 else RESERVED


def _carried(address: IPv6Address) -> IPv4Address | None:
    number = int(address)
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _SIX_TO_FOUR:
        return IPv4Address((number >> 80) & 0xFFFFFFFF)
    if address in _TEREDO:
        return IPv4Address(~number & 0xFFFFFFFF)
    low = IPv4Address(number & 0xFFFFFFFF)
    if any(address in network for network in _NAT64) or (number >> 32) & 0xFFFFFFFF in _ISATAP:
        return low
    if address in _COMPATIBLE and number > 1:
        return low
    return None


def refusal(address: str, *, allow_private: bool) -> str | None:
    """Why a connection to ``address`` (an IP address as text) is refused, or None where it may be made."""
    parsed = parse(address)
    if parsed is None:
        return f"{address!r} is not an IP address"
    kind = classify(parsed)
    if kind == PUBLIC or (allow_private and kind in _OPENED):
        return None
    hint = "; allow private networks on the provider if this is meant" if kind in _OPENED else ""
    return f"{parsed} is a {kind} address{hint}"


def host_refusal(host: str, *, allow_private: bool) -> str | None:
    """Why ``host`` (of a URL) can be refused without asking a name server, or None."""
    name = host.strip("[]").rstrip(".").lower()
    if not name:
        return "the host is missing"
    if not name.isascii():
        # To clients of HTTP full stops of other scripts, full width and what is not seen at all are nothing but another way of
        # writing 127.0.0.1 (UTS #46), and an address is asked of no resolver.
        return f"write the host {host!a} in letters of ASCII (xn--... for others)"
    if "%" in name:
        return "an address with a scope id is refused"
    if parse(name) is not None:
        return refusal(name, allow_private=allow_private)
    if looks_numeric(name):
        return f"write the address {host!r} in its usual form (four decimal numbers)"
    if not allow_private and (name == "localhost" or name.endswith((".localhost", ".internal", ".local"))):
        return f"{host} names a private network; allow private networks on the provider if this is meant"
    return None
