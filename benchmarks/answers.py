"""Why do one-step and multi-step answers differ? Accuracy of one model under many visit lists, etas and draws.

python benchmarks/answers.py MODEL --data D [--split validation] [--limit N] [--name NAME]
"""

import argparse

import torch
from common import write

from idc import IDC
from idc import data as datasets
from idc.compute.memory import keep_freed_memory
from idc.evaluation.verdict import wilson
from idc.storage.fields import recorded

VISITS = [(3,), (3, 0), (3, 1), (3, 2, 0), (3, 1, 0), (3, 2, 1, 0), (3, 1, 1, 0)]
ETAS = [0.0, 0.5, 1.0]


def accuracy(model, images, classes, ids, draws):
    right, single = 0, 0.0
    for part, c, i in zip(images.split(500), classes.split(500), ids.split(500), strict=True):
        found = model.predict(part.float() / 255, draws=draws, ids=i)
        right += (found.classes == c).sum().item()
        single += found.votes.gather(1, c[:, None]).sum().item()
    return right / len(classes), single / len(classes)


@torch.no_grad()
def accuracy_by_timestep(model, images, classes, draws=1):
    """Nearest-label accuracy of x0_hat from the true x_t of each timestep: what the network can do there at best."""
    random = torch.Generator().manual_seed(0)
    rows = []
    for t in range(model.config.bridge.timesteps):
        right = 0
        for part, c in zip(images.split(500), classes.split(500), strict=True):
            y = 2 * (part.float() / 255) - 1
            steps = torch.full((len(c),), t)
            eps = torch.randn(y.shape, generator=random)
            sample = model.bridge.sample(2 * model.labels[c] - 1, y, steps, eps)
            x0_hat = sample.x_t - model.unet(sample.x_t, steps, y)
            distance = torch.cdist(((x0_hat + 1) / 2).flatten(1), model.labels.flatten(1), p=1.0)
            right += (distance.argmin(1) == c).sum().item()
        rows.append({"t": t, "accuracy": right / len(classes)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--name", default="answers")
    args = parser.parse_args()
    model = IDC.from_pretrained(args.model)
    channels, size, _ = model.input_shape
    data = datasets.load(args.data, split=args.split, image_size=size, channels=channels, limit=args.limit)
    rows = []
    for visits in VISITS:
        for eta in ETAS if len(visits) > 1 else [0.0]:
            draws = 10 if eta > 0 else 1
            answering = model.with_answer(visits=visits, eta=eta)
            mean, single = accuracy(answering, data.images, data.labels, data.ids, draws)
            share = wilson(mean, len(data))
            rows.append({"visits": visits, "eta": eta, "draws": draws, "single_draw": single} | recorded(share))
            print(
                f"visits {','.join(map(str, visits)):8s} eta {eta:.1f}: {share} ({draws} draws; one draw {single:.1%})"
            )
    steps = accuracy_by_timestep(model, data.images, data.labels)
    for row in steps:
        print(f"from the true x_t at t = {row['t']}: {row['accuracy']:.1%}")
    limit = f" --limit {args.limit}" if args.limit else ""
    command = (
        f"python benchmarks/answers.py {args.model} --data {args.data} --split {args.split}{limit} --name {args.name}"
    )
    settings = {"data": args.data, "split": args.split, "images": len(data), "fingerprint": data.fingerprint}
    print(write(args.name, command, {"settings": settings, "rows": rows, "true_x_t": steps}))


if __name__ == "__main__":
    keep_freed_memory()
    main()
