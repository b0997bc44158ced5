"""Figures say which points are not to be believed, and mix no norms."""

from idc.report import curves
from idc.report.results import Result
from summaries import summary


def results(tmp_path, **changes):
    one, other = (Result(tmp_path, summary(eps=eps), {}, [], given="m") for eps in (0.1, 0.2))
    other.summary.update(changes)
    return [one, other]


def texts(figure):
    axes = figure.axes
    legends = [text.get_text() for a in axes if a.get_legend() for text in a.get_legend().get_texts()]
    return " ".join([*legends, *(text.get_text() for a in axes for text in a.texts)])


def test_unreliable_points_are_marked(tmp_path):
    for draw in (curves.over_eps, curves.over_flops):
        assert "UNRELIABLE" in texts(draw(results(tmp_path, reliable=False)))
        assert "UNRELIABLE" not in texts(draw(results(tmp_path)))


def test_a_norm_has_a_panel(tmp_path):
    both = results(tmp_path)
    assert len(curves.over_eps(both).axes) == 1
    both[1].threat["norm"] = "l2"
    assert len(curves.over_eps(both).axes) == 2
