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


def test_a_line_has_one_figure_at_each_eps(tmp_path):
    """Two runs of one model: not joined by a line up and down."""
    twice = [*results(tmp_path / "one"), *results(tmp_path / "two")]
    lines = curves.by_attack(twice)
    assert len(lines) == 2 * len(curves.by_attack(twice[: len(twice) // 2]))
    for line in lines:
        sizes = [r.eps for r in line]
        assert sizes == sorted(set(sizes))
    other = Result(tmp_path, summary(eps=0.1, protocol="paper", robust=0.3), {}, [], given="m")
    other.summary["protocol"] = "adaptive"  # by other attacks
    assert [len(line) for line in curves.by_attack([*results(tmp_path), other])] == [2, 1]
    assert "(fgsm and pgd-20 and cw-l2)" in texts(curves.over_eps([*results(tmp_path), other]))
    assert sorted(id(r) for line in lines for r in line) == sorted(map(id, twice))


def test_a_norm_has_a_panel(tmp_path):
    both = results(tmp_path)
    assert len(curves.over_eps(both).axes) == 1
    both[1].threat["norm"] = "l2"
    assert len(curves.over_eps(both).axes) == 2
