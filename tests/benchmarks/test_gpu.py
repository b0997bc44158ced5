"""Jobs in the time that there is: which are begun, what is kept of each, and how one is stopped."""

import sys
import tarfile

import gpu
import pytest


def do(monkeypatch, out, ends, seconds=1000):
    """Run all jobs with commands that end as ``ends`` says, else done; returns the names of those that were begun."""
    begun = []

    def attend(command, limit, log):
        name = log.stem
        begun.append(name)
        assert 0 < limit <= seconds
        state = ends.get(name, "done")
        (out / name).mkdir(exist_ok=True)
        (out / name / ("summary.json" if state == "done" else "images-0.jsonl")).write_text("{}")
        (out / name / "large").write_bytes(bytes(gpu.LARGEST + 1))
        return state, ""

    monkeypatch.setattr(gpu, "attend", attend)
    gpu.run(gpu.JOBS, "data", out, seconds)
    return begun


def test_jobs_that_are_not_done_are_done_in_order_and_what_is_small_is_packed(tmp_path, monkeypatch):
    out, names = tmp_path / "out", [job.name for job in gpu.JOBS]
    out.mkdir()
    assert do(monkeypatch, out, {names[1]: "stopped", names[2]: "failed"}) == names
    with tarfile.open(tmp_path / "out.tgz") as archive:
        packed = archive.getnames()
    assert set(packed) == {"out/gpu.json", f"out/{names[1]}/images-0.jsonl", f"out/{names[2]}/images-0.jsonl"} | {
        f"out/{name}/summary.json" for name in (names[0], *names[3:])
    }
    assert do(monkeypatch, out, {}) == names[1:3]
    assert do(monkeypatch, out, {}) == []


def test_nothing_is_begun_without_time_or_after_a_first_job_that_fails(tmp_path, monkeypatch):
    assert do(monkeypatch, tmp_path, {}, seconds=gpu.GRACE) == []
    with pytest.raises(SystemExit, match=r"smoke\.log"):
        do(monkeypatch, tmp_path, {"smoke": "failed"})
    assert not (tmp_path / gpu.JOBS[1].name).exists()


@pytest.mark.parametrize(
    ("code", "seconds", "state"),
    [("print('one two')", 600, "done"), ("print('one two'); raise SystemExit(3)", 600, "failed"),
     ("import time; print('one two', flush=True); time.sleep(600)", 3, "stopped")],
)  # fmt: skip
def test_a_command_is_attended(tmp_path, code, seconds, state):
    assert gpu.attend([sys.executable, "-c", code], seconds, tmp_path / "log")[0] == state


def test_a_rehearsal_asks_for_two_images_of_a_small_model_and_no_gpu(tmp_path):
    for job in gpu.JOBS:
        whole, small = job.command("d", tmp_path), job.command("d", tmp_path, rehearsal=True)
        assert {job.model, job.protocol, job.eps, str(job.limit)} <= set(whole)
        assert "--precision" not in small
        assert small[small.index("--limit") + 1] == "2"
        assert {"idc-nano-cifar10", "idc-digits-robust"} & set(small)
