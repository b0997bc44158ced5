"""Jobs in the time that there is: which are begun, what is kept of each, and how one is stopped."""

import sys
import tarfile
import time
from pathlib import Path

import gpu
import gpu_jobs
import pytest


def do(monkeypatch, out, ends, seconds=1000):
    """Run all jobs with commands that end as ``ends`` says, else done; returns the names of those that were begun."""
    begun = []

    def attend(command, limit, log):
        name = log.stem
        if name not in begun:  # of a training, the evaluation is a second command
            begun.append(name)
        assert 0 < limit <= seconds
        state = ends.get(name, "done")
        result = Path(command[command.index("--out") + 1])
        result.mkdir(exist_ok=True, parents=True)
        (result / ("summary.json" if state == "done" else "images-0.jsonl")).write_text("{}")
        (out / name).mkdir(exist_ok=True)
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
        f"out/{folder}/summary.json"
        for job in (gpu.JOBS[0], *gpu.JOBS[3:])
        for folder in dict.fromkeys((job.name, job.folder))
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
        (*_, whole), (*_, small) = (job.commands("d", tmp_path, rehearsal=few) for few in (False, True))
        asked = job.asked()
        assert "--precision" not in small
        if not job.limit:
            assert "evaluate" not in whole
            continue
        assert {asked["protocol"], asked["eps"], str(asked["images"])} <= set(whole)
        assert small[small.index("--limit") + 1] == "2"
        if "model" in asked:
            used = asked["model"].replace(gpu_jobs.RUNS, str(tmp_path))
            assert used in whole
            assert {"idc-nano-cifar10", "idc-digits-robust", used if job.after else ""} & set(small)


def test_a_job_waits_for_those_that_it_needs(tmp_path, monkeypatch):
    order = []

    def attend(command, limit, log):
        if "train-peer" in command:
            time.sleep(0.2)  # what does not wait is over before
        order.append(log.stem)
        return "done", ""

    monkeypatch.setattr(gpu, "attend", attend)
    names = ("train-ddpm", "train-cnn-standard", "rdc-adaptive")
    gpu.run([job for job in gpu.JOBS if job.name in names], "data", tmp_path, 1000, together=3)
    assert sorted(order[:2]) == sorted(names[:2])
    assert order[2:] == ["rdc-adaptive"]


def test_jobs_stand_after_those_that_they_need():
    names = [job.name for job in gpu.JOBS]
    for place, job in enumerate(gpu.JOBS):
        assert set(job.after) <= set(names[:place])


def test_trainings_are_of_the_same_seconds_and_judged_on_validation_images_of_their_own_run(tmp_path):
    trainings = gpu_jobs.trainings()
    for added in ("plain", "cutmix", "branch"):
        assert sum(job.name.endswith(f"-{added}") for job in trainings) == 2
    minutes = set()
    for job in trainings:
        train, judge = job.commands("d", tmp_path)
        minutes.add(train[train.index("--minutes") + 1])
        assert train[train.index("--out") + 1] == judge[judge.index("evaluate") + 1] == str(tmp_path / job.name)
        assert judge[judge.index("--split") + 1] == "validation"
    assert minutes == {"2.50"}


def test_what_a_training_has_come_to_is_collected_with_its_evaluation(tmp_path, monkeypatch):
    job = next(job for job in gpu.JOBS if isinstance(job, gpu.Training))
    (tmp_path / job.folder).mkdir(parents=True)
    (tmp_path / job.name / "summary.json").write_text('{"validation": {"one_step": 0.5}, "steps": 7, "recipe": {}}')
    (tmp_path / job.folder / "summary.json").write_text('{"clean": {"mean": 1}, "robust": {"mean": 0}, "sanity": []}')
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    gpu.collect(tmp_path)
    (row,) = gpu.read(tmp_path / "gpu.json")["rows"]
    assert row["trained"] == {"validation": {"one_step": 0.5}, "steps": 7}
    assert (row["state"], row["clean"], row["split"]) == ("done", {"mean": 1}, "validation")
