"""Labels of a figure: no two overlap, as matplotlib draws them."""

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from idc.report import curves
from idc.report.comparison import figure, published
from idc.report.results import Result
from summaries import share, summary, verdict


def boxes(drawn, dpi: int):
    """Where the texts of the annotations are, and the legends, in pixels of that resolution."""
    drawn.set_dpi(dpi)
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    labels = [t for axes in drawn.axes for t in axes.texts if isinstance(t, Annotation) and t.get_text()]
    legends = [axes.get_legend().get_window_extent(canvas.get_renderer()) for axes in drawn.axes]
    # Of an annotation with an arrow the text alone.
    return [super(Annotation, label).get_window_extent(canvas.get_renderer()) for label in labels], legends


@pytest.mark.parametrize("dpi", [72, 100, 150])
@pytest.mark.parametrize("count", [2, 12, 40])
def test_labels_of_points_that_coincide_do_not_overlap(tmp_path, count, dpi):
    """All of one cost; half of them of one accuracy too."""
    results = [
        Result(tmp_path, summary(robust=0.4 if i % 2 else 0.4 + i / 200), {}, [], given=f"a model of some name, {i}")
        for i in range(count)
    ]
    drawn = curves.over_flops(results)
    found, legends = boxes(drawn, dpi)
    assert len(found) == count
    assert not [pair for pair in combinations(found + legends, 2) if pair[0].overlaps(pair[1])]
    if count == 12:  # there is room
        [axes] = drawn.axes
        inside = axes.get_window_extent()
        assert all(Bbox.intersection(inside, box).bounds == box.bounds for box in found)


def test_a_point_alone_has_its_label_at_its_right(tmp_path):
    far = summary(robust=0.9, answer={"parameters": 1, "flops": 3e9, "stochastic": True})
    drawn = curves.over_flops([Result(tmp_path, s, {}, [], given="m") for s in (summary(robust=0.1), far)])
    found, _ = boxes(drawn, 100)
    [axes] = drawn.axes
    x, y = axes.transData.transform((0.3, 10.0))
    left = min(found, key=lambda box: box.x0)
    assert 0 < left.x0 - x < 20
    assert left.y0 < y < left.y1


def test_published_systems_do_not_overlap():
    robust = verdict(0.5)
    row = {
        "name": "m", "eps": 8 / 255, "eps_text": "8/255", "norm": "linf", "data": "cifar10", "split": "test", "images":
        9, "flops": 3e8, "protocols": {"adaptive": {"robust": robust}}, "clean": {"mean": share(0.9)},
    }  # fmt: skip
    found, _ = boxes(figure([row], with_published=True), 150)
    assert len(found) == len([entry for entry in published() if entry["gflops"]]) > 1
    assert not [pair for pair in combinations(found, 2) if pair[0].overlaps(pair[1])]
