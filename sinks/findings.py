"""What a verification of a run folder finds, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as promised."""

    file: str
    """Inside the run folder."""
    offset: int
    """In bytes; 0 where the file as a whole is meant."""
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One promise and how it stands."""

    name: str
    findings: int
    text: str
    """What was looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verification found."""

    out: str
    sound: bool
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    """The first of them."""
    more: int
    """Findings besides those."""
    uncommitted_bytes: int
    """Past the last commit: of a run that goes on, or that a resume will take in. No damage."""
    notes: tuple[str, ...]

    def text(self) -> str:
        """For a person: one line a check, then the findings."""
        lines = [f"{'ok ' if not check.findings else 'BAD'}  {check.name:<11} {check.text}" for check in self.checks]
        lines += [f"     {note}" for note in self.notes]
        lines += [f"{found.file}, byte {found.offset:,}: {found.what}" for found in self.findings]
        return "\n".join([*lines, f"and {self.more:,} more"] if self.more else lines)
