"""The paper's nouns: labels and the distance to them, bridge, network, losses, reverse process, classifier."""
