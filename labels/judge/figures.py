"""The table for programs: one JSON object with every figure, on the scale of 1 to 10."""

from __future__ import annotations

from typing import Any

from labels.judge.compare import Agreement, Block, Means, Position, Verdicts
from labels.judge.table import Table
from labels.judge.text import Report


def as_json(report: Report) -> dict[str, Any]:
    """Every figure; null where there is none."""
    table = report.table
    return {
        "models": list(report.names),
        "judges": list(dict.fromkeys(judge for judge, _ in table.wanted.cells)),
        "orders": list(dict.fromkeys(order for _, order in table.wanted.cells)),
        "samples": table.wanted.samples,
        "blocks": [_block(block) for block in table.blocks],
        "reviews": _reviews(table),
        "left_out": [{"count": said.count, "why": said.why, "ids": list(said.ids)} for said in report.left_out],
        "without_media": report.missing_media,
    }


def _reviews(table: Table) -> dict[str, Any]:
    return {
        "wanted": table.wanted.reviews,
        "scored": table.scored,
        "without_scores": dict(sorted(table.without_scores.items())),
        "failed": dict(sorted(table.failed.items())),
        "not_asked": table.not_asked,
        "questions_not_counted": list(table.incomplete),
        "cost_usd": table.cost_usd,
    }


def _block(block: Block) -> dict[str, Any]:
    return {
        "name": block.name,
        "questions": block.questions,
        "counted": block.counted,
        **_means(block.means),
        **_verdicts(block.verdicts),
        "position": _position(block.position),
        "agreement": _agreement(block.agreement),
        "steady": block.steady,
    }


def _means(means: Means | None) -> dict[str, Any]:
    if means is None:
        return {"mean_1": None, "mean_2": None, "ratio_percent": None, "difference": None}
    return {
        "mean_1": means.first,
        "mean_1_interval": means.first_interval,
        "mean_2": means.second,
        "mean_2_interval": means.second_interval,
        "ratio_percent": means.ratio,
        "ratio_percent_interval": means.ratio_interval,
        "difference": means.difference,
        "difference_interval": means.difference_interval,
    }


def _verdicts(verdicts: Verdicts) -> dict[str, Any]:
    return {
        "wins_1": verdicts.wins,
        "ties": verdicts.ties,
        "wins_2": verdicts.losses,
        "sign_test_p": verdicts.p_value,
        "win_share_1": verdicts.win_share,
        "win_share_1_interval": verdicts.win_interval,
    }


def _position(position: Position | None) -> dict[str, Any] | None:
    if position is None:
        return None
    return {
        "pairs": position.pairs,
        "first_minus_second": position.bias,
        "first_minus_second_interval": position.bias_interval,
        "verdict_flipped": position.flipped,
        "verdict_reversed": position.turned,
    }


def _agreement(agreement: Agreement | None) -> dict[str, Any] | None:
    if agreement is None:
        return None
    return {
        "krippendorff_alpha": agreement.alpha,
        "means": agreement.means,
        "judges": [
            {
                "names": list(two.judges),
                "questions": two.questions,
                "spearman": two.rank_correlation,
                "same_verdict": two.same_verdict,
            }
            for two in agreement.two
        ],
    }
