"""Addresses and routes of the node. Nothing of the cluster can leave the machine:

pods get routes to the two test ranges only, the Service range ends at a bridge
of ours, and what is left of both ranges is unreachable for the whole machine.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import settings
from processes import BOOT_ID
from settings import Place, State
from shell import run, wait_until

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
LAST_RESORT_METRIC = "4278198272"
PROXY_TABLES = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))


def set_up(state: State) -> None:
    for subnet in settings.TEST_RANGES:
        # Of such a high metric that any other route wins; it stays when the others are gone,
        # so that a late client never sends a packet out through the default route.
        run(["ip", "route", "replace", "unreachable", subnet, "metric", LAST_RESORT_METRIC])
    if not has_bridge():
        run(["ip", "link", "add", settings.NODE_BRIDGE, "type", "bridge"])
    run(["ip", "address", "replace", f"{settings.NODE_ADDRESS}/32", "dev", settings.NODE_BRIDGE])
    run(["ip", "link", "set", settings.NODE_BRIDGE, "up"])
    route = ["ip", "route", "replace", settings.SERVICE_RANGE, "dev", settings.NODE_BRIDGE]
    run([*route, "src", settings.NODE_ADDRESS])
    boot = BOOT_ID.read_text().strip()
    if not state.restore.exists() or _saved(state).get("boot", boot) != boot:
        state.restore.write_text(json.dumps({"ip_forward": IP_FORWARD.read_text().strip(), "boot": boot}))
    IP_FORWARD.write_text("1\n")


def _saved(state: State) -> dict[str, str]:
    try:
        saved: dict[str, str] = json.loads(state.restore.read_text())
    except (OSError, ValueError):
        return {}
    return saved


def is_set_up(state: State) -> bool:
    """Whether the rules and routes of this machine are ours: set up since it booted, not yet torn down."""
    return _saved(state).get("boot") == BOOT_ID.read_text().strip()


def has_bridge() -> bool:
    """Without it the node's address belongs to nobody, and a question to it would leave the machine."""
    return Path("/sys/class/net", settings.NODE_BRIDGE).exists()


def has_second_link() -> bool:
    return Path("/sys/class/net", settings.SECOND_LINK).exists()


def link_second_node(pid: int, within: Sequence[str]) -> None:
    """Join the network namespace of `pid` to this machine; `within` runs a command in it. No default route is
    there, so nothing of the second node leaves the machine. The link ends with the namespace."""
    here, second = settings.NODE_ADDRESS, settings.SECOND
    link = ["ip", "link", "add", settings.SECOND_LINK, "type", "veth"]
    run([*link, "peer", "name", "eth0", "netns", str(pid)])
    run(["ip", "link", "set", settings.SECOND_LINK, "up"])
    run(["ip", "route", "add", f"{second.address}/32", "dev", settings.SECOND_LINK, "src", here])
    run(["ip", "route", "add", second.pod_subnet, "via", second.address, "src", here])
    run([*within, "ip", "link", "set", "lo", "up"])
    run([*within, "ip", "address", "add", f"{second.address}/32", "dev", "eth0"])
    run([*within, "ip", "link", "set", "eth0", "up"])
    run([*within, "ip", "route", "add", f"{here}/32", "dev", "eth0"])
    for subnet in settings.TEST_RANGES:
        run([*within, "ip", "route", "add", subnet, "via", here, "src", second.address])
    run([*within, "sh", "-c", f"echo 1 > {IP_FORWARD}"])


def cni_config(place: Place, state: State) -> dict[str, Any]:
    """Point-to-point links: every packet is routed by the node, so Service addresses are
    translated back on the way home whatever the machine's bridge filtering is set to."""
    return {
        "cniVersion": "1.0.0",
        "name": settings.CNI_NETWORK,
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(state.run / "cni"),
                    "ranges": [[{"subnet": place.pod_subnet, "gateway": place.pod_gateway}]],
                    "routes": [{"dst": subnet} for subnet in settings.TEST_RANGES],
                },
            }
        ],
    }


def pod_links() -> list[str]:
    """Host ends of pod links, known by the gateway's address."""
    listing = run(["ip", "-json", "address", "show", "type", "veth"], check=False).stdout
    links: list[str] = []
    with contextlib.suppress(ValueError):
        for link in json.loads(listing or "[]"):
            addresses = {address.get("local") for address in link.get("addr_info", [])}
            if settings.POD_GATEWAY in addresses:
                links.append(str(link["ifname"]))
    return links


def routes() -> list[str]:
    """Our routes to our ranges, in the words of `ip route`."""
    links = {settings.NODE_BRIDGE, settings.SECOND_LINK, *pod_links()}
    return [line for line in _routes("root") if _is_ours(line, links)]


def foreign_routes() -> list[str]:
    """Routes of others inside our ranges, or around them; the default route does not count."""
    links = {settings.NODE_BRIDGE, settings.SECOND_LINK, *pod_links()}
    lines = dict.fromkeys(_routes("root") + _routes("match"))
    return [line for line in lines if not line.startswith("default") and not _is_ours(line, links)]


def _routes(selector: str) -> list[str]:
    lines: list[str] = []
    for subnet in settings.TEST_RANGES:
        lines += run(["ip", "route", "show", selector, subnet], check=False).stdout.splitlines()
    return [line.strip() for line in lines]


def _is_ours(line: str, links: set[str]) -> bool:
    words = line.split()
    named = dict(pairwise(words))
    return named.get("dev") in links or named.get("metric") == LAST_RESORT_METRIC


def nftables_tables() -> list[tuple[str, str]]:
    listing = run(["nft", "list", "tables"], check=False).stdout.splitlines()
    present = {tuple(line.split()[1:3]) for line in listing if line.startswith("table")}
    return [table for table in PROXY_TABLES if table in present]


def remove_half_written_rules(within: Sequence[str] = ()) -> None:
    """Call it before kube-proxy starts. An endpoint that goes leaves its chain empty for a while, and a new kube-proxy
    takes every endpoint's chain that it finds for a full one: a Service whose endpoint came back meanwhile would
    answer nobody until the next full write, an hour later. Without the table all of it is written anew."""
    for family, table in PROXY_TABLES:
        listing = run([*within, "nft", "--json", "list", "table", family, table], check=False).stdout
        with contextlib.suppress(ValueError):
            found = json.loads(listing or "{}").get("nftables", [])
            chains = {str(item["chain"]["name"]) for item in found if "chain" in item}
            filled = {str(item["rule"]["chain"]) for item in found if "rule" in item}
            if any(name.startswith("endpoint-") for name in chains - filled):
                run([*within, "nft", "delete", "table", family, table])


def tear_down(state: State, *, shared: bool) -> None:
    """Call it when no process of the cluster lives any more: the last-resort routes go last.
    What has a name that every cluster uses goes only when `shared` says that it is ours."""
    for link in pod_links():
        run(["ip", "link", "delete", link], check=False)
    for family, table in nftables_tables() if shared else ():
        run(["nft", "delete", "table", family, table], check=False)
    if has_bridge():
        run(["ip", "link", "delete", settings.NODE_BRIDGE])
    for line in routes():
        run(["ip", "route", "delete", *line.split()], check=False)
    wait_until("every route of ours is gone", lambda: not routes(), seconds=10, detail=lambda: "\n".join(routes()))
    if shared and "ip_forward" in _saved(state):
        IP_FORWARD.write_text(_saved(state)["ip_forward"] + "\n")
    state.restore.unlink(missing_ok=True)
