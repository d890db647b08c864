"""Which cloud this machine stands in, and how its metadata service is reached. Reads files; sends nothing.

A cloud says by the names it gives the hardware (DMI) what it is. Where they name none of the three, nobody is asked.
The service is met at a link-local address, or at one of this machine that a test or an emulator names in the variable
the cloud's own libraries know it by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from engine.errors import ConfigError

METADATA = "http://169.254.169.254"
"""Where all three clouds answer."""
EC2_IPV6 = ip_address("fd00:ec2::254")
"""The one address of a metadata service that is not link-local; it leaves no machine either."""
DMI = Path("/sys/class/dmi/id")
DMI_NAMES = ("sys_vendor", "bios_vendor", "board_vendor", "bios_version", "product_name", "chassis_asset_tag")
DMI_VARIABLE = "REELBATCH_DMI_FOLDER"
INTERVAL_VARIABLE = "REELBATCH_NOTICE_INTERVAL_SECONDS"
SWITCHED_OFF = "AWS_EC2_METADATA_DISABLED"
"""Set to `true`, it keeps AWS's own libraries from the service, and us as long as nobody names AWS."""
AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"
"""The chassis asset tag of every machine of Azure; other machines under Hyper-V have another."""
GCP_NAMES = frozenset({"Google", "Google Compute Engine"})
"""Product names. The vendor says less: a Chromebook is one of Google's, too."""


class Cloud(StrEnum):
    """A cloud that says when it takes a machine away; the value is what the user writes."""

    AWS = "aws"
    GCP = "gcp"
    AZURE = "azure"

    @property
    def full_name(self) -> str:
        return _FACTS[self].full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    full_name: str
    variable: str
    """Names another address of the metadata service."""
    interval_s: float
    """AWS says two minutes ahead and asks for 5 s; the other two say only 30 s ahead."""


_FACTS = {
    Cloud.AWS: _Facts(full_name="AWS", variable="AWS_EC2_METADATA_SERVICE_ENDPOINT", interval_s=5.0),
    Cloud.GCP: _Facts(full_name="Google Cloud", variable="GCE_METADATA_HOST", interval_s=2.0),
    Cloud.AZURE: _Facts(full_name="Azure", variable="REELBATCH_AZURE_METADATA_ENDPOINT", interval_s=2.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeConfig:
    """Whose spot notices are watched for."""

    cloud: Cloud | None = None
    """None asks nobody."""
    endpoint: str = METADATA
    """Scheme, host and port of the metadata service."""
    interval_s: float = 5.0
    """From one answer to the next question."""

    def __post_init__(self) -> None:
        if not 0 < self.interval_s < math.inf:
            raise ConfigError(f"{INTERVAL_VARIABLE} must be above 0 s, not {self.interval_s}")


def notice_config(choice: str, *, environment: Mapping[str, str]) -> NoticeConfig:
    """What `--spot-notices` means on this machine.

    Args:
        choice: `off`, the name of a cloud, or `auto` for the one this machine stands in.
        environment: the variables of this process.

    Raises:
        ConfigError: the interval in the environment is none.
    """
    cloud = _here(environment) if choice == "auto" else None if choice == "off" else Cloud(choice)
    if cloud is None:
        return NoticeConfig()
    facts = _FACTS[cloud]
    interval = environment.get(INTERVAL_VARIABLE) or str(facts.interval_s)
    try:
        interval_s = float(interval)
    except ValueError:
        raise ConfigError(f"{INTERVAL_VARIABLE} must be a number of seconds, not {interval!r}") from None
    endpoint = _near(environment.get(facts.variable, "").strip())
    return NoticeConfig(cloud=cloud, endpoint=endpoint, interval_s=interval_s)


def cloud_of(folder: Path) -> Cloud | None:
    """The cloud that the DMI strings in a folder name, or None."""
    says = {name: _read(folder / name) for name in DMI_NAMES}
    # Instances on Xen show Xen's own vendor; the version still reads 4.11.amazon.
    if "Amazon EC2" in {says["sys_vendor"], says["bios_vendor"], says["board_vendor"]} or (
        says["bios_version"].endswith(".amazon")
    ):
        return Cloud.AWS
    if says["product_name"] in GCP_NAMES:
        return Cloud.GCP
    return Cloud.AZURE if says["chassis_asset_tag"] == AZURE_TAG else None


def _here(environment: Mapping[str, str]) -> Cloud | None:
    found = cloud_of(Path(environment.get(DMI_VARIABLE) or DMI))
    if found is Cloud.AWS and environment.get(SWITCHED_OFF, "").strip().lower() == "true":
        return None
    return found


def _read(path: Path) -> str:
    """What one file of DMI says; nothing where there is none or it may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _near(told: str) -> str:
    """The address a variable names, if it cannot leave this machine and its host; else the usual one."""
    try:
        parts = urlsplit(told if "://" in told else f"http://{told}")
        host, port = parts.hostname or "", parts.port or 80
        if parts.scheme != "http" or not _stays(host):
            return METADATA
    except ValueError:
        return METADATA
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _stays(host: str) -> bool:
    if host == "localhost":
        return True
    address = ip_address(host)
    return address.is_loopback or address.is_link_local or address == EC2_IPV6
