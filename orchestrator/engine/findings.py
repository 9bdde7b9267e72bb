"""Findings about a deployment: a name, how much it matters, a sentence and the way out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """The weight of a finding, from the least to the most."""

    OK = "ok"
    INFO = "info"  # worth knowing; nothing is wrong
    WARNING = "warning"  # runs go on, and something that users may count on does not happen
    ERROR = "error"  # runs would hang or be lost


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that there is to say."""

    # the setting, or the part of the deployment, that it is about
    name: str
    severity: Severity
    sentence: str
    # what to do about it; empty where there is nothing to do
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}{f' ({self.remedy})' if self.remedy else ''}"
