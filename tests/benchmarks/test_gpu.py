"""Jobs in the time that there is: which are begun, what is kept of each, and how one is stopped."""

import sys
import tarfile
from pathlib import Path

import gpu
import gpu_jobs
import pytest
import torch

from idc.peers.cnn import CNN, CNNConfig


def do(monkeypatch, out, ends, seconds=1000, jobs=gpu.JOBS):
    """Run all jobs with commands that end as ``ends`` says, else done; returns the names of those that were begun."""
    begun = []

    def attend(command, limit, log):
        name = log.stem
        if name not in begun:  # of a training, the evaluation is a second command
            begun.append(name)
        assert 0 < limit <= seconds
        state = ends.get(name, "done")
        result = out / name / gpu.KEPT if "keep" in command else Path(command[command.index("--out") + 1])
        result.mkdir(exist_ok=True, parents=True)
        (result / ("summary.json" if state == "done" else "images-0.jsonl")).write_text("{}")
        (out / name).mkdir(exist_ok=True)
        (out / name / "large").write_bytes(bytes(gpu.LARGEST + 1))
        return state, ""

    monkeypatch.setattr(gpu, "attend", attend)
    gpu.run(jobs, "data", out, seconds)
    return begun


def test_jobs_that_are_not_done_are_done_in_order_and_what_is_small_is_packed(tmp_path, monkeypatch):
    out, names = tmp_path / "out", [job.name for job in sorted(gpu.JOBS, key=lambda job: bool(job.after))]
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
    [("print('one two')", 600, "done"), ("print('one two'); raise SystemExit(1)", 600, "failed"),
     ("print('one two'); raise SystemExit(3)", 600, "done"),  # an evaluation whose result is not to be quoted
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
            assert "keep" in whole
            continue
        assert {asked["protocol"], asked["eps"], str(asked["images"])} <= set(whole)
        assert small[small.index("--limit") + 1] == "2"
        if "model" in asked:
            used = asked["model"].replace(gpu_jobs.RUNS, str(tmp_path))
            assert used in whole
            assert {"idc-nano-cifar10", "idc-digits-robust", used if job.after else ""} & set(small)


def test_a_job_is_begun_when_what_it_needs_is_done_and_not_otherwise(tmp_path, monkeypatch):
    needed, wants = ("train-ddpm", "train-cnn-standard"), "rdc-adaptive"
    chosen = [job for job in gpu.JOBS if job.name in (*needed, wants)]
    for ends, expected in (({"train-ddpm": "stopped"}, [*needed]), ({}, ["train-ddpm", wants])):
        begun = do(monkeypatch, tmp_path, ends, jobs=chosen)
        assert sorted(begun) == sorted(expected)
    assert begun[-1] == wants


def test_kept_weights_are_those_of_a_training_in_small_files(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "LARGEST", 60_000)
    job = next(job for job in gpu.JOBS if job.name == "train-cnn-standard")
    model = CNN(CNNConfig("preact-resnet18", 10, (3, 32, 32), width=8))
    model.save_pretrained(tmp_path / job.name / "best")
    (tmp_path / job.name / "summary.json").write_text("{}")
    gpu.keep(job, tmp_path)
    assert gpu.is_done(job, tmp_path)
    folder = tmp_path / job.folder
    assert len(list(folder.glob("*.safetensors"))) > 1
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(CNN.from_pretrained(folder).eval()(images), model.eval()(images), rtol=0, atol=0.05)


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
