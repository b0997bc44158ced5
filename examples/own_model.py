"""Your own module beside others in one table: idc compare examples/own_model.yaml --out runs/own

Any ``nn.Module`` from images (B, C, H, W) in [0, 1] to logits (B, K) will do; here, logistic regression on the digits.
"""

import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from idc import data


def model() -> nn.Module:
    train = data.load("digits", split="train")
    fit = LogisticRegression(max_iter=2000).fit(train.images.flatten(1).numpy() / 255, train.labels.numpy())
    linear = nn.Linear(fit.coef_.shape[1], len(fit.classes_))
    linear.weight.data, linear.bias.data = torch.tensor(fit.coef_).float(), torch.tensor(fit.intercept_).float()
    return nn.Sequential(nn.Flatten(), linear)
