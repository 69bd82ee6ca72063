"""Which addresses a provider may have, and that the connection goes to the address that was judged."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from aiohttp.abc import AbstractResolver
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from llmops.providers import network_guard as guard
from llmops.providers.guarded_resolver import AddressRefused, GuardedResolver

KINDS = [
    ("8.8.8.8", guard.PUBLIC),
    ("104.18.7.192", guard.PUBLIC),
    ("2606:4700::6812:7c0", guard.PUBLIC),
    ("10.1.2.3", guard.PRIVATE),
    ("172.16.0.1", guard.PRIVATE),
    ("172.31.255.255", guard.PRIVATE),
    ("172.32.0.1", guard.PUBLIC),
    ("192.168.1.1", guard.PRIVATE),
    ("100.64.0.1", guard.PRIVATE),
    ("100.127.255.255", guard.PRIVATE),
    ("fd12:3456::1", guard.PRIVATE),
    ("fec0::1", guard.PRIVATE),
    ("127.0.0.1", guard.LOOPBACK),
    ("127.255.255.254", guard.LOOPBACK),
    ("::1", guard.LOOPBACK),
    ("169.254.1.1", guard.LINK_LOCAL),
    ("fe80::1", guard.LINK_LOCAL),
    ("169.254.169.254", guard.METADATA),
    ("169.254.170.2", guard.METADATA),
    ("100.100.100.200", guard.METADATA),
    ("168.63.129.16", guard.METADATA),
    ("192.0.0.192", guard.METADATA),
    ("fd00:ec2::254", guard.METADATA),
    ("224.0.0.1", guard.MULTICAST),
    ("239.255.255.250", guard.MULTICAST),
    ("ff02::1", guard.MULTICAST),
    ("0.0.0.0", guard.UNSPECIFIED),
    ("0.1.2.3", guard.UNSPECIFIED),
    ("::", guard.UNSPECIFIED),
    ("255.255.255.255", guard.RESERVED),
    ("240.0.0.1", guard.RESERVED),
    ("192.0.2.1", guard.RESERVED),
    ("198.18.0.1", guard.RESERVED),
    ("203.0.113.9", guard.RESERVED),
    ("2001:db8::1", guard.RESERVED),
    ("100::1", guard.RESERVED),
    ("4000::1", guard.RESERVED),
]


@pytest.mark.parametrize(("text", "kind"), KINDS)
def test_kinds_of_addresses(text, kind):
    assert guard.classify(ip_address(text)) == kind


def wrapped(address: IPv4Address) -> list[IPv6Address]:
    """Every IPv6 form that carries an IPv4 address."""
    low = int(address)
    return [
        IPv6Address((0xFFFF << 32) | low),  # mapped
        IPv6Address((0x2002 << 112) | (low << 80)),  # 6to4
        IPv6Address((0x2002 << 112) | (low << 80) | 0xDEADBEEF),
        IPv6Address((0x20010000 << 96) | (~low & 0xFFFFFFFF)),  # Teredo
        IPv6Address((0x0064FF9B << 96) | low),  # NAT64
        IPv6Address((0x0064FF9B0001 << 80) | low),
        IPv6Address((0x2A00 << 112) | (0x00005EFE << 32) | low),  # ISATAP
        IPv6Address((0xFE80 << 112) | (0x02005EFE << 32) | low),
    ]


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_what_an_ipv6_address_carries_decides(address):
    for carrier in wrapped(address):
        assert guard.classify(carrier) == guard.classify(address), carrier


@pytest.mark.parametrize(("text", "kind"), [row for row in KINDS if ":" not in row[0]])
def test_named_addresses_cannot_hide_in_ipv6(text, kind):
    if kind == guard.PUBLIC:
        return
    for carrier in wrapped(IPv4Address(text)):
        assert guard.refusal(str(carrier), allow_private=False) is not None, carrier


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_private_networks_open_only_private_and_loopback(address):
    opened = guard.refusal(str(address), allow_private=True) is None
    shut = guard.refusal(str(address), allow_private=False) is None
    assert opened == (guard.classify(address) in (guard.PUBLIC, guard.PRIVATE, guard.LOOPBACK))
    assert shut == (guard.classify(address) == guard.PUBLIC)


@pytest.mark.parametrize(
    "host",
    [
        "127.1", "0x7f.1", "0x7f000001", "2130706433", "017700000001", "127.0.0.1", "[::1]", "::1",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost", "LOCALHOST.", "api.localhost", "db.internal",
        "metadata.google.internal", "printer.local", "169.254.169.254", "10.0.0.1", "0", "0.0.0.0", "",
        "[fe80::1%25eth0]", "127.0.0.1.", "1.2.3",
    ],
)  # fmt: skip
def test_hosts_that_lead_inside_are_refused_without_asking_a_name_server(host):
    assert guard.host_refusal(host, allow_private=False) is not None


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:a9fe:a9fe]", "0.0.0.0", "127.1"]
)
def test_some_hosts_stay_shut_whatever_is_allowed(host):
    assert guard.host_refusal(host, allow_private=True) is not None


@pytest.mark.parametrize(
    "host",
    [
        "127\u30020\u30020\u30021",
        "127\uff0e0\uff0e0\uff0e1",
        "169\uff61254\uff61169\uff61254",
        "\uff11\uff12\uff17\u3002\uff10\u3002\uff10\u3002\uff11",
        "127.0.0.1\u3002",
        "\uff4cocalhost",
    ],
)
def test_an_address_in_letters_that_clients_of_http_take_for_it_is_refused(host):
    assert URL(f"https://{host}/").raw_host.rstrip(".") in ("127.0.0.1", "169.254.169.254", "localhost")
    assert guard.host_refusal(host, allow_private=False) is not None
    assert guard.host_refusal(host, allow_private=True) is not None


@pytest.mark.parametrize(
    "host", ["api.openai.com", "8.8.8.8", "x.openai.azure.com", "1password.com", "3m.com"]
)
def test_public_hosts_pass(host):
    assert guard.host_refusal(host, allow_private=False) is None


class Told(AbstractResolver):
    """A name server that answers one list after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def resolve(self, host, port=0, family=socket.AF_INET):
        addresses = self.answers.pop(0)
        return [
            {"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": 0}
            for address in addresses
        ]

    async def close(self):
        pass


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "10.0.0.1"],
        ["2606:4700::1", "::ffff:169.254.169.254"],
        ["fe80::1%2"],
        ["nonsense"],
    ],
)
def test_one_refused_address_refuses_the_name(answer):
    resolver = GuardedResolver(allow_private=False, inner=Told(answer))
    with pytest.raises(AddressRefused):
        asyncio.run(resolver.resolve("provider.example", 443))


def test_a_name_that_changes_its_answer_is_judged_each_time():
    resolver = GuardedResolver(allow_private=False, inner=Told(["8.8.8.8"], ["127.0.0.1"]))
    assert asyncio.run(resolver.resolve("provider.example", 443))[0]["host"] == "8.8.8.8"
    with pytest.raises(AddressRefused, match="loopback"):
        asyncio.run(resolver.resolve("provider.example", 443))
